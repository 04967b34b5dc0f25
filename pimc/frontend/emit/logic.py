"""Emit what compares and chooses: truth values are 0 and 1 in 8 bits, held in steps of 1.

Two tensors are compared by their difference in steps so small that it is 0 only between equal
values and saturates otherwise; a table makes the truth value of its sign. So what is compared is
exactly what the two hold, whatever their scales.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.vector import emit_binary, emit_region, operand
from pimc.frontend.net import Op, QParams, Quantized
from pimc.frontend.regions import Region, is_bool

# of the difference between two tensors in float32: 0 only where they are equal, and far from
# overflow, for scales from 2^-75 to 2^18
SIGN = QParams(np.float32(2.0**-100), 0)
_SMALLER_OR_LARGER = {"And": "Min", "Or": "Max"}


def emit_entry(build: Builder, op: Op) -> None:
    """Floats or truth values of an input's whole numbers, which float32 holds below 2^24."""
    source = op.inputs[0]
    if op.op_type == "Cast" and (is_bool(build.net, source) or not is_bool(build.net, op.output)):
        real = build.unique(f"{op.output}_real")
        build.node("Cast", [build.ints[source]], [real], op.name, to=onnx.TensorProto.FLOAT)
        build.quantize(real, op.output, f"{op.name}/quantize")
        return
    value = 0 if op.op_type == "Cast" else int(build.net.constant(op.inputs[1]).reshape(()))
    limit = build.net.fresh(f"{op.output}_limit")
    sign, scale = np.array(np.sign(value), np.int8), np.array(abs(value) or 1, np.float32)
    build.net.quantized[limit] = Quantized(sign, scale, np.array(0, np.int8))
    build.net.shapes[limit] = ()
    _emit_by_sign(build, replace(op, inputs=(source, limit)))


def emit_logic(build: Builder, op: Op) -> None:
    """A comparison, And, Or or Xor of two tensors, or of a tensor and a constant of its shape."""
    if op.op_type in _SMALLER_OR_LARGER:
        emit_binary(build, replace(op, op_type=_SMALLER_OR_LARGER[op.op_type]))
    else:
        _emit_by_sign(build, op)


def _emit_by_sign(build: Builder, op: Op) -> None:
    net = build.net
    difference, none = net.fresh(f"{op.output}_difference"), net.fresh(f"{op.output}_none")
    net.add_like(difference, op.output)
    net.types[difference], build.qparams[difference] = onnx.TensorProto.FLOAT, SIGN
    if op.output in net.batched:
        net.batched.add(difference)
    net.constants[none], net.shapes[none] = np.array(0, np.float32), ()
    emit_binary(build, Op(f"{op.name}/difference", "Sub", op.inputs, (difference,)))
    emit_region(build, Region(difference, op.output, tuple(_by_sign(build, op, difference, none))))


def _by_sign(build: Builder, op: Op, difference: str, none: str) -> list[Op]:
    """What the difference of two operands says; Xor, and a Cast to truth values, that it is one."""
    if op.op_type not in ("Cast", "Xor"):
        return [replace(op, inputs=(difference, none))]
    same = build.net.fresh(f"{op.output}_same")
    return [
        Op(f"{op.name}/same", "Equal", (difference, none), (same,)),
        Op(op.name, "Not", (same,), op.outputs),
    ]


def emit_where(build: Builder, op: Op) -> None:
    """A choice: by a mask that is computed, or known, which is movement."""
    if build.net.is_constant(op.inputs[0]):
        _emit_known_choice(build, op)
        return
    mask = build.unique(f"{op.output}_mask")
    source = operand(build, op, op.inputs[0], _is_ready(build, op, op.inputs[0]))
    build.node("Cast", [source], [mask], f"{op.name}/mask", to=onnx.TensorProto.BOOL)
    chosen = [operand(build, op, name, _is_ready(build, op, name)) for name in op.inputs[1:]]
    real = build.unique(f"{op.output}_real")
    build.node("Where", [mask, *chosen], [real], op.name)
    build.quantize(real, op.output, f"{op.name}/quantize")


def _is_ready(build: Builder, op: Op, name: str) -> bool:
    """Whether the machine broadcasts an operand: all of the shape, or one vector of channels."""
    sizes, shape = build.net.shapes[name], build.net.shapes[op.output]
    return sizes == shape or (len(sizes) == len(shape) and set(sizes[:-1]) <= {1} and shape[0] == 1)


def _emit_known_choice(build: Builder, op: Op) -> None:
    """Each element from where the constant mask says, on integers in the result's parameters."""
    net, target = build.net, build.qparams[op.output]
    mask = build.constant(op.inputs[0], net.constant(op.inputs[0]).astype(bool))
    chosen = []
    for name in op.inputs[1:]:
        if net.is_constant(name):
            held = target.quantize(net.constant(name))
            chosen.append(build.constant(f"{name}_for_{op.name}", held))
        else:
            chosen.append(build.requantized(name, target, op.name))
    build.node("Where", [mask, *chosen], [build.hold(op.output)], op.name)
