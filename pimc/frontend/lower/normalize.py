"""Lower the normalizations that `emit.normalize` writes: softmax, layer normalization, LRN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from passes.graph import GroupNormNode, LayerNormNode, LogSoftmaxNode, LrnNode, SoftmaxNode
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.state import Info, State, machine_order, machine_shape
from pimc.frontend.net import Array


def _lower_quotient(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """Softmax divides converted integers, LRN a scaled tensor."""
    is_softmax = model.makers[node.input[0]].op_type == "Cast"
    lower = _lower_softmax if is_softmax else _lower_lrn
    lower(state, model, quantize, node)


def _lower_softmax(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """``Div(Cast(power), Cast(ReduceSum(power)))``."""
    power = model.makers[model.makers[node.input[0]].input[0]]
    source, name = _along_powers(state, model, quantize, power)
    state.nodes.append(SoftmaxNode(node.name, (source,), name, model.array(power.input[0])))


def _lower_log_softmax(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """``Sub(Mul(Cast(distance), scale), Mul(Div, factor))``, roots of the total in the quotient."""
    root = model.makers[model.makers[model.makers[node.input[1]].input[0]].input[0]]
    while root.op_type != "ReduceSum":
        root = model.makers[root.input[0]]
    power = model.makers[root.input[0]]
    source, name = _along_powers(state, model, quantize, power)
    powers = model.array(power.input[0])
    scale = float(model.array(model.makers[node.input[0]].input[1]))
    state.nodes.append(LogSoftmaxNode(node.name, (source,), name, powers, scale))


def _along_powers(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, power: onnx.NodeProto
) -> tuple[str, str]:
    """Source and result of what is made of powers that are picked by distances along an axis."""
    distance = model.makers[model.makers[power.input[1]].input[0]]
    steps, largest = (model.makers[name] for name in distance.input)
    tensor = steps.input[0]
    axis = int(model.array(largest.input[1])[0]) - int(state.infos[tensor].batched)
    source = state.value_of(tensor, axis)
    y = model.qparams(quantize.input[1], quantize.input[2])
    return source, state.make(quantize.output[0], axis, y)


def _lower_normalized(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """``Add(Mul(Div(distance, Sqrt(Add(spread, epsilon))), gain), offset)`` over the last axis.

    Between two Reshapes, that is the elements of a group of channels.
    """
    scaled = model.makers[node.input[0]]
    quotient = model.makers[scaled.input[0]]
    is_grouped = quotient.op_type == "Reshape"
    if is_grouped:
        quotient = model.makers[quotient.input[0]]
    distance, root = (model.makers[name] for name in quotient.input)
    epsilon = float(model.array(model.makers[root.input[0]].input[1]))
    products = model.makers[model.makers[distance.input[0]].input[0]]
    steps = model.makers[products.input[0]]
    gain, offset = model.array(scaled.input[1]), model.array(node.input[1])
    y, output = model.qparams(quantize.input[1], quantize.input[2]), quantize.output[0]
    if is_grouped:
        groups = int(model.array(steps.input[1])[1])
        tensor = model.makers[steps.input[0]].input[0]
        info = state.infos[tensor]
        axis = 0 if info.batched else 1
        source = state.value_of(tensor, axis if groups > 1 else None)
        if groups == 1:
            axis = state.axis_of(source, tensor)
        gain, offset = (_spread(values, info, axis) for values in (gain, offset))
        name = state.make(output, axis, y)
        made = GroupNormNode(node.name, (source,), name, groups, gain, offset, epsilon)
        state.nodes.append(made)
        return
    tensor = steps.input[0]
    axis = len(state.infos[tensor].shape) - 1
    source = state.value_of(tensor, axis)
    name = state.make(output, axis, y)
    state.nodes.append(LayerNormNode(node.name, (source,), name, gain, offset, epsilon))


def _spread(values: Array, info: Info, axis: int) -> Array:
    """A gain or offset as the machine holds the tensor, [rows, columns, channels]; 1 is for all."""
    shape = info.shape
    sizes = (*[1] * (len(shape) - values.ndim), *values.shape)
    values = values.reshape(sizes[len(sizes) - len(shape) :])
    order = machine_order(len(shape), axis)
    rows = order[:-2]
    if any(values.shape[a] > 1 for a in rows):
        whole = [n if a in rows else values.shape[a] for a, n in enumerate(shape)]
        values = np.broadcast_to(values, whole)
    return np.ascontiguousarray(values.transpose(order)).reshape(machine_shape(values.shape, axis))


def _lower_lrn(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """The quotient that emit_lrn writes: steps * scale, over a root of the neighbours' squares."""
    scaled, root = (model.makers[name] for name in node.input)
    dequantize = model.makers[scaled.input[0]]
    beta, norm = _beta_and_base(model, root)
    weighted = model.makers[norm.input[0]]
    neighbours = model.array(model.makers[weighted.input[0]].input[1])
    tensor = dequantize.input[0]
    axis = 0 if state.infos[tensor].batched else 1
    source = state.value_of(tensor, axis)
    x = model.qparams(scaled.input[1], dequantize.input[2])
    source = state.with_qparams(source, x)
    y = model.qparams(quantize.input[1], quantize.input[2])
    name = state.make(quantize.output[0], axis, y)
    state.nodes.append(
        LrnNode(
            node.name,
            (source,),
            name,
            _size_of(neighbours),
            float(model.array(weighted.input[1])),
            beta,
            float(model.array(norm.input[1])),
        )
    )


def _beta_and_base(model: ReferenceModel, root: onnx.NodeProto) -> tuple[float, onnx.NodeProto]:
    """The power that a root node takes, and the node that makes its base."""
    if root.op_type == "Pow":
        return float(model.array(root.input[1])), model.makers[root.input[0]]
    base = model.makers[root.input[0]]
    if root.op_type == "Mul":
        return 0.75, model.makers[base.input[0]]
    return (0.5 if root.op_type == "Sqrt" else 1.0), base


def _size_of(neighbours: Array) -> int:
    """The window size of a band matrix [C, C, 1, 1]; more than C channels count once each."""
    first = neighbours[:, :, 0, 0]
    reach_after, reach_before = int(first[0].sum()) - 1, int(first[:, 0].sum()) - 1
    return reach_before + reach_after + 1


NORMALIZATIONS: dict[
    str, Callable[[State, ReferenceModel, onnx.NodeProto, onnx.NodeProto], None]
] = {
    "Div": _lower_quotient,
    "Add": _lower_normalized,
    "Sub": _lower_log_softmax,
}  # by the operation before the rounding
