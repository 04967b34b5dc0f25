"""Reference: walk the steps of a quantized net and write the integer model they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx

from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.host import emit_host
from pimc.frontend.emit.logic import emit_entry, emit_logic, emit_where
from pimc.frontend.emit.matrix import emit_conv, emit_gemm, emit_matmul
from pimc.frontend.emit.moves import emit_concat, emit_move
from pimc.frontend.emit.normalize import (
    emit_group_norm,
    emit_layer_norm,
    emit_log_softmax,
    emit_lrn,
    emit_softmax,
)
from pimc.frontend.emit.pool import (
    emit_average_pool,
    emit_global_average,
    emit_global_max,
    emit_max_pool,
)
from pimc.frontend.emit.real import emit_float
from pimc.frontend.emit.recurrent import emit_recurrent
from pimc.frontend.emit.vector import emit_binary, emit_region
from pimc.frontend.islands import is_float
from pimc.frontend.net import INT_NAMES, Net, Op, Port, QParams
from pimc.frontend.partitions import is_host
from pimc.frontend.recurrent import KINDS
from pimc.frontend.regions import LOGIC, MOVES, SAME_TYPE, Region, Step, is_entry

_LAYERS: dict[str, Callable[[Builder, Op, bool], None]] = {
    "Conv": emit_conv,
    "Gemm": emit_gemm,
    "MatMul": emit_matmul,
    **dict.fromkeys(KINDS, emit_recurrent),
}
_OTHERS: dict[str, Callable[[Builder, Op], None]] = {
    **dict.fromkeys(MOVES, emit_move),
    "MaxPool": emit_max_pool,
    "GlobalMaxPool": emit_global_max,
    "ReduceMax": emit_global_max,
    "AveragePool": emit_average_pool,
    "GlobalAveragePool": emit_global_average,
    "ReduceMean": emit_global_average,
    "Add": emit_binary,
    "Sub": emit_binary,
    "Mul": emit_binary,
    "Div": emit_binary,
    "Max": emit_binary,
    "Min": emit_binary,
    **dict.fromkeys(LOGIC, emit_logic),
    "Where": emit_where,
    "Softmax": emit_softmax,
    "LogSoftmax": emit_log_softmax,
    "LRN": emit_lrn,
    "LayerNormalization": emit_layer_norm,
    "GroupNormalization": emit_group_norm,
    "InstanceNormalization": emit_group_norm,
    "Concat": emit_concat,
}


def write_reference(
    net: Net, steps: Sequence[Step], qparams: dict[str, QParams], per_channel: bool
) -> onnx.ModelProto:
    """The integer model: what the compiled program must equal.

    qparams: quantization of every held tensor. Every step must be one that `supported` accepts.
    """
    build = Builder(net, qparams)
    for port in net.inputs:
        _take(build, port)
    for step in steps:
        if isinstance(step, Region):
            emit_region(build, step)
        elif is_host(step):
            emit_host(build, step)
        elif is_float(net, step) and step.op_type not in MOVES | {"Concat", *_LAYERS}:
            emit_float(build, step)
        else:
            _emit(build, step, per_channel)
    for port in net.outputs:
        if port.tensor not in net.raw:
            _hand_out(build, port)
    return build.model()


def _take(build: Builder, port: Port) -> None:
    """An input: quantized, or as it is."""
    net = build.net
    if port.tensor in net.raw | net.numbers:
        build.raw[port.tensor] = port.name
    if port.tensor in net.reals:
        build.reals[port.tensor] = port.name
    elif port.tensor in net.numbers or port.elem_type in INT_NAMES:
        build.ints[port.tensor] = port.name
    elif port.tensor not in net.raw:
        build.quantize(port.name, port.tensor, f"{port.name}/quantize")


def _hand_out(build: Builder, port: Port) -> None:
    """An output: dequantized, or as it is."""
    if port.tensor in build.net.reals:
        source = build.reals[port.tensor]
        build.node("Identity", [source], [port.name], f"{port.name}/identity")
        return
    source = build.ints[port.tensor]
    if port.elem_type == onnx.TensorProto.FLOAT:
        inputs = [source, *build.scale_and_zero(port.tensor)]
        build.node("DequantizeLinear", inputs, [port.name], f"{port.name}/dequantize")
    elif port.elem_type == onnx.TensorProto.BOOL:
        build.node("Cast", [source], [port.name], f"{port.name}/truth", to=port.elem_type)
    else:
        build.node("Identity", [source], [port.name], f"{port.name}/identity")


def _emit(build: Builder, op: Op, per_channel: bool) -> None:
    """One operator; its result changes from s8 to u8, or back, where onnxruntime cannot do that."""
    if is_float(build.net, op):
        if op.op_type in _LAYERS:
            _LAYERS[op.op_type](build, op, per_channel)
        else:  # movement
            _OTHERS[op.op_type](build, op)
        return
    wanted, net = build.qparams[op.output], build.net
    held = build.qparams[op.inputs[0]] if op.op_type in SAME_TYPE else wanted
    target = op
    if held.dtype != wanted.dtype:
        typed = net.fresh(f"{op.output}_{held.dtype}")
        net.add_like(typed, op.output)
        if op.output in net.batched:
            net.batched.add(typed)
        build.qparams[typed] = wanted.retyped(held.dtype)
        target = replace(op, outputs=(typed,))
    if is_entry(net, op):
        emit_entry(build, target)
    elif op.op_type in _LAYERS:
        _LAYERS[op.op_type](build, target, per_channel)
    else:
        _OTHERS[op.op_type](build, target)
    if target is not op:
        real = build.dequantize(target.output, f"{op.name}/retype")
        build.quantize(real, op.output, f"{op.name}/retype")
