"""Lower what stands between DequantizeLinear and QuantizeLinear: tables, sums, and others."""

from __future__ import annotations

import onnx

from isa.diagnostics import Diagnostic, Location, PimError
from passes.graph import BinaryNode, LutNode
from pimc.frontend.lower.choice import lower_choice
from pimc.frontend.lower.matrix import lower_computed_product, lower_scaled_sums
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.normalize import NORMALIZATIONS
from pimc.frontend.lower.operands import operand
from pimc.frontend.lower.pool import lower_window_sum
from pimc.frontend.lower.real import (
    BINARY,
    is_operand,
    lower_arithmetic,
    lower_convert,
    lower_rounded,
)
from pimc.frontend.lower.state import State
from pimc.frontend.lower.tables import FloatRegion
from pimc.frontend.net import Array, QParams
from pimc.frontend.regions import ELEMENTWISE


def find_region(model: ReferenceModel, state: State, last: onnx.NodeProto) -> FloatRegion | None:
    """The element-wise region of one 8-bit tensor that ends in a node, None if it is no such.

    last: a QuantizeLinear, or what makes a float32 row.
    """
    nodes, queue, roots = list[onnx.NodeProto](), [last.output[0]], set()
    seen: set[str] = set()
    while queue:
        name = queue.pop()
        if name in seen or model.is_constant(name) or not name:
            continue
        seen.add(name)
        node = model.makers.get(name)
        if node is None or (name in state.infos and node is not last):
            return None
        nodes.append(node)
        if node is last and node.op_type == "QuantizeLinear":
            queue.append(node.input[0])
        elif node.op_type == "DequantizeLinear":
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
    return _region(model, state, last, roots.pop(), nodes)


def _region(
    model: ReferenceModel,
    state: State,
    last: onnx.NodeProto,
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
    elem_types = {
        "s8": onnx.TensorProto.INT8,
        "u8": onnx.TensorProto.UINT8,
        "f32": onnx.TensorProto.FLOAT,
    }
    output = last.output[0]
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
    tables: dict[str, Array],
) -> None:
    """Whatever makes the float tensor that a QuantizeLinear reads."""
    output = quantize.output[0]
    y = model.qparams(quantize.input[1], quantize.input[2])
    if output in regions:
        _lower_table(state, model, y, regions[output], tables[output])
        return
    if quantize.input[0] in state.infos:
        lower_convert(state, model, quantize, output, y)
        return
    maker = model.makers[quantize.input[0]]
    if maker.op_type in BINARY and all(is_operand(state, model, name) for name in maker.input):
        lower_arithmetic(state, model, maker, list(maker.input), output, y)
    elif maker.op_type == "Mul" and model.is_constant(maker.input[1]):
        sums = model.makers[model.makers[maker.input[0]].input[0]]
        if sums.op_type == "ConvInteger":
            lower_window_sum(state, model, quantize, sums)
        else:
            lower_computed_product(state, model, maker, sums, output, y)
    elif maker.op_type == "Where":
        lower_choice(state, model, quantize, maker)
    elif maker.op_type == "Cast" and maker.input[0] in state.infos:
        _lower_entry(state, model, maker, output, y)
    elif maker.op_type == "Cast":
        lower_rounded(state, model, maker, output, y)
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


def lower_float(
    state: State,
    model: ReferenceModel,
    node: onnx.NodeProto,
    regions: dict[str, FloatRegion],
    tables: dict[str, Array],
) -> None:
    """What makes a float32 row."""
    output = node.output[0]
    if output in regions:
        _lower_table(state, model, None, regions[output], tables[output])
    elif node.op_type == "Cast":
        lower_rounded(state, model, node, output, None)
    elif all(is_operand(state, model, name) for name in node.input):
        lower_arithmetic(state, model, node, list(node.input), output, None)
    else:
        lower_scaled_sums(state, model, node)


def _lower_table(
    state: State,
    model: ReferenceModel,
    y: QParams | None,
    region: FloatRegion,
    table: Array,
) -> None:
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
    is_quantized = region.nodes[-1].op_type == "QuantizeLinear" and len(region.nodes) > 2
    last = region.nodes[-2 if is_quantized else -1]
    state.nodes.append(LutNode(last.name, (source,), name, table))


def _lower_entry(
    state: State, model: ReferenceModel, cast: onnx.NodeProto, output: str, y: QParams
) -> None:
    """Whole numbers of an input in 8 bits: the larger of a number and itself changes the type."""
    axis = state.default_axis(cast.input[0])
    rank = len(state.infos[cast.input[0]].shape)
    source = operand(state, model, cast, axis - rank)
    name = state.make(output, axis, y)
    state.nodes.append(BinaryNode(cast.name, (source, source), name, "max"))
