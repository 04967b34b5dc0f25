"""Lower choices by a mask that is computed, as `emit.logic` writes them."""

from __future__ import annotations

import onnx

from passes.graph import SelectNode
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.operands import operand, stored_constant
from pimc.frontend.lower.state import State


def lower_choice(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """``Where(Cast(mask), a, b)`` of dequantized tensors, one of which may be a constant."""
    mask = model.makers[model.makers[node.input[0]].input[0]]
    chosen = [model.makers[name] for name in node.input[1:]]
    is_inverted = model.is_constant(chosen[0].input[0])
    if is_inverted:
        chosen.reverse()
    tensors = [mask, *(part for part in chosen if not model.is_constant(part.input[0]))]
    output = quantize.output[0]
    axis = _axis(state, output, [part.input[0] for part in tensors])
    from_end = axis - len(state.infos[output].shape)
    inputs = tuple(operand(state, model, part, from_end) for part in tensors)
    name = state.make(output, axis, model.qparams(quantize.input[1], quantize.input[2]))
    if len(tensors) == 3:
        state.nodes.append(SelectNode(node.name, inputs, name))
        return
    held = model.qparams(chosen[1].input[1], chosen[1].input[2])
    values = model.array(chosen[1].input[0])
    is_one = values.size == 1  # the instruction broadcasts it
    shape = state.infos[output].shape
    constant = values.reshape(1, 1, 1) if is_one else stored_constant(values, shape, axis)
    scale, zero = float(held.scale), held.zero
    state.nodes.append(SelectNode(node.name, inputs, name, constant, scale, zero, is_inverted))


def _axis(state: State, output: str, tensors: list[str]) -> int:
    """The channel axis of the result: the last one where a tensor is a vector of it."""
    shape = state.infos[output].shape
    whole = [name for name in tensors if state.infos[name].shape[-len(shape) :] == shape]
    if len(whole) < len(tensors) or not shape:
        return max(len(shape) - 1, 0)
    lost_axes = len(shape) - min(len(state.infos[name].shape) for name in tensors)
    for name in reversed(whole):
        axis = state.axis_of(state.value_of(name), name)
        axis += len(shape) - len(state.infos[name].shape)
        if axis >= lost_axes:  # else it is the batch, which another operand has apart
            break
    return axis
