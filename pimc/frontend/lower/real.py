"""Lower float islands: arithmetic on float32 rows, and what stands between casts to float64."""

from __future__ import annotations

import numpy as np
import onnx

from passes.graph import BinaryNode, FloatLayerNormNode, RealNode
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.operands import operand, stored_constant
from pimc.frontend.lower.state import State
from pimc.frontend.net import Array, QParams

_REDUCTIONS = {"ReduceSum": "reducesum", "ReduceMax": "reducemax"}
_FUNCTIONS = {"Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Tanh": "tanh", "Sign": "erf"}


def lower_rounded(
    state: State, model: ReferenceModel, cast: onnx.NodeProto, output: str, y: QParams | None
) -> None:
    """What a Cast from float64 rounds. y: parameters of ``output``, None where it stays float32."""
    node = model.makers[cast.input[0]]
    kind = node.op_type
    if kind in _FUNCTIONS:
        _lower_function(state, model, cast, node, output, y)
    elif kind == "Mul":
        sign = model.makers[node.input[0]]
        _lower_function(state, model, cast, sign, output, y)
    elif kind == "Pow":
        lower_arithmetic(state, model, cast, [_cast_of(model, n) for n in node.input], output, y)
    elif kind in _REDUCTIONS:
        _along(state, model, cast, node, output, y, _REDUCTIONS[kind])
    elif kind == "Div" and model.is_constant(node.input[1]):
        total = model.makers[node.input[0]]
        _along(state, model, cast, total, output, y, "reducemean")
    elif kind == "Div":
        total = model.makers[node.input[1]]
        power = model.makers[total.input[0]]
        largest = model.makers[model.makers[power.input[0]].input[1]]
        _along(state, model, cast, largest, output, y, "fsoftmax")
    else:
        _lower_layer_norm(state, model, cast, node, output, y)


def lower_convert(
    state: State, model: ReferenceModel, node: onnx.NodeProto, output: str, y: QParams
) -> None:
    """QuantizeLinear of a float32 row."""
    source = state.value_of(node.input[0])
    axis = state.axis_of(source, node.input[0])
    name = state.make(output, axis, y)
    state.nodes.append(RealNode(node.name, (source,), name, "convert"))


def _lower_function(
    state: State,
    model: ReferenceModel,
    cast: onnx.NodeProto,
    node: onnx.NodeProto,
    output: str,
    y: QParams | None,
) -> None:
    real = _cast_of(model, node.input[0])
    tensor = tensor_of(state, model, real)
    axis = state.axis_of(state.value_of(tensor), tensor)
    source = real_value(state, model, real, axis)
    name = state.make(output, axis, y)
    state.nodes.append(RealNode(cast.name, (source,), name, _FUNCTIONS[node.op_type]))


def _along(
    state: State,
    model: ReferenceModel,
    cast: onnx.NodeProto,
    reduction: onnx.NodeProto,
    output: str,
    y: QParams | None,
    mnemonic: str,
) -> None:
    """A reduction, or what consists of them, along the axis of ``reduction``."""
    real = _cast_of(model, reduction.input[0])
    tensor = tensor_of(state, model, real)
    axis = int(model.array(reduction.input[1])[0]) - int(state.infos[tensor].batched)
    source = real_value(state, model, real, axis)
    name = state.make(output, axis, y)
    state.nodes.append(RealNode(cast.name, (source,), name, mnemonic))


def _lower_layer_norm(
    state: State,
    model: ReferenceModel,
    cast: onnx.NodeProto,
    node: onnx.NodeProto,
    output: str,
    y: QParams | None,
) -> None:
    """``Add(Mul(Div(distance, Sqrt(Add(squares, epsilon))), gain), offset)``."""
    scaled = model.makers[node.input[0]]
    distance, root = (model.makers[name] for name in model.makers[scaled.input[0]].input)
    epsilon = float(model.array(model.makers[root.input[0]].input[1]))
    real = _cast_of(model, distance.input[0])
    axis = len(state.infos[tensor_of(state, model, real)].shape) - 1
    source = real_value(state, model, real, axis)
    name = state.make(output, axis, y)
    gain, offset = (model.array(n).astype(np.float32) for n in (scaled.input[1], node.input[1]))
    state.nodes.append(FloatLayerNormNode(cast.name, (source,), name, gain, offset, epsilon))


def _cast_of(model: ReferenceModel, double: str) -> str:
    """The float32 tensor that was cast to float64."""
    return str(model.makers[double].input[0])


# ---------------------------------------------------------------------- arithmetic
BINARY = {"Sum": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "max", "Min": "min"}


def lower_arithmetic(
    state: State,
    model: ReferenceModel,
    node: onnx.NodeProto,
    operands: list[str],
    output: str,
    y: QParams | None,
) -> None:
    """Arithmetic on two operands; the first one has the shape of the result.

    operands: float tensors, each a row of the island, dequantized integers, or a constant.
    y: parameters of ``output``, None where it stays float32.
    """
    first, second = (_behind_sum(model, name) for name in operands)
    shape = state.infos[output].shape
    left = tensor_of(state, model, first)
    axis = _result_axis(state, model, output, left, second)
    sources = [real_value(state, model, first, axis - len(shape) + len(state.infos[left].shape))]
    name = state.make(output, axis, y)
    op = BINARY.get(node.op_type, "pow")
    constant, scale, zero = _constant_of(model, second)
    if constant is None:
        rank = len(state.infos[tensor_of(state, model, second)].shape)
        sources.append(real_value(state, model, second, axis - len(shape) + rank))
    else:
        constant = _placed(constant, shape, axis)
    state.nodes.append(BinaryNode(node.name, tuple(sources), name, op, constant, scale, zero))


def _behind_sum(model: ReferenceModel, name: str) -> str:
    """An operand behind the Sum of one that hinders a fusion."""
    node = model.makers.get(name)
    is_single = node is not None and node.op_type == "Sum" and len(node.input) == 1
    return node.input[0] if node is not None and is_single else name


def _constant_of(model: ReferenceModel, name: str) -> tuple[Array | None, float, int]:
    """A constant operand with scale and zero point: float32, or integers; None if it is none."""
    if model.is_constant(name):
        return model.array(name), 1.0, 0
    node = model.makers.get(name)
    if node is None or node.op_type != "DequantizeLinear" or not model.is_constant(node.input[0]):
        return None, 1.0, 0
    held = model.qparams(node.input[1], node.input[2])
    return model.array(node.input[0]), float(held.scale), held.zero


def _placed(values: Array, shape: tuple[int, ...], axis: int) -> Array:
    """A constant as the machine holds it: [1, 1, channels or 1] where it varies no further."""
    sizes = values.shape[max(values.ndim - len(shape), 0) :]
    sizes = (1,) * (len(shape) - len(sizes)) + sizes
    if values.dtype == np.float32 and all(n == 1 for at, n in enumerate(sizes) if at != axis):
        return values.reshape(1, 1, -1)
    return stored_constant(values, shape, axis)


def _result_axis(state: State, model: ReferenceModel, output: str, left: str, second: str) -> int:
    """The channel axis of the result that lets the machine broadcast the second operand.

    Where images were mixed on one side, the other has an axis less: its batch, which is 1.
    """
    shape = state.infos[output].shape
    is_constant = _constant_of(model, second)[0] is not None
    sizes = shape if is_constant else state.infos[tensor_of(state, model, second)].shape
    sizes = (1,) * (len(shape) - len(sizes)) + sizes[max(len(sizes) - len(shape), 0) :]
    if sizes != shape:
        varying = [axis for axis, size in enumerate(sizes) if size > 1]
        if len(varying) == 1:
            return varying[0]
        lost = [a for a, (n, m) in enumerate(zip(sizes, shape, strict=True)) if n != m]
        if len(lost) == 1:
            return lost[0]
    operands = [left] if is_constant else [left, tensor_of(state, model, second)]
    lost_axes = len(shape) - min(len(state.infos[name].shape) for name in operands)
    for name in operands:
        axis = state.axis_of(state.value_of(name), name)
        axis += len(shape) - len(state.infos[name].shape)
        if axis >= lost_axes:  # else it is the batch, which the other operand has apart
            break
    return max(min(axis, len(shape) - 1), 0)  # numbers have no axis


# ---------------------------------------------------------------------- operands
def is_operand(state: State, model: ReferenceModel, real: str) -> bool:
    """Whether a float tensor is a row of an island, a constant, or dequantized integers."""
    if real in state.infos or model.is_constant(real):
        return True
    node = model.makers.get(_behind_sum(model, real))
    if node is not None and node.op_type == "Cast":  # of an input's whole numbers
        return node.input[0] in state.infos and state.infos[node.input[0]].dtype == "s32"
    return node is not None and node.op_type == "DequantizeLinear"


def tensor_of(state: State, model: ReferenceModel, real: str) -> str:
    """The tensor that a float operand is: itself, or the integers that were dequantized."""
    return real if real in state.infos else model.makers[real].input[0]


def real_value(state: State, model: ReferenceModel, real: str, axis: int) -> str:
    """The value of a float operand, its channels on ``axis``."""
    if real in state.infos:
        return state.value_of(real, axis)
    node = model.makers[real]
    return operand(state, model, node, axis - len(state.infos[node.input[0]].shape))
