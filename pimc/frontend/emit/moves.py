"""Emit data movement on integers, after requantizing what has to share a scale."""

from __future__ import annotations

import numpy as np

from pimc.frontend.emit.builder import Builder
from pimc.frontend.net import ONNX_TYPES, Op, QParams

_RESHAPES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


def emit_move(build: Builder, op: Op) -> None:
    """One operator that moves integers; its result is requantized when the model asks for it."""
    source = op.inputs[0]
    held = build.qparams[source]
    wanted = [build.qparams[name] for name in op.outputs if name]
    direct = all(qparams == held for qparams in wanted)
    outputs = []
    for name in op.outputs:
        if not name:
            outputs.append("")
        elif direct:
            outputs.append(build.hold(name))
        else:
            outputs.append(_raw(build, name, held))
    _write(build, op, build.ints[source], held, outputs)
    if not direct:
        for name, raw in zip(op.outputs, outputs, strict=True):
            if name:
                _requantize(build, op, name, raw, held)


def _raw(build: Builder, name: str, held: QParams) -> str:
    raw = build.unique(f"{name}_moved")
    build.declare(raw, name, ONNX_TYPES[held.dtype])
    return raw


def _requantize(build: Builder, op: Op, name: str, raw: str, held: QParams) -> None:
    real = build.unique(f"{name}_dequantized")
    inputs = [raw, *build.parameters(f"{name}_moved", held)]
    build.node("DequantizeLinear", inputs, [real], f"{op.name}/dequantize")
    build.quantize(real, name, f"{op.name}/requantize")


def _write(build: Builder, op: Op, source: str, held: QParams, outputs: list[str]) -> None:
    net = build.net
    if op.op_type in _RESHAPES:
        shape = build.target_shape(op.outputs[0])
        build.node("Reshape", [source, shape], outputs, op.name)
        return
    constants = [build.constant(name, net.constant(name)) if name else "" for name in op.inputs[1:]]
    attributes = dict(op.attributes)
    if op.op_type == "Pad":
        constants = _pad_inputs(build, op, constants, held)
    elif op.op_type == "Expand":
        target = np.array(net.shapes[op.output], np.int64)
        if op.output in net.batched:
            target[0] = 1
        constants = [build.constant(f"{op.output}_expanded", target)]
    elif op.op_type == "Resize":
        constants, attributes = _resize_inputs(build, op, constants)
    build.node(op.op_type, [source, *constants], outputs, op.name, op.domain, **attributes)


def _pad_inputs(build: Builder, op: Op, constants: list[str], held: QParams) -> list[str]:
    """The fill value becomes an integer in the parameters of the tensor."""
    value = build.net.constant(op.input(2)).reshape(()) if op.input(2) else np.float32(0)
    fill = build.constant(f"{op.output}_fill", held.quantize(value))
    return [constants[0], fill, *constants[2:]]


def _resize_inputs(
    build: Builder, op: Op, constants: list[str]
) -> tuple[list[str], dict[str, object]]:
    """Sizes are given for the spatial axes alone, so that the batch stays free."""
    attributes = dict(op.attributes)
    if not op.input(3):
        return constants, attributes
    rank = len(build.net.shapes[op.inputs[0]])
    sizes = build.net.constant(op.input(3)).reshape(-1)
    axes = [int(a) % rank for a in attributes.get("axes") or range(rank)]
    kept = [(a, int(s)) for a, s in zip(axes, sizes, strict=True) if a > 0]
    attributes["axes"] = [axis for axis, _ in kept]
    values = np.array([size for _, size in kept], np.int64)
    return ["", "", build.constant(f"{op.output}_sizes", values)], attributes


def emit_concat(build: Builder, op: Op) -> None:
    """Concat of integers in the parameters of the result."""
    target = build.qparams[op.output]
    inputs = []
    for name in op.inputs:
        if build.net.is_constant(name):
            values = target.quantize(build.net.constant(name))
            inputs.append(build.constant(f"{name}_for_{op.name}", values))
        else:
            inputs.append(build.requantized(name, target, op.name))
    build.node("Concat", inputs, [build.hold(op.output)], op.name, **op.attributes)
