"""Emit data movement on integers, after requantizing what has to share a scale."""

from __future__ import annotations

import numpy as np

from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.vector import emit_binary
from pimc.frontend.net import NUMPY_TYPES, ONNX_TYPES, IntArray, Op, QParams
from pimc.frontend.regions import RESHAPES, is_lookup


def emit_move(build: Builder, op: Op) -> None:
    """One operator that moves integers; its result is held as its input is."""
    if is_lookup(build.net, op):
        _emit_lookup(build, op)
        return
    if op.inputs[0] in build.reals:
        _move_floats(build, op)
        return
    outputs = [build.hold(name) if name else "" for name in op.outputs]
    _write(build, op, build.ints[op.inputs[0]], build.qparams[op.inputs[0]], outputs)


def _move_floats(build: Builder, op: Op) -> None:
    """One operator that moves float32 rows."""
    outputs = []
    for name in op.outputs:
        outputs.append(build.result(name) if name else "")
    _write(build, op, build.reals[op.inputs[0]], None, outputs)
    for name, real in zip(op.outputs, outputs, strict=True):
        if name:
            build.finish(real, name, op.name)


def _emit_lookup(build: Builder, op: Op) -> None:
    """Rows of a table whose integers, or floats, are those of the result."""
    if op.output in build.net.reals:
        real = build.result(op.output)
        table = build.real(op.inputs[0], op.name)
        build.node("Gather", [table, build.ints[op.inputs[1]]], [real], op.name, axis=0)
        build.finish(real, op.output, op.name)
        return
    held = build.qparams[op.output]
    rows = held.quantize(build.net.constant(op.inputs[0]))
    table = build.constant(f"{op.inputs[0]}_quantized", rows)
    output = build.hold(op.output)
    build.node("Gather", [table, build.ints[op.inputs[1]]], [output], op.name, axis=0)


def _raw(build: Builder, name: str, held: QParams) -> str:
    raw = build.unique(f"{name}_moved")
    build.declare(raw, name, ONNX_TYPES[held.dtype])
    return raw


def _write(build: Builder, op: Op, source: str, held: QParams | None, outputs: list[str]) -> None:
    net = build.net
    if op.op_type in RESHAPES:
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


def _pad_inputs(build: Builder, op: Op, constants: list[str], held: QParams | None) -> list[str]:
    """The fill value becomes an integer in the parameters of the tensor; among floats it stays."""
    value = build.net.constant(op.input(2)).reshape(()) if op.input(2) else np.float32(0)
    filled = np.float32(value) if held is None else held.quantize(value)
    fill = build.constant(f"{op.output}_fill", filled)
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
    """Concat of integers in the parameters of the result.

    A movement on the machine fills with one value; constants that vary are added afterwards, to
    zeros that hold their place.
    """
    net = build.net
    if op.output in net.reals:
        _concat_floats(build, op)
        return
    target = build.qparams[op.output]
    constants = {n: target.quantize(net.constant(n)) for n in op.inputs if net.is_constant(n)}
    varies = len({int(v) for values in constants.values() for v in np.unique(values)}) > 1
    inputs = []
    for name in op.inputs:
        if name in constants:
            values = constants[name]
            held = np.full_like(values, target.zero) if varies else values
            inputs.append(build.constant(f"{name}_for_{op.name}", held))
        else:
            inputs.append(build.requantized(name, target, op.name))
    if not varies:
        build.node("Concat", inputs, [build.hold(op.output)], op.name, **op.attributes)
        return
    joined = _raw(build, op.output, target)
    build.node("Concat", inputs, [joined], op.name, **op.attributes)
    _add_constants(build, op, joined, constants)


def _concat_floats(build: Builder, op: Op) -> None:
    """Concat of float32 rows; constants are added afterwards, to zeros that hold their place."""
    net, constants = build.net, [name for name in op.inputs if build.net.is_constant(name)]
    joined = op.output
    if constants:
        joined = net.fresh(f"{op.output}_joined")
        build.like(joined, op.output)
    real = build.result(joined)
    build.node("Concat", _floats(build, op), [real], op.name, **op.attributes)
    build.finish(real, joined, op.name)
    if constants:
        parts = [
            net.constant(n).astype(np.float32) if n in constants else np.zeros(net.shapes[n], "f4")
            for n in op.inputs
        ]
        whole = net.fresh(f"{op.output}_constants")
        net.constants[whole] = np.concatenate(parts, axis=int(op.attributes["axis"]))
        net.shapes[whole] = net.constants[whole].shape
        emit_binary(build, Op(f"{op.name}/constants", "Add", (joined, whole), (op.output,)))


def _floats(build: Builder, op: Op) -> list[str]:
    """Inputs of a Concat as float32 rows, zeros in the place of constants."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(op.inputs):
        if build.net.is_constant(name):
            zeros = np.zeros(build.net.shapes[name], np.float32)
            found[name] = build.constant(f"{name}_place", zeros)
            continue
        inner = name
        if name not in build.reals:
            inner = build.net.fresh(f"{name}_float")
            build.like(inner, name)
            build.as_float(name, inner, op.name)
        found[name] = build.reals[inner]
    return [found[name] for name in op.inputs]


def _add_constants(build: Builder, op: Op, joined: str, constants: dict[str, IntArray]) -> None:
    """The varying constants of a Concat, with zeros where the tensors stand."""
    net, target = build.net, build.qparams[op.output]
    parts = [
        constants.get(name, np.full(net.shapes[name], target.zero, NUMPY_TYPES[target.dtype]))
        for name in op.inputs
    ]
    whole = np.concatenate(parts, axis=int(op.attributes["axis"]))
    parameters = build.scale_and_zero(op.output)
    sources = [joined, build.constant(f"{op.output}_constants", whole)]
    floats = [build.unique(f"{op.output}_{part}") for part in ("tensors", "constants_real")]
    for source, real in zip(sources, floats, strict=True):
        build.node("DequantizeLinear", [source, *parameters], [real], f"{op.name}/{real}")
    real = build.unique(f"{op.output}_real")
    build.node("Sum", floats, [real], f"{op.name}/constants")
    build.quantize(real, op.output, f"{op.name}/quantize")
