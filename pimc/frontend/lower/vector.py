"""Lower what stands between DequantizeLinear and QuantizeLinear: tables, sums, and others."""

from __future__ import annotations

import onnx

from isa.diagnostics import Diagnostic, Location, PimError
from passes.graph import BinaryNode, LutNode
from pimc.frontend.lower.choice import lower_choice
from pimc.frontend.lower.matrix import lower_computed_product
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.normalize import NORMALIZATIONS
from pimc.frontend.lower.operands import operand, stored_constant
from pimc.frontend.lower.pool import lower_window_sum
from pimc.frontend.lower.state import State
from pimc.frontend.lower.tables import FloatRegion
from pimc.frontend.net import IntArray
from pimc.frontend.regions import ELEMENTWISE

_BINARY = {"Sum": "add", "Sub": "sub", "Mul": "mul", "Max": "max", "Min": "min"}


def find_region(
    model: ReferenceModel, state: State, quantize: onnx.NodeProto
) -> FloatRegion | None:
    """The element-wise region that ends in a QuantizeLinear, None when it is something else."""
    nodes, queue, roots = [quantize], [quantize.input[0]], set()
    seen: set[str] = set()
    while queue:
        name = queue.pop()
        if name in seen or model.is_constant(name) or not name:
            continue
        seen.add(name)
        node = model.makers.get(name)
        if node is None:
            return None
        nodes.append(node)
        if node.op_type == "DequantizeLinear":
            source = node.input[0]
            if source in state.infos:
                roots.add(source)
            else:  # a constant, or integers inside of the region that only change their meaning
                queue.append(source)
        elif node.op_type in ELEMENTWISE | {"Sum"}:
            queue += list(node.input)
        else:
            return None
    if len(roots) != 1:
        return None
    return _region(model, state, quantize, roots.pop(), nodes)


def _region(
    model: ReferenceModel,
    state: State,
    quantize: onnx.NodeProto,
    root: str,
    nodes: list[onnx.NodeProto],
) -> FloatRegion | None:
    info = state.infos[root]
    whole = (1, *info.shape) if info.batched else info.shape
    axes: set[int] = set()
    for node in nodes:
        if node.op_type == "BatchNormalization":
            axes.add(1)
            continue
        for name in node.input:
            if model.is_constant(name):
                sizes = model.array(name).shape
                axes |= {len(whole) - len(sizes) + at for at, n in enumerate(sizes) if n > 1}
    if len(axes) > 1:
        return None
    axis = next(iter(axes), None)
    ids = {id(node) for node in nodes}
    elem_types = {"s8": onnx.TensorProto.INT8, "u8": onnx.TensorProto.UINT8}
    output = quantize.output[0]
    return FloatRegion(
        root,
        output,
        tuple(node for node in model.nodes if id(node) in ids),
        elem_types[info.dtype],
        elem_types[state.infos[output].dtype],
        len(whole),
        axis,
        1 if axis is None else whole[axis],
    )


def lower_quantize(
    state: State,
    model: ReferenceModel,
    quantize: onnx.NodeProto,
    regions: dict[str, FloatRegion],
    tables: dict[str, IntArray],
) -> None:
    """Whatever makes the float tensor that a QuantizeLinear reads."""
    output = quantize.output[0]
    if output in regions:
        _lower_table(state, model, quantize, regions[output], tables[output])
        return
    maker = model.makers[quantize.input[0]]
    if maker.op_type == "Mul" and model.is_constant(maker.input[1]):
        sums = model.makers[model.makers[maker.input[0]].input[0]]
        is_pool = sums.op_type == "ConvInteger"
        (lower_window_sum if is_pool else lower_computed_product)(state, model, quantize, sums)
    elif maker.op_type == "Where":
        lower_choice(state, model, quantize, maker)
    elif maker.op_type in _BINARY and model.is_dequantized(maker.input[1]):
        _lower_binary(state, model, quantize, maker)
    elif maker.op_type in NORMALIZATIONS:
        NORMALIZATIONS[maker.op_type](state, model, quantize, maker)
    else:
        raise PimError(
            Diagnostic(
                "I999",
                f"the reference model holds `{maker.op_type}`, which has no lowering",
                Location(node=f"{maker.op_type} `{maker.name}`"),
            )
        )


def _lower_table(
    state: State,
    model: ReferenceModel,
    quantize: onnx.NodeProto,
    region: FloatRegion,
    table: IntArray,
) -> None:
    y = model.qparams(quantize.input[1], quantize.input[2])
    offset = 1 if state.infos[region.root].batched else 0
    axis = None
    if table.ndim == 2 and region.axis is not None:
        axis = region.axis - offset
    source = state.value_of(region.root, axis)
    for node in region.nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] == region.root:
            source = state.with_zero(source, model.qparams(node.input[1], node.input[2]))
            break
    axis = state.axis_of(source, region.root) if axis is None else axis
    name = state.make(region.output, axis, y)
    last = region.nodes[-2] if len(region.nodes) > 2 else quantize
    state.nodes.append(LutNode(last.name, (source,), name, table))


def _lower_binary(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """Add, Sub, Mul, Max or Min; the first operand has the shape of the result."""
    left, right = (_dequantize_of(model, name) for name in node.input)
    output, op = quantize.output[0], _BINARY[node.op_type]
    shape = state.infos[output].shape
    axis = _result_axis(state, model, output, left.input[0], right.input[0])
    first = operand(state, model, left, axis - len(shape))
    name = state.make(output, axis, model.qparams(quantize.input[1], quantize.input[2]))
    if model.is_constant(right.input[0]):
        held = model.qparams(right.input[1], right.input[2])
        constant = stored_constant(model.array(right.input[0]), shape, axis)
        state.nodes.append(
            BinaryNode(node.name, (first,), name, op, constant, float(held.scale), held.zero)
        )
        return
    second = operand(state, model, right, axis - len(shape))
    state.nodes.append(BinaryNode(node.name, (first, second), name, op))


def _dequantize_of(model: ReferenceModel, name: str) -> onnx.NodeProto:
    """The DequantizeLinear behind an operand, through the Sum of one that hinders a fusion."""
    node = model.makers[name]
    return model.makers[node.input[0]] if node.op_type == "Sum" else node


def _result_axis(state: State, model: ReferenceModel, output: str, first: str, second: str) -> int:
    """The channel axis of the result that lets the machine broadcast the second operand.

    Where images were mixed on one side, the other has an axis less: its batch, which is 1.
    """
    shape = state.infos[output].shape
    sizes = shape if model.is_constant(second) else state.infos[second].shape
    sizes = (1,) * (len(shape) - len(sizes)) + sizes[max(len(sizes) - len(shape), 0) :]
    if sizes != shape:
        varying = [axis for axis, size in enumerate(sizes) if size > 1]
        if len(varying) == 1:
            return varying[0]
        lost = [a for a, (n, m) in enumerate(zip(sizes, shape, strict=True)) if n != m]
        if len(lost) == 1:
            return lost[0]
    operands = [first] if model.is_constant(second) else [first, second]
    lost_axes = len(shape) - min(len(state.infos[name].shape) for name in operands)
    for name in operands:
        axis = state.axis_of(state.value_of(name), name)
        axis += len(shape) - len(state.infos[name].shape)
        if axis >= lost_axes:  # else it is the batch, which the other operand has apart
            break
    return axis
