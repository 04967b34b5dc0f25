"""Operands of arithmetic: the value of a dequantized tensor, channels where the result's are."""

from __future__ import annotations

import numpy as np
import onnx

from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.state import State, machine_order, machine_shape
from pimc.frontend.net import Array, QParams


def operand(state: State, model: ReferenceModel, dequantize: onnx.NodeProto, axis: int) -> str:
    """The value of an operand, channels where those of the result are: ``axis`` from its end."""
    rank = len(state.infos[dequantize.input[0]].shape)
    value = state.value_of(dequantize.input[0], rank + axis)
    if dequantize.op_type == "Cast":  # whole numbers of an input, in steps of 1
        return state.with_zero(value, QParams(np.float32(1), 0))
    return state.with_qparams(value, model.qparams(dequantize.input[1], dequantize.input[2]))


def stored_constant(values: Array, shape: tuple[int, ...], axis: int) -> Array:
    """A constant operand [rows, columns, channels]. shape: of the result, channels on ``axis``."""
    values = values.reshape(values.shape[max(values.ndim - len(shape), 0) :])
    stored = np.broadcast_to(values, shape).transpose(machine_order(len(shape), axis))
    return np.ascontiguousarray(stored).reshape(machine_shape(shape, axis))
