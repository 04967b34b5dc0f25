"""Simplify: float rewrites of a Net that leave fewer roundings and fewer kinds of operators.

Identity, Dropout and float casts vanish; Sum becomes a chain of Add; scaling and shifting per
output channel (BatchNormalization, Mul, Div, Add, Sub by constants) behind a Conv, Gemm or MatMul
with float weights folds into its weights and bias.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from isa.diagnostics import Location
from pimc.frontend.net import Array, Net, Op, used_inputs
from pimc.frontend.regions import ARITHMETIC, constant_axes

_FLOAT = onnx.TensorProto.FLOAT
Scaling = tuple[Array, Array]  # factor and offset per output channel, float64 [outputs]


def simplify(net: Net) -> None:
    """Rewrite ``net`` in place."""
    _drop_neutral_constants(net)
    _split_variadic(net)
    drop_identities(net)
    _spread_operands(net)
    _turn_constants(net)
    _free_odd_weights(net)
    _fold_scalings(net)
    net.remove_unused()


def drop_identities(net: Net) -> None:
    """Let readers of what changes nothing read its input: see ``_is_identity``.

    An Identity with parameters of its own stays: it requantizes.
    """
    names: dict[str, str] = {}
    kept = []
    for op in net.ops:
        if _is_identity(net, op) and op.output not in net.qparams:
            names[op.output] = names.get(op.inputs[0], op.inputs[0])
        else:
            kept.append(op)
    net.ops = kept
    net.rename_inputs(names)


def _drop_neutral_constants(net: Net) -> None:
    """Adding zeros and multiplying by ones become Identity: some masks mask nothing."""
    for at, op in enumerate(net.ops):
        neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(op.op_type)
        if neutral is None or op.domain or len(op.inputs) != 2 or op.output in net.qparams:
            continue
        for kept, other in (op.inputs, op.inputs[::-1]):
            is_free = other == op.inputs[1] or op.op_type in ("Add", "Mul")
            same_shape = net.shapes.get(kept) == net.shapes.get(op.output) is not None
            values = net.constants.get(other)
            if is_free and same_shape and values is not None and np.all(values == neutral):
                net.ops[at] = Op(op.name, "Identity", (kept,), op.outputs)
                break


def _is_identity(net: Net, op: Op) -> bool:
    if op.domain:
        return False
    if op.op_type == "Cast":
        return bool(net.types.get(op.inputs[0]) == op.attributes["to"] == _FLOAT)
    if op.op_type == "Dropout":
        training = op.input(2)
        is_training = bool(training) and (
            not net.is_constant(training) or bool(net.constant(training))
        )
        return not is_training and len([name for name in op.outputs if name]) == 1
    if op.op_type == "Reshape":
        return _keeps_shape(net, op)
    return op.op_type == "Identity"


def _keeps_shape(net: Net, op: Op) -> bool:
    """Whether a Reshape keeps the shape for any batch, as exporters like to flatten [n, tokens]."""
    before, after = (net.shapes.get(name) for name in (op.inputs[0], op.output))
    if before is None or before != after or op.inputs[1] not in net.constants:
        return False
    wanted = net.constants[op.inputs[1]].tolist()
    return wanted[:1] in ([0], [-1]) and wanted[1:] == list(before[1:])


def _split_variadic(net: Net) -> None:
    """Sum(a, b, c) becomes Add(Add(a, b), c), and so with Max and Min: two tensors at a time."""
    ops: list[Op] = []
    for op in net.ops:
        pairwise = {"Sum": "Add", "Max": "Max", "Min": "Min"}.get(op.op_type)
        is_short = pairwise == op.op_type and len(op.inputs) == 2
        if pairwise is None or is_short or op.domain or any(n not in net.shapes for n in op.inputs):
            ops.append(op)
            continue
        if len(op.inputs) == 1:
            ops.append(Op(op.name, "Identity", op.inputs, op.outputs))
            continue
        left = op.inputs[0]
        for position, right in enumerate(op.inputs[1:], 1):
            is_last = position == len(op.inputs) - 1
            output = op.output if is_last else net.fresh(f"{op.output}_partial{position}")
            sizes = np.broadcast_shapes(net.shapes[left], net.shapes[right])
            net.shapes[output], net.types[output] = sizes, net.types.get(left, _FLOAT)
            name = op.name if is_last else f"{op.name}_partial{position}"
            ops.append(Op(name, pairwise, (left, right), (output,)))
            left = output
    net.ops = ops


def _spread_operands(net: Net) -> None:
    """A tensor that constants widen is expanded first: a table gives one number for one."""
    ops: list[Op] = []
    for op in net.ops:
        tensors = [name for name in used_inputs(op) if not net.is_constant(name)]
        known = all(name in net.shapes for name in (*tensors, *op.outputs))
        if op.op_type in ARITHMETIC and not op.domain and known and len(set(tensors)) == 1:
            wide, narrow = net.shapes[op.output], net.shapes[tensors[0]]
            is_float = net.types.get(op.output, _FLOAT) == _FLOAT
            if is_float and wide != narrow and (len(wide), wide[:1]) == (len(narrow), narrow[:1]):
                target, spread = net.fresh(f"{op.output}_shape"), net.fresh(f"{op.output}_spread")
                net.constants[target] = np.array(wide, np.int64)
                net.shapes[target] = (len(wide),)
                net.add_like(spread, op.output)
                ops.append(Op(f"{op.name}/spread", "Expand", (tensors[0], target), (spread,)))
                names = {tensors[0]: spread}
                op = replace(op, inputs=tuple(names.get(n, n) for n in op.inputs))
        ops.append(op)
    net.ops = ops


def _turn_constants(net: Net) -> None:
    """Division by a constant becomes a product, constant minus tensor a sum with its negative.

    Only for constants that vary along several axes: others go into tables as they are.
    """
    ops: list[Op] = []
    for op in net.ops:
        is_known = not op.domain and all(name in net.shapes for name in op.inputs)
        is_wide = op.op_type in ("Div", "Sub") and is_known and constant_axes(net, op) is None
        if is_wide and op.op_type == "Div" and op.inputs[1] in net.constants:
            reciprocal = net.fresh(f"{op.inputs[1]}_reciprocal")
            values = net.constants[op.inputs[1]]
            if np.all(values != 0):
                net.constants[reciprocal] = np.float32(1) / values
                net.add_like(reciprocal, op.inputs[1])
                op = replace(op, op_type="Mul", inputs=(op.inputs[0], reciprocal))
        elif is_wide and op.op_type == "Sub" and net.is_constant(op.inputs[0]):
            negative = net.fresh(f"{op.output}_negative")
            net.add_like(negative, op.inputs[1])
            ops.append(Op(f"{op.name}/negative", "Neg", (op.inputs[1],), (negative,)))
            op = replace(op, op_type="Add", inputs=(negative, op.inputs[0]))
        ops.append(op)
    net.ops = ops


def _free_odd_weights(net: Net) -> None:
    """Let go of the user's weight integers where their scales do not go by output channel."""
    for at, op in enumerate(net.ops):
        if op.op_type not in ("Conv", "Gemm", "MatMul") or op.input(1) not in net.quantized:
            continue
        name = op.inputs[1]
        held = net.quantized[name]
        by_rows = op.op_type == "Conv" or op.attributes.get("transB")
        axis = 0 if op.op_type == "Conv" else held.values.ndim - (2 if by_rows else 1)
        if held.axis in (None, axis) and held.values.dtype != np.int32:
            continue
        real = net.fresh(f"{name}_real")
        net.constants[real] = held.real()
        net.add_like(real, name)
        net.ops[at] = replace(op, inputs=(op.inputs[0], real, *op.inputs[2:]))
        net.notes.warning(
            "F224",
            f"{op.op_type} `{op.name}`: its weights have a scale per axis {held.axis}, which no "
            "integer matrix product can use; they are quantized again per output channel",
            Location(node=f"{op.op_type} `{op.name}`"),
        )


def _fold_scalings(net: Net) -> None:
    consumers, outputs = net.consumers(), net.output_tensors()
    replaced: dict[int, Op] = {}
    gone: set[int] = set()
    for op in net.ops:
        if op.op_type not in ("Conv", "Gemm", "MatMul") or op.domain:
            continue
        if not net.is_constant(op.inputs[1]):
            continue
        current = op
        while True:
            readers = consumers.get(current.output, [])
            if len(readers) != 1 or current.output in outputs or current.output in net.qparams:
                break
            found = _scaling(net, current, readers[0])
            folded = None if found is None else _folded(net, current, readers[0], *found)
            if folded is None:
                break
            gone.add(id(readers[0]))
            current = folded
        replaced[id(op)] = current
    # the folded operator stands where its product did: all its other inputs are constants
    net.ops = [replaced.get(id(op), op) for op in net.ops if id(op) not in gone]


def _scaling(net: Net, product: Op, op: Op) -> Scaling | None:
    """What ``op`` does to each output channel of ``product``, if it is that simple."""
    shape = net.shapes.get(op.output)
    if op.domain or shape is None or shape != net.shapes.get(product.output):
        return None
    rank = len(shape)
    axis = 1 if product.op_type == "Conv" else rank - 1
    outputs = shape[axis]
    if op.op_type == "BatchNormalization" and axis == 1:
        return _batch_normalization(net, op)
    if op.op_type not in ("Add", "Sub", "Mul", "Div") or len(op.inputs) != 2:
        return None
    is_left = op.inputs[0] == product.output
    other = op.inputs[1 if is_left else 0]
    if not net.is_constant(other) or (op.op_type == "Div" and not is_left):
        return None
    constant = net.constant(other).astype(np.float64)
    padded = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if any(size > 1 for at, size in enumerate(padded.shape) if at != axis):
        return None
    values = np.broadcast_to(padded.reshape(-1), (outputs,))
    one, none = np.ones(outputs), np.zeros(outputs)
    if op.op_type == "Add":
        return one, values
    if op.op_type == "Sub":
        return (one, -values) if is_left else (-one, values)
    if op.op_type == "Div":
        return (1 / values, none) if np.all(values != 0) else None
    return values, none


def _batch_normalization(net: Net, op: Op) -> Scaling | None:
    if not all(name in net.constants for name in op.inputs[1:5]) or len(op.outputs) > 1:
        return None
    scale, bias, mean, variance = (net.constants[n].astype(np.float64) for n in op.inputs[1:5])
    factor = scale / np.sqrt(variance + op.attributes.get("epsilon", 1e-5))
    return factor, bias - mean * factor


def _folded(net: Net, product: Op, op: Op, factor: Array, offset: Array) -> Op | None:
    """``product`` with the scaling in its weights and bias, making the output of ``op``."""
    bias = product.input(2)
    if bias and not net.is_constant(bias):
        return None
    attributes = dict(product.attributes)
    old_bias: NDArray[np.float64] = np.zeros(factor.size)
    if bias:
        constant = net.constant(bias).astype(np.float64).reshape(-1)
        old_bias = np.broadcast_to(constant, (factor.size,)) * attributes.pop("beta", 1.0)
    scaled = _scaled_weights(net, product, factor)
    if scaled is None:
        return None
    name = net.fresh(f"{bias or product.output + '_bias'}_folded")
    net.constants[name] = (old_bias * factor + offset).astype(np.float32)
    net.shapes[name], net.types[name] = (factor.size,), _FLOAT
    return replace(
        product,
        inputs=(product.inputs[0], scaled, name),
        outputs=(op.output,),
        attributes=attributes,
    )


def _scaled_weights(net: Net, product: Op, factor: Array) -> str | None:
    """A constant with the weights times a factor per output channel.

    The user's own integers stay: only their scales change.
    """
    weight = product.inputs[1]
    if np.all(factor == 1):
        return weight
    name = net.fresh(f"{weight}_folded")
    rank = len(net.shapes[weight])
    by_rows = product.op_type == "Conv" or bool(product.attributes.get("transB"))
    axis = 0 if product.op_type == "Conv" else rank - (2 if by_rows else 1)
    if product.op_type != "Conv" and rank != 2:
        return None
    if weight in net.constants:
        along = factor.reshape([-1 if at == axis else 1 for at in range(rank)])
        net.constants[name] = (net.constants[weight].astype(np.float64) * along).astype(np.float32)
    elif np.all(factor > 0):
        held = net.quantized[weight]
        scale = (held.scale.astype(np.float64) * factor).astype(np.float32)
        zero = np.broadcast_to(held.zero, scale.shape)
        net.quantized[name] = replace(held, scale=scale, zero=zero, axis=axis)
    else:
        return None
    net.add_like(name, weight)
    return name
