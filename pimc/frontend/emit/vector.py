"""Emit functions: regions as DequantizeLinear, float operators, QuantizeLinear; sums.

onnxruntime fuses DequantizeLinear + Add + QuantizeLinear into QLinearAdd at its higher
optimization levels, which rounds differently; ``Sum`` is the same float32 addition and is not
fused, so that every level computes the same integers (docs/decisions/0001).
"""

from __future__ import annotations

import numpy as np
import onnx

from pimc.frontend.emit.builder import Builder
from pimc.frontend.net import NUMPY_TYPES, ONNX_TYPES, Array, Op, QParams, Quantized
from pimc.frontend.regions import BINARY, Region

_FLOAT = onnx.TensorProto.FLOAT


def emit_region(build: Builder, region: Region) -> None:
    """DequantizeLinear, float operators, QuantizeLinear; nothing where saturation did it."""
    last = region.ops[-1]
    if (
        region.is_clamp
        and region.output not in build.net.reals
        and _saturation_clamps(build, region)
    ):
        build.ints[region.output] = build.ints[region.root]
        return
    names = {region.root: build.read(region.root, last.name)}
    for op in region.ops:
        inputs = []
        for name in op.inputs:
            if name and build.net.is_constant(name):
                inputs.append(build.constant(name, build.net.constant(name)))
            else:
                inputs.append(names.get(name, name))
        is_last = op.output == region.output
        name = build.result(op.output) if is_last else build.unique(f"{op.output}_real")
        names[op.output] = name
        build.node(op.op_type, inputs, [names[op.output]], op.name, op.domain, **op.attributes)
    if region.output in build.net.reals:
        build.finish(names[region.output], region.output, last.name)
    else:
        build.write(names[region.output], region.output, f"{last.name}/quantize")


def _saturation_clamps(build: Builder, region: Region) -> bool:
    """Whether the clamp changes none of the 256 integers: the producer's saturation is it."""
    root, result = build.qparams[region.root], build.qparams[region.output]
    if root != result:
        return False
    low, high = root.limits
    steps = np.arange(low, high + 1)
    real = (steps - root.zero).astype(np.float32) * root.scale
    for op in region.ops:
        lowest, highest = _clamp_limits(build, op)
        real = np.minimum(np.maximum(real, lowest), highest)
    return bool(np.array_equal(result.quantize(real), steps))


def _clamp_limits(build: Builder, op: Op) -> tuple[np.float32, np.float32]:
    if op.op_type == "Relu":
        return np.float32(0), np.float32(np.inf)
    limits = [np.float32(-np.inf), np.float32(np.inf)]
    for position in (1, 2):
        if op.input(position):
            limits[position - 1] = np.float32(build.net.constant(op.input(position)).reshape(()))
    return limits[0], limits[1]


def emit_binary(build: Builder, op: Op) -> None:
    """Add, Sub, Mul, Div, Pow, Max or Min of two tensors, or of a tensor and a constant.

    The first operand is written in the shape of the result, the second one where the machine
    cannot broadcast it. Operands and result may be float32 rows.
    """
    net = build.net
    names = list(op.inputs)
    shape = net.shapes[op.output]
    is_free = op.op_type not in ("Sub", "Div", "Pow")
    if is_free and (net.is_constant(names[0]) or net.shapes[names[0]] != shape):
        names.reverse()
    left = operand(build, op, names[0], net.shapes[names[0]] == shape)
    right = operand(build, op, names[1], _broadcasts(net.shapes[names[1]], shape))
    real = build.result(op.output)
    if op.op_type == "Mul" and not build.net.reals.intersection((*op.inputs, *op.outputs)):
        # a Sum of one is the identity, and keeps onnxruntime from fusing QLinearMul
        whole = build.unique(f"{op.output}_left")
        build.node("Sum", [left], [whole], f"{op.name}/left")
        left = whole
    if op.op_type == "Pow":
        _power(build, op, left, right, real)
    else:
        build.node("Sum" if op.op_type == "Add" else op.op_type, [left, right], [real], op.name)
    build.finish(real, op.output, op.name)


def _power(build: Builder, op: Op, left: str, right: str, real: str) -> None:
    """In float64, rounded once: onnxruntime's float32 power is not correctly rounded."""
    doubles = []
    for side, name in (("base", left), ("exponent", right)):
        doubles.append(build.unique(f"{op.output}_{side}"))
        cast = f"{op.name}/{side}"
        build.node("Cast", [name], [doubles[-1]], cast, to=onnx.TensorProto.DOUBLE)
    power = build.unique(f"{op.output}_power")
    build.node("Pow", doubles, [power], f"{op.name}/power")
    build.node("Cast", [power], [real], op.name, to=onnx.TensorProto.FLOAT)


def _broadcasts(sizes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether the machine broadcasts an operand: a vector along one axis, or all but one axis."""
    if len(sizes) != len(shape):
        return False
    varying = sum(size > 1 for size in sizes)
    lost = sum(size != whole for size, whole in zip(sizes, shape, strict=True))
    return varying <= 1 or lost <= 1


def operand(build: Builder, op: Op, name: str, is_ready: bool) -> str:
    """A float operand; a constant is held in 8 bits too, as the machine holds it."""
    net = build.net
    if net.is_constant(name):
        return _constant_operand(build, op, name)
    if name in net.numbers:  # an input's
        real = build.unique(f"{name}_real")
        build.node("Cast", [build.ints[name]], [real], f"{op.name}/{name}", to=_FLOAT)
        return real
    if is_ready:
        return build.real(name, op.name)
    target = np.array(net.shapes[op.output], np.int64)
    if op.output in net.batched:
        target[0] = 1
    whole = build.unique(f"{name}_for_{op.name}")
    if name in build.reals:
        build.declare(whole, op.output, onnx.TensorProto.FLOAT)
        shape = build.constant(f"{op.output}_expanded", target)
        inputs = [build.reals[name], shape]
        build.node("Expand", inputs, [whole], f"{op.name}/{name}/expand")
        return whole
    qparams = build.qparams[name]
    build.declare(whole, op.output, ONNX_TYPES[qparams.dtype])
    shape = build.constant(f"{op.output}_expanded", target)
    build.node("Expand", [build.ints[name], shape], [whole], f"{op.name}/{name}/expand")
    real = build.unique(f"{whole}_dequantized")
    inputs = [whole, *build.parameters(name, qparams)]
    build.node("DequantizeLinear", inputs, [real], f"{op.name}/{name}/dequantize")
    return real


def _constant_operand(build: Builder, op: Op, name: str) -> str:
    net = build.net
    held = net.quantized.get(name)
    is_kept = op.op_type in BINARY | {"Pow"} and net.is_quantized
    if is_kept and held is None:  # the model leaves it float32
        return build.constant(name, net.constant(name).astype(np.float32))
    if held is None or held.axis is not None or held.values.dtype not in NUMPY_TYPES.values():
        held = quantize_constant(net.constant(name))
    integers = build.constant(f"{name}_quantized", held.values)
    scale = build.constant(f"{name}_scale", held.scale.reshape(()))
    zero = build.constant(f"{name}_zero_point", held.zero.reshape(()))
    output = build.unique(f"{name}_dequantized")
    inputs = [integers, scale, zero]
    build.node("DequantizeLinear", inputs, [output], f"{op.name}/{name}/dequantize")
    return output


def quantize_constant(values: Array) -> Quantized:
    """A constant operand in symmetric int8."""
    largest = float(np.abs(values).max(initial=0.0))
    scale = np.float32(largest / 127.0)
    qparams = QParams(scale if scale > np.finfo(np.float32).tiny else np.float32(1), 0)
    return Quantized(qparams.quantize(values), np.array(qparams.scale), np.array(0, np.int8))
