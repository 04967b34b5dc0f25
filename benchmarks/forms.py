"""Forms: one float32 network as converters, quantizers and optimizers of onnxruntime write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

Feeds = dict[str, NDArray[Any]]
Form = Callable[[Path, Path, list[Feeds]], None]  # source, target, calibration samples
U8, S8, U16, S16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16
U4, S4 = QuantType.QUInt4, QuantType.QInt4
QDQ, QOP = QuantFormat.QDQ, QuantFormat.QOperator
LEVELS = onnxruntime.GraphOptimizationLevel


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Samples for onnxruntime's calibrators."""

    def __init__(self, feeds: list[Feeds]) -> None:
        self.feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self.feeds, None)


def static(kind: QuantFormat, activation: QuantType, weight: QuantType, **options: Any) -> Form:
    """quantize_static; options it does not know go into its extra options."""
    known = ("per_channel", "reduce_range", "calibrate_method", "op_types_to_quantize")
    named = {name: options.pop(name) for name in known if name in options}

    def write(source: Path, target: Path, samples: list[Feeds]) -> None:
        quantize_static(
            str(source),
            str(target),
            Reader(samples),
            quant_format=kind,
            activation_type=activation,
            weight_type=weight,
            extra_options=options,
            **named,
        )

    return write


def dynamic(weight: QuantType, **options: Any) -> Form:
    """quantize_dynamic."""
    return lambda source, target, _: quantize_dynamic(
        str(source), str(target), weight_type=weight, **options
    )


def blocks(bits: int, is_symmetric: bool = True, kind: QuantFormat = QOP) -> Form:
    """Weights of a few bits, with a scale for every 32 inputs."""

    def write(source: Path, target: Path, _: list[Feeds]) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        work = MatMulNBitsQuantizer(
            onnx.load(source),
            bits=bits,
            block_size=32,
            is_symmetric=is_symmetric,
            quant_format=kind,
        )
        work.process()
        work.model.save_model_to_file(str(target), False)

    return write


def saved_at(level: LEVELS) -> Form:
    """What onnxruntime makes of a model, saved."""

    def write(source: Path, target: Path, _: list[Feeds]) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return write


def prepared(source: Path, target: Path, _: list[Feeds]) -> None:
    """onnxruntime's preparation of a model for its quantizer."""
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)


def half(keep_io_types: bool, module: str = "onnxruntime.transformers.float16") -> Form:
    """convert_float_to_float16."""

    def write(source: Path, target: Path, _: list[Feeds]) -> None:
        from importlib import import_module

        convert = import_module(module).convert_float_to_float16
        onnx.save(convert(onnx.load(source), keep_io_types=keep_io_types), target)

    return write


def transformer(source: Path, target: Path, _: list[Feeds]) -> None:
    """The optimizer of onnxruntime.transformers."""
    from onnxruntime.transformers import optimizer

    made = optimizer.optimize_model(str(source), "bert", num_heads=4, hidden_size=128, opt_level=0)
    made.save_model_to_file(str(target))


def simplified(source: Path, target: Path, _: list[Feeds]) -> None:
    """onnx-simplifier."""
    import onnxsim

    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def slimmed(source: Path, target: Path, _: list[Feeds]) -> None:
    """onnxslim."""
    import onnxslim

    onnx.save(onnxslim.slim(str(source)), target)


def retyped(kind: int) -> Form:
    """All floats in another type: double, bfloat16."""

    def write(source: Path, target: Path, _: list[Feeds]) -> None:
        model = onnx.load(source)
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        attributes = [a for node in model.graph.node for a in node.attribute]
        for tensor in (*model.graph.initializer, *(a.t for a in attributes if a.HasField("t"))):
            if tensor.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor).astype(dtype)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for attribute in attributes:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = kind
        onnx.save(model, target)

    return write


def with_constants(source: Path, target: Path, _: list[Feeds]) -> None:
    """Weights as Constant nodes."""
    model = onnx.load(source)
    weights = list(model.graph.initializer)
    nodes = [helper.make_node("Constant", [], [t.name], t.name, value=t) for t in weights]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def with_external_data(source: Path, target: Path, _: list[Feeds]) -> None:
    """Weights in a file of their own."""
    onnx.save(
        onnx.load(source),
        target,
        save_as_external_data=True,
        location=f"{target.name}.data",
        size_threshold=0,
    )


def of_ir_3(source: Path, target: Path, _: list[Feeds]) -> None:
    """IR version 3: every weight is an input, too."""
    model = onnx.load(source)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    onnx.save(model, target)


def then(first: Form, second: Form) -> Form:
    """One form of another."""

    def write(source: Path, target: Path, samples: list[Feeds]) -> None:
        between = target.with_suffix(".between.onnx")
        first(source, between, samples)
        second(between, target, samples)

    return write


_COMMON = "onnxconverter_common.float16"
_BASIC, _EXTENDED, _ALL = LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_EXTENDED, LEVELS.ORT_ENABLE_ALL
FORMS: Mapping[str, Form] = {
    "float16": half(False),
    "float16, float32 ports": half(True),
    "float16 of onnxconverter_common": half(False, _COMMON),
    "float16 of onnxconverter_common, float32 ports": half(True, _COMMON),
    "double": retyped(TensorProto.DOUBLE),
    "bfloat16": retyped(TensorProto.BFLOAT16),
    "QDQ u8/u8": static(QDQ, U8, U8),
    "QDQ u8/s8": static(QDQ, U8, S8),
    "QDQ s8/s8": static(QDQ, S8, S8),
    "QDQ s8/s8 per channel": static(QDQ, S8, S8, per_channel=True),
    "QDQ u8/s8 per channel, reduced range": static(
        QDQ, U8, S8, per_channel=True, reduce_range=True
    ),
    "QDQ s8/s8, activations symmetric": static(QDQ, S8, S8, ActivationSymmetric=True),
    "QDQ u8/u8, weights symmetric": static(QDQ, U8, U8, WeightSymmetric=True),
    "QDQ of a prepared model": then(prepared, static(QDQ, S8, S8, per_channel=True)),
    "QDQ, a pair for each reader": static(QDQ, S8, S8, DedicatedQDQPair=True),
    "QDQ, pairs at the weights": static(QDQ, S8, S8, AddQDQPairToWeight=True),
    "QDQ of com.microsoft": static(QDQ, U8, S8, UseQDQContribOps=True),
    "QDQ, float biases": static(QDQ, S8, S8, QuantizeBias=False),
    "QDQ by entropy": static(QDQ, S8, S8, calibrate_method=CalibrationMethod.Entropy),
    "QDQ by percentile": static(QDQ, U8, U8, calibrate_method=CalibrationMethod.Percentile),
    "QDQ of Conv alone": static(QDQ, S8, S8, op_types_to_quantize=["Conv"]),
    "QDQ of MatMul and Gemm alone": static(QDQ, U8, U8, op_types_to_quantize=["MatMul", "Gemm"]),
    "QDQ u16/s8": static(QDQ, U16, S8, UseQDQContribOps=True),
    "QDQ s16/s16": static(QDQ, S16, S16),
    "QDQ u8/s4": static(QDQ, U8, S4),
    "QDQ s8/u4": static(QDQ, S8, U4),
    "QDQ, then float16": then(static(QDQ, S8, S8), half(True)),
    "QOperator u8/u8": static(QOP, U8, U8),
    "QOperator u8/s8": static(QOP, U8, S8),
    "QOperator s8/s8": static(QOP, S8, S8),
    "QOperator s8/s8 per channel": static(QOP, S8, S8, per_channel=True),
    "QOperator of Conv alone": static(QOP, U8, U8, op_types_to_quantize=["Conv"]),
    "dynamic u8": dynamic(U8),
    "dynamic s8": dynamic(S8),
    "dynamic s8 per channel, reduced range": dynamic(S8, per_channel=True, reduce_range=True),
    "MatMulNBits, 4 bits": blocks(4),
    "MatMulNBits, 4 bits, zero points": blocks(4, False),
    "MatMulNBits, 8 bits": blocks(8),
    "MatMulNBits, 2 bits": blocks(2),
    "blocks of 4 bits in QDQ": blocks(4, kind=QDQ),
    "saved at BASIC": saved_at(_BASIC),
    "saved at EXTENDED": saved_at(_EXTENDED),
    "saved at ALL": saved_at(_ALL),
    "QDQ s8/s8, saved at ALL": then(static(QDQ, S8, S8, per_channel=True), saved_at(_ALL)),
    "QDQ u8/u8, saved at EXTENDED": then(static(QDQ, U8, U8), saved_at(_EXTENDED)),
    "QOperator u8/u8, saved at ALL": then(static(QOP, U8, U8), saved_at(_ALL)),
    "dynamic u8, saved at ALL": then(dynamic(U8), saved_at(_ALL)),
    "float16, saved at EXTENDED": then(half(False), saved_at(_EXTENDED)),
    "onnxruntime.transformers": transformer,
    "onnxruntime.transformers, then dynamic s8": then(transformer, dynamic(S8)),
    "onnx-simplifier": simplified,
    "QDQ s8/s8, then onnxslim": then(static(QDQ, S8, S8), slimmed),
    "weights as Constant nodes": with_constants,
    "weights in external data": with_external_data,
    "IR version 3": of_ir_3,
}
