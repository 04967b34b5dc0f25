"""Quantized operators of com.microsoft, and dynamic quantization, in ONNX's own operators.

A dynamic quantization finds a new scale for every image. The chip's activations have fixed
scales: the products are read as float products with the user's integers as weights, their input
is calibrated like any other, and a warning says so.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from pimc.frontend.contrib_attention import attended
from pimc.frontend.net import MICROSOFT, Array
from pimc.frontend.spelling import WINDOW, Speller, Spelling, shape_of

Results = list[ir.Value | None]
DYNAMIC: Final = "DynamicQuantizeLinear"
FEW_BITS: Final = "MatMulNBits"
_FLOAT = ir.DataType.FLOAT
_INTEGERS = ("MatMulInteger", "ConvInteger")
_SCALED = {"MatMulIntegerToFloat": (2, 4), "QAttention": (3, 6)}  # places of scale and zero point


# ---------------------------------------------------------------------- dynamic quantization
def spell_dynamic(model: ir.Model) -> int:
    """Let products read what a DynamicQuantizeLinear reads; how many products those are."""
    count = 0
    for node in list(model.graph):
        if node.op_type == DYNAMIC and not node.domain and _is_for_products(node):
            source, scale = node.inputs[0], node.outputs[1]
            readers = [use.node for use in node.outputs[0].uses()]
            for reader in readers:
                if reader.op_type in _INTEGERS:
                    _integer_product(Spelling(reader), source)
                    count += 1
            one = Spelling(node).held("unit_scale", np.float32(1))
            for use in list(scale.uses()):
                if use.node.op_type == "Mul":
                    use.node.replace_input_with(use.idx, one)
    return count


def _is_for_products(node: ir.Node) -> bool:
    """Whether integers, scale and zero point serve products with constants, and nothing else."""
    integers, scale, zero = node.outputs
    for use in integers.uses():
        reader = use.node
        if reader.op_type in _INTEGERS:
            is_cast = all(
                after.node.op_type == "Cast" and after.node.attributes.get_int("to") == _FLOAT
                for after in reader.outputs[0].uses()
            )
            weights = reader.inputs[1]
            if use.idx or reader.inputs[2] is not zero or not is_cast or weights is None:
                return False
            if weights.const_value is None:
                return False
        elif reader.op_type not in _SCALED or use.idx:
            return False
    readers = [use.node.op_type for use in scale.uses()]
    known = all(kind == "Mul" or kind in _SCALED for kind in readers)
    return known and not any(value.is_graph_output() for value in node.outputs)


def _integer_product(write: Spelling, source: ir.Value | None) -> None:
    """MatMulInteger or ConvInteger as a float product with whole numbers as weights."""
    node = write.node
    is_conv = node.op_type == "ConvInteger"
    values, zero = write.array(1), write.array(3)
    assert values is not None
    axis = 0 if is_conv else values.ndim - 1
    points = None if zero is None else zero.reshape(-1)
    weights = write.dequantized(node.inputs[1], np.ones(()), points, axis)
    node.outputs[0].dtype = _FLOAT
    attributes = write.attributes(*WINDOW, "group") if is_conv else {}
    kind = node.op_type.removesuffix("Integer")
    write.replace([write.op(kind, (source, weights), **attributes)])


def _source(write: Spelling) -> ir.Value | None:
    """The float tensor behind the first input: what was quantized, or what the integers mean."""
    at_scale, at_zero = _SCALED[write.node.op_type]
    integers, scale, zero = (write.input(at) for at in (0, at_scale, at_zero))
    maker = None if integers is None else integers.producer()
    if maker is not None and maker.op_type == DYNAMIC and maker.outputs[1] is scale:
        write.note = DYNAMIC
        return maker.inputs[0]
    return write.op(
        "DequantizeLinear", [v for v in (integers, scale, zero) if v is not None], "input"
    )


def _to_float(write: Spelling) -> Results | None:
    """MatMulIntegerToFloat."""
    weights = _weights(write, 1, 3, 5)
    if weights is None:
        return None
    return _biased(write, write.op("MatMul", (_source(write), weights)), 6)


def _dynamic_matmul(write: Spelling) -> Results | None:
    """DynamicQuantizeMatMul."""
    weights = _weights(write, 1, 2, 3)
    if weights is None:
        return None
    write.note = DYNAMIC
    return _biased(write, write.op("MatMul", (write.input(0), weights)), 4)


def _weights(write: Spelling, at: int, at_scale: int, at_zero: int) -> ir.Value | None:
    """Constant weights with a scale in all, or per column."""
    values, scale = write.array(at), write.array(at_scale)
    zero = write.array(at_zero)
    if values is None or scale is None or (write.input(at_zero) is not None and zero is None):
        return None
    points = None if zero is None else zero.reshape(-1)
    return write.dequantized(write.input(at), scale.reshape(-1), points, values.ndim - 1)


def _biased(write: Spelling, product: ir.Value, at: int) -> Results:
    bias = write.input(at)
    return [product if bias is None else write.op("Add", (product, bias), "bias")]


def _dynamic_lstm(write: Spelling) -> Results | None:
    """DynamicQuantizeLSTM: its weights stand transposed, with a scale for each direction."""
    found = []
    for at, at_scale, name in ((1, 8, "W"), (2, 10, "R")):
        values, scale, zero = (write.array(n) for n in (at, at_scale, at_scale + 1))
        if values is None or scale is None or zero is None:
            return None
        shape = (values.shape[0], 1, -1)
        real = (values.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(
            shape
        )
        found.append(write.constant(name, np.ascontiguousarray(real.transpose(0, 2, 1))))
    write.note = DYNAMIC
    names = ("activation_alpha", "activation_beta", "activations", "clip", "direction")
    attributes = write.attributes(*names, "hidden_size", "input_forget")
    inputs = [write.input(0), *found, *(write.input(at) for at in range(3, 8))]
    results = write.several("LSTM", inputs, len(write.node.outputs), **attributes)
    return [value if write.has_output(at) else None for at, value in enumerate(results)]


def _quantized_attention(write: Spelling) -> Results | None:
    """QAttention."""
    weights, values = _weights(write, 1, 4, 7), write.array(1)
    sizes = shape_of(write.input(0))
    if weights is None or values is None or sizes is None or write.input(8) is not None:
        return None
    if write.has_output(1) or write.number("do_rotary"):
        return None
    parts = [values.shape[-1] // 3] * 3
    product = write.op("MatMul", (_source(write), weights))
    product = write.op("Add", (product, write.input(2)), "bias")
    return attended(write, product, parts, sizes, 5, None)


# ---------------------------------------------------------------------- few bits
def _few_bits(write: Spelling) -> Results | None:
    """MatMulNBits: weights with a scale for every block of an output's inputs."""
    rows, outputs = int(write.number("K")), int(write.number("N"))
    bits, block = int(write.number("bits", 4)), int(write.number("block_size"))
    packed, scales = write.array(1), write.array(2)
    if packed is None or scales is None or bits not in (2, 4, 8) or write.input(4) is not None:
        return None
    blocks = -(-rows // block)
    values = _unpacked(packed.reshape(outputs, -1), bits)[:, : blocks * block]
    zero = write.array(3)
    points: Array = np.full((outputs, blocks), 2 ** (bits - 1), np.float32)
    if zero is not None and zero.dtype == np.uint8:
        points = _unpacked(zero.reshape(outputs, -1), bits)[:, :blocks].astype(np.float32)
    elif zero is not None:
        points = zero.reshape(outputs, blocks).astype(np.float32)
    elif write.input(3) is not None:
        return None
    steps = values.reshape(outputs, blocks, block).astype(np.float32) - points[:, :, None]
    real = steps * scales.reshape(outputs, blocks, 1).astype(np.float32)
    matrix = np.ascontiguousarray(real.reshape(outputs, -1)[:, :rows].T)
    write.note = FEW_BITS
    return _biased(write, write.op("MatMul", (write.input(0), write.constant("B", matrix))), 5)


def _unpacked(data: Array, bits: int) -> Array:
    """The numbers of a few bits in each row of bytes, least significant ones first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((data[:, :, None] >> shifts) & np.uint8(2**bits - 1)).reshape(len(data), -1)


# ---------------------------------------------------------------------- channels last
def _channels_last(write: Spelling) -> Results | None:
    """QLinearConv and QLinear pools with channels last: turned around and back."""
    source, sizes = write.input(0), shape_of(write.node.outputs[0])
    if not write.number("channels_last") or source is None or sizes is None or len(sizes) < 3:
        return None
    rank = len(sizes)
    first = [0, rank - 1, *range(1, rank - 1)]
    last = [0, *range(2, rank), 1]
    attributes = {k: a.value for k, a in write.node.attributes.items() if k != "channels_last"}
    inputs = [write.turned(source, first, "channels"), *write.node.inputs[1:]]
    is_conv = write.node.op_type == "QLinearConv"
    domain = "" if is_conv else MICROSOFT
    result = write.op(write.node.op_type, inputs, domain=domain, **attributes)
    result.shape = ir.Shape([sizes[axis] for axis in first])  # nobody infers that of a pool
    result.type = write.node.outputs[0].type
    return [write.turned(result, last, "places")]


QUANTIZED: Final[dict[str, Speller]] = {
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _to_float,
    FEW_BITS: _few_bits,
    "QAttention": _quantized_attention,
    **dict.fromkeys(
        ("QLinearConv", "QLinearAveragePool", "QLinearGlobalAveragePool"), _channels_last
    ),
}
