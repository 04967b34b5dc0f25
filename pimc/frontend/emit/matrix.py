"""Emit Conv, Gemm and MatMul: QLinearConv, QGemm, QLinearMatMul; products of two tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.normalize import Steps
from pimc.frontend.emit.vector import emit_binary
from pimc.frontend.emit.windows import windows_of
from pimc.frontend.net import MICROSOFT, Array, Op, Quantized
from pimc.frontend.weights import Layer, matching, quantize_bias, quantize_layer

_INT32 = onnx.TensorProto.INT32


def emit_conv(build: Builder, op: Op, per_channel: bool) -> None:
    """QLinearConv with explicit pads."""
    net = build.net
    if op.output in net.reals:
        _emit_floats(build, op, per_channel)
        return
    layer = _layer(build, op, axis=0, per_channel=per_channel)
    weights = layer.weights
    windows = windows_of(net, op, weights.values.shape[2:])
    build.node(
        "QLinearConv",
        [
            build.ints[op.inputs[0]],
            *build.scale_and_zero(op.inputs[0]),
            *_weights(build, op, weights),
            *build.scale_and_zero(op.output),
            *_bias(build, op, layer),
        ],
        [build.hold(op.output)],
        op.name,
        kernel_shape=windows.kernel,
        strides=windows.strides,
        dilations=windows.dilations,
        pads=windows.pads,
        group=op.attributes.get("group", 1),
    )


def emit_gemm(build: Builder, op: Op, per_channel: bool) -> None:
    """QGemm with weights [inputs, outputs]; alpha and beta go into weights and bias."""
    if op.output in build.net.reals:
        _emit_floats(build, op, per_channel)
        return
    layer = _layer(build, op, axis=1, per_channel=per_channel)
    _qgemm(build, op, layer, build.ints[op.inputs[0]], build.hold(op.output))


def emit_matmul(build: Builder, op: Op, per_channel: bool) -> None:
    """QLinearMatMul; with a bias QGemm, between two Reshapes when there are more than two axes."""
    net = build.net
    if not net.is_constant(op.inputs[1]):
        _emit_product(build, op)
        return
    if op.output in net.reals:
        _emit_floats(build, op, per_channel)
        return
    layer = _layer(build, op, axis=1, per_channel=per_channel)
    source, rank = build.ints[op.inputs[0]], len(net.shapes[op.inputs[0]])
    if layer.bias is not None and rank == 2:
        _qgemm(build, op, layer, source, build.hold(op.output))
    elif layer.bias is not None:
        flat = build.constant("flat_rows", np.array([-1, len(layer.weights.values)], np.int64))
        rows = build.unique(f"{op.inputs[0]}_rows")
        sums = build.unique(f"{op.output}_rows")
        build.node("Reshape", [source, flat], [rows], f"{op.name}/flatten")
        _qgemm(build, op, layer, rows, sums)
        shape = build.target_shape(op.output)
        build.node("Reshape", [sums, shape], [build.hold(op.output)], f"{op.name}/unflatten")
    else:
        build.node(
            "QLinearMatMul",
            [
                source,
                *build.scale_and_zero(op.inputs[0]),
                *_weights(build, op, layer.weights),
                *build.scale_and_zero(op.output),
            ],
            [build.hold(op.output)],
            op.name,
        )


def _emit_floats(build: Builder, op: Op, per_channel: bool) -> None:
    """The sums of integers times their scales, as a float32 row; a float bias is added to that."""
    net, is_conv, bias = build.net, op.op_type == "Conv", op.input(2)
    has_float_bias = bias in net.constants and bool(np.any(net.constants[bias]))
    bare = replace(op, inputs=op.inputs[:2]) if bias in net.constants else op
    layer = _layer(build, bare, axis=0 if is_conv else 1, per_channel=per_channel)
    held = matching(layer.weights, build.qparams[op.inputs[0]].dtype)
    weights, _, _ = _weights(build, op, layer.weights)
    along = (-1, *(1 for _ in held.values.shape[2:])) if is_conv else (-1,)
    zero = held.zero.reshape(-1)[:1].reshape(()) if is_conv else held.zero
    names = [build.ints[op.inputs[0]], weights, build.scale_and_zero(op.inputs[0])[1]]
    names.append(build.constant(f"{op.inputs[1]}_zero_of_all", zero))
    step = Steps(build, op)
    if is_conv:
        windows = windows_of(net, op, held.values.shape[2:])
        sums = step(
            "ConvInteger",
            *names,
            kernel_shape=windows.kernel,
            strides=windows.strides,
            dilations=windows.dilations,
            pads=windows.pads,
            group=op.attributes.get("group", 1),
        )
    else:
        sums = step("MatMulInteger", *names)
    if layer.bias is not None:
        whole = build.constant(f"{bias}_whole", layer.bias.reshape(along))
        sums = step("Add", sums, whole)
    scale = (build.qparams[op.inputs[0]].scale * held.scale.reshape(-1)).astype(np.float32)
    factor = build.constant(f"{op.output}_factor", scale.reshape(along if scale.size > 1 else ()))
    result = op.output
    if has_float_bias:
        result = net.fresh(f"{op.output}_product")
        build.like(result, op.output)
    real = build.result(result)
    build.node("Mul", [step("Cast", sums, to=onnx.TensorProto.FLOAT), factor], [real], op.name)
    build.finish(real, result, op.name)
    if has_float_bias:
        outputs = net.shapes[op.output][1 if is_conv else -1]
        values = _real_bias(build, op, bias, outputs)
        term = net.fresh(f"{op.output}_bias")
        net.constants[term] = np.asarray(values).reshape(along)
        net.shapes[term] = net.constants[term].shape
        emit_binary(build, Op(f"{op.name}/bias", "Add", (result, term), (op.output,)))


def _emit_product(build: Builder, op: Op) -> None:
    """Both operands computed: whole numbers of 32 bits, one product with a scale, one rounding.

    onnxruntime multiplies 32-bit integers exactly; its kernels for 8 bits may saturate inside.
    """
    held = [build.qparams[name] for name in op.inputs]
    steps = []
    for name, qparams in zip(op.inputs, held, strict=True):
        whole, centred = (build.unique(f"{name}_{end}") for end in ("whole", "centred"))
        build.node("Cast", [build.ints[name]], [whole], f"{op.name}/{whole}", to=_INT32)
        zero = build.constant(f"{name}_zero", np.int32(qparams.zero))
        build.node("Sub", [whole, zero], [centred], f"{op.name}/{centred}")
        steps.append(centred)
    sums, floats = (build.unique(f"{op.output}_{end}") for end in ("sum", "sum_float"))
    build.node("MatMul", steps, [sums], op.name)
    build.node("Cast", [sums], [floats], f"{op.name}/cast", to=onnx.TensorProto.FLOAT)
    scale = np.float64(held[0].scale) * held[1].scale
    if op.output in build.net.reals:
        real = build.result(op.output)
        factor = build.constant(f"{op.output}_factor", np.float32(scale))
        build.node("Mul", [floats, factor], [real], f"{op.name}/scale")
        build.finish(real, op.output, op.name)
        return
    real = build.unique(f"{op.output}_steps")
    factor = build.constant(
        f"{op.output}_factor", np.float32(scale / build.qparams[op.output].scale)
    )
    build.node("Mul", [floats, factor], [real], f"{op.name}/scale")
    inputs = [real, build.constant("unit_scale", np.float32(1)), build.scale_and_zero(op.output)[1]]
    build.node("QuantizeLinear", inputs, [build.hold(op.output)], f"{op.name}/quantize")


def _qgemm(build: Builder, op: Op, layer: Layer, source: str, output: str) -> None:
    build.node(
        "QGemm",
        [
            source,
            *build.scale_and_zero(op.inputs[0]),
            *_weights(build, op, layer.weights),
            *(_bias(build, op, layer) or [""]),
            *build.scale_and_zero(op.output),
        ],
        [output],
        op.name,
        MICROSOFT,
    )


def _layer(build: Builder, op: Op, axis: int, per_channel: bool) -> Layer:
    """Integer weights as they are written: [outputs, ...] for Conv, else [inputs, outputs].

    The user's integers are kept where there are any.
    """
    net, x_scale = build.net, build.qparams[op.inputs[0]].scale
    weight, bias = op.inputs[1], op.input(2)
    is_conv = op.op_type == "Conv"
    alpha = float(op.attributes.get("alpha", 1.0))
    outputs = net.shapes[op.output][1 if is_conv else -1]
    real_bias = _real_bias(build, op, bias, outputs)
    if weight in net.constants:
        real = net.constants[weight] * np.float32(alpha)
        if not is_conv:
            real = real.reshape(real.shape[-2:])
            real = real.T if op.attributes.get("transB") else real
        return quantize_layer(real, real_bias, x_scale, axis, per_channel)
    held = net.quantized[weight]
    if not is_conv:
        held = _as_rows(held, bool(op.attributes.get("transB")), alpha)
    integers = _kept_bias(build, bias, x_scale, held)
    if integers is None and real_bias is not None:
        integers = quantize_bias(real_bias, x_scale, held)
    return Layer(held, integers)


def _as_rows(held: Quantized, is_transposed: bool, alpha: float) -> Quantized:
    """The user's weights as [inputs, outputs], their axis moved along."""
    values = held.values.reshape(held.values.shape[-2:])
    axis = held.axis if held.axis is None else held.axis - (held.values.ndim - 2)
    if is_transposed:
        values, axis = values.T, axis if axis is None else 1 - axis
    scale = (held.scale * np.float32(alpha)).astype(np.float32)
    return Quantized(np.ascontiguousarray(values), scale, held.zero, axis)


def _real_bias(build: Builder, op: Op, bias: str, outputs: int) -> Array | None:
    if not bias:
        return None
    beta = np.float32(op.attributes.get("beta", 1.0))
    values = build.net.constant(bias).astype(np.float32).reshape(-1) * beta
    return np.broadcast_to(values, (outputs,))


def _kept_bias(
    build: Builder, bias: str, x_scale: np.float32, weights: Quantized
) -> NDArray[np.int32] | None:
    """The user's own int32 bias when it is in units of x_scale * weight scale."""
    held = build.net.quantized.get(bias)
    if held is None or held.values.dtype != np.int32 or np.any(held.zero):
        return None
    unit = (np.float32(x_scale) * weights.scale).astype(np.float32)
    if not np.allclose(held.scale, unit, rtol=1e-5, atol=0.0):
        return None
    return held.values.reshape(-1).astype(np.int32)


def _weights(build: Builder, op: Op, held: Quantized) -> tuple[str, str, str]:
    name = op.inputs[1]
    held = matching(held, build.qparams[op.inputs[0]].dtype)
    return (
        build.constant(f"{name}_quantized", held.values),
        build.constant(f"{name}_scale", held.scale),
        build.constant(f"{name}_zero_point", held.zero),
    )


def _bias(build: Builder, op: Op, layer: Layer) -> list[str]:
    if layer.bias is None:
        return []
    return [build.constant(f"{op.input(2) or op.output}_bias_quantized", layer.bias)]
