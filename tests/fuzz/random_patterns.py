"""Patterns: what exporters, quantizers and optimizers write beside plain operators."""

from __future__ import annotations

import numpy as np
from fuzz.random_draws import quantize, window
from fuzz.random_graphs import Draw, Drawer, port_of
from onnx import TensorProto, helper

MICROSOFT = "com.microsoft"
MASKED = (-np.inf, -1e9, -10000.0, float(np.finfo(np.float32).min))


# ------------------------------------------------------------------ quantized networks
def parameters(d: Drawer, kind: type[np.generic]) -> tuple[str, str]:
    """A scale and a zero point of 8 bits."""
    zero = d.rng.choice((0, 0, 3, 100)) if kind is np.int8 else d.rng.choice((0, 128, 128, 3))
    return d.constant(d.rng.choice((0.01, 0.03, 0.1))), d.constant(zero, kind)


def dequantized_weights(d: Drawer, shape: tuple[int, ...], axis: int) -> str:
    """8-bit weights as floats, with one scale or one for each output."""
    kind = d.rng.choice((np.int8, np.int8, np.uint8))
    low = -127 if kind is np.int8 else 0
    integers = d.constant(d.numbers.integers(low, 128, shape), kind)
    if d.opset >= 13 and d.maybe(0.6):
        scales = d.constant(d.numbers.uniform(0.001, 0.01, shape[axis]))
        zeros = d.constant(np.zeros(shape[axis]), kind)
        d.add("DequantizeLinear", [integers, scales, zeros], axis=axis)
    else:
        zero = d.constant(0 if kind is np.int8 else 64, kind)
        d.add("DequantizeLinear", [integers, d.constant(0.005), zero])
    return d.last()


def layer_of_pairs(d: Drawer) -> None:
    """A layer between QuantizeLinear and DequantizeLinear, its weights and bias quantized too."""
    quantize(d)
    x = d.last()
    value = d.values[x]
    outputs = d.few(1, 5)
    bias = d.constant(d.numbers.integers(-500, 500, outputs), np.int32)
    if value.ndim in (3, 4) and d.maybe(0.7):
        attributes = window(d, value.shape[2:])
        shape = (outputs, value.shape[1], *attributes["kernel_shape"])
        inputs = [x, dequantized_weights(d, shape, 0)]
        op = "Conv"
    else:
        inputs = [x, dequantized_weights(d, (value.shape[-1], outputs), 1)]
        op, attributes = ("Gemm" if value.ndim == 2 and d.maybe(0.5) else "MatMul"), {}
    if op != "MatMul" and d.maybe(0.6):
        d.add("DequantizeLinear", [bias, d.constant(0.0005)])
        inputs.append(d.last())
    d.add(op, inputs, **attributes)
    if d.maybe(0.4):
        d.add(d.rng.choice(("Relu", "Sigmoid", "LeakyRelu")), [d.last()])
    if d.maybe(0.7):
        scale, zero = parameters(d, d.rng.choice((np.int8, np.uint8)))
        d.add("QuantizeLinear", [d.last(), scale, zero])
        d.add("DequantizeLinear", [d.last(), scale, zero])


def quantized_operator(d: Drawer) -> None:
    """What onnxruntime's quantizer writes instead of pairs."""
    kind = d.rng.choice((np.int8, np.uint8))
    x = d.pick(kind=kind)
    value = d.values[x]
    ours, theirs = parameters(d, kind), parameters(d, kind)
    op = d.rng.choice(("Add", "Mul", "Sigmoid", "LeakyRelu", "Pool", "Average", "Concat", "Gemm",
                       "Softmax", "MatMul", "Conv"))  # fmt: skip
    if op in ("Add", "Mul"):
        same = [n for n, v in d.values.items() if v.dtype == kind]
        other = d.rng.choice([d.constant(d.numbers.integers(0, 90, value.shape[-1:]), kind), *same])
        d.add(f"QLinear{op}", [x, *ours, other, *ours, *theirs], domain=MICROSOFT)
    elif op in ("Sigmoid", "LeakyRelu"):
        d.add(f"QLinear{op}", [x, *ours, *theirs], domain=MICROSOFT)
    elif op == "Pool":
        d.add("QLinearGlobalAveragePool", [x, *ours, *theirs], domain=MICROSOFT, channels_last=0)
    elif op == "Average":
        attributes = window(d, value.shape[2:])
        attributes.pop("dilations", None)
        d.add("QLinearAveragePool", [x, *ours, *theirs], domain=MICROSOFT, **attributes)
    elif op == "Concat":
        d.add("QLinearConcat", [*theirs, x, *ours, x, *theirs], domain=MICROSOFT, axis=1)
    elif op == "Softmax":
        d.add("QLinearSoftmax", [x, *ours, *theirs], domain=MICROSOFT, axis=-1, opset=d.opset)
    elif op == "Gemm":
        w = d.constant(d.numbers.integers(-128, 128, (value.shape[1], d.few(1, 5))), np.int8)
        rest = [d.constant(0.02), d.constant(0, np.int8), ""]
        d.add("QGemm", [x, *ours, w, *rest, *theirs], domain=MICROSOFT)
    else:
        integer_sums(d, x, op)


def integer_sums(d: Drawer, x: str, op: str) -> None:
    """Integers in, 32-bit sums out, and mostly back to floats."""
    value = d.values[x]
    zeros = [d.constant(3, value.dtype), d.constant(0, np.int8)]
    if op == "Conv":
        shape = (d.few(1, 4), value.shape[1], *(1 for _ in value.shape[2:]))
    else:
        shape = (value.shape[-1], d.few(1, 4))
    w = d.constant(d.numbers.integers(-128, 128, shape), np.int8)
    d.add(f"{op}Integer", [x, w, *zeros])
    if d.maybe(0.8):
        d.add("Cast", [d.last()], to=TensorProto.FLOAT, farthest=1e7)
        d.add("Mul", [d.last(), d.constant(0.001)])


def dynamic(d: Drawer) -> None:
    """A product whose input is quantized anew for each sample."""
    x = d.pick((2, 3), np.float32)
    d.add("DynamicQuantizeLinear", [x], 3)
    integers, scale, zero = d.nodes[-1].output
    w = d.constant(d.numbers.integers(-128, 128, (d.values[x].shape[-1], d.few(1, 4))), np.int8)
    d.add("MatMulInteger", [integers, w, zero])
    sums = d.last()
    d.add("Cast", [sums], to=TensorProto.FLOAT, farthest=1e7)
    product = d.last()
    d.add("Mul", [scale, d.constant(0.01)])
    d.add("Mul", [product, d.last()])


# ------------------------------------------------------------------ attention
def attention(d: Drawer) -> None:
    """Scores of all pairs of rows, a mask, a softmax, and the sums that it weighs."""
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    rows = shape[-2]
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    d.add("Transpose", [x], perm=order)
    d.add("MatMul", [x, d.last()])
    d.add(d.rng.choice(("Mul", "Div")), [d.last(), d.constant(d.rng.choice((0.5, 2.0)))])
    kind = d.few(0, 3)
    hidden = np.triu(np.ones((rows, rows), bool), 1)
    lowest = d.rng.choice(MASKED)
    if kind == 0:
        d.add("Add", [d.last(), d.constant(np.where(hidden, lowest, 0))], farthest=np.inf)
    elif kind == 1:
        where = [d.constant(hidden, np.bool_), d.constant(lowest), d.last()]
        d.add("Where", where, farthest=np.inf)
    elif kind == 2:
        scores = d.last()
        whole = [n for n, v in d.values.items() if v.dtype.kind in "bi" and v.shape[-1:] == (rows,)]
        d.add("Cast", [d.rng.choice(whole)], to=TensorProto.FLOAT)
        d.add("Sub", [d.constant(1.0), d.last()])
        d.add("Mul", [d.last(), d.constant(max(lowest, -1e9))], farthest=np.inf)
        d.add("Add", [scores, d.last()], farthest=np.inf)
    d.add("Softmax", [d.last()], axis=-1 if d.opset >= 13 else len(shape) - 1)
    d.add("MatMul", [d.last(), x])


# ------------------------------------------------------------------ layers with more options
def transposed(d: Drawer) -> None:
    x = d.pick((3, 4), np.float32)
    channels, spatial = d.values[x].shape[1], d.values[x].shape[2:]
    groups = d.rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
    kernel = [d.few(1, 4) for _ in spatial]
    strides = [d.few(1, 3) for _ in spatial]
    attributes: dict[str, object] = {"strides": strides, "group": groups}
    if d.maybe(0.4):
        attributes["dilations"] = [d.few(1, 2) for _ in spatial]
    if d.maybe(0.4):
        attributes["output_padding"] = [d.few(0, s - 1) for s in strides]
    if d.maybe(0.2):
        attributes["auto_pad"] = d.rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif d.maybe(0.5):
        attributes["pads"] = [d.few(0, k - 1) for k in kernel * 2]
    elif d.maybe(0.2):
        attributes["output_shape"] = [n * s for n, s in zip(spatial, strides, strict=True)]
    outputs = d.few(1, 3)
    inputs = [x, d.noise(channels, outputs, *kernel)]
    d.add("ConvTranspose", inputs + [d.noise(outputs * groups)] * d.few(0, 1), **attributes)


def long_kernel(d: Drawer) -> None:
    """A kernel as wide as the map, or higher than the padded one is wide."""
    x = d.pick((3, 4), np.float32)
    shape = d.values[x].shape
    kernel = [d.rng.choice((1, n, n + 1)) for n in shape[2:]]
    pads = [d.rng.choice((k // 2, k - 1)) for k in kernel]
    group = d.rng.choice((1, shape[1]))
    w = d.noise(group * d.few(1, 2), shape[1] // group, *kernel)
    d.add("Conv", [x, w], pads=pads * 2, group=group)


def recurrent_states(d: Drawer) -> None:
    """A recurrent layer with first states, lengths, a clip, peepholes or the batch in front."""
    x = d.pick((3,), np.float32)
    layout = int(d.opset >= 14 and d.maybe(0.2))
    batch = d.values[x].shape[0 if layout else 1]
    length, inputs = d.values[x].shape[1 if layout else 0], d.values[x].shape[2]
    op, gates = d.rng.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    hidden, directions = d.few(1, 4), d.few(1, 2)
    w = [d.noise(directions, gates * hidden, n) for n in (inputs, hidden)]
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    lengths = d.constant([d.few(1, length) for _ in range(batch)], np.int32)
    names = [x, *w, d.rng.choice(("", d.noise(directions, 2 * gates * hidden))),
             lengths if d.maybe(0.2) else "", d.noise(*state) if d.maybe(0.5) else ""]  # fmt: skip
    if op == "LSTM":
        names += [d.noise(*state) if d.maybe(0.5) else ""]
        names += [d.noise(directions, 3 * hidden)] if d.maybe(0.2) else []
    attributes: dict[str, object] = {"layout": layout or None, "hidden_size": hidden}
    if op == "GRU":
        attributes["linear_before_reset"] = d.few(0, 1)
    if d.maybe(0.15):
        attributes["clip"] = 0.5
    direction = "bidirectional" if directions == 2 else d.rng.choice(("forward", "reverse"))
    d.add(op, names, d.few(1, 3 if op == "LSTM" else 2), direction=direction, **attributes)


def groups(d: Drawer) -> None:
    """Normalizations that the plain draw leaves out."""
    x = d.pick((3, 4), np.float32)
    channels = d.values[x].shape[1]
    kind = d.few(0, 3)
    if kind == 0:
        number = d.rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
        size = channels if d.opset >= 21 else number
        d.add("GroupNormalization", [x, d.noise(size), d.noise(size)], num_groups=number)
    elif kind == 1:
        d.add("MeanVarianceNormalization", [x], axes=[d.values[x].ndim - 1])
    elif kind == 2:
        size = d.values[x].shape[-1]
        d.add("SimplifiedLayerNormalization", [x, d.noise(size)], axis=-1, epsilon=1e-5)
    else:
        size = d.values[x].shape[-1]
        names = [x, x, d.noise(size), d.noise(size)]
        d.add("SkipLayerNormalization", names, domain=MICROSOFT, epsilon=1e-5)


def sized(d: Drawer) -> None:
    """A Resize to sizes instead of by factors, as exporters write it: the batch stays."""
    x = d.pick((3, 4), np.float32)
    spatial = d.values[x].shape[2:]
    d.add("Shape", [x])
    d.add("Slice", [d.last(), d.constant([0], np.int64), d.constant([2], np.int64)])
    sizes = d.constant([d.few(1, 2 * n) for n in spatial], np.int64)
    d.add("Concat", [d.last(), sizes], axis=0)
    inputs = [x, "" if d.opset >= 13 else d.constant([]), "" if d.opset >= 13 else d.constant([])]
    mode = d.rng.choice(("nearest", "linear"))
    rounding = d.rng.choice(("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"))
    how = d.rng.choice(("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"))
    d.add(
        "Resize", [*inputs, d.last()], mode=mode,
        nearest_mode=rounding if mode == "nearest" else None, coordinate_transformation_mode=how,
    )  # fmt: skip


# ------------------------------------------------------------------ spelled out
def spelled(d: Drawer) -> None:
    """Functions and blocks as several plain operators."""
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    kind = d.few(0, 5)
    if kind == 0:  # Gelu
        d.add("Div", [x, d.constant(1.4142135)])
        d.add("Erf", [d.last()])
        d.add("Add", [d.last(), d.constant(1.0)])
        d.add("Mul", [x, d.last()])
        d.add("Mul", [d.last(), d.constant(0.5)])
    elif kind == 1:  # LayerNormalization
        d.axes("ReduceMean", x, [-1])
        d.add("Sub", [x, d.last()])
        centred = d.last()
        d.add("Pow", [centred, d.constant(2.0)])
        d.axes("ReduceMean", d.last(), [-1])
        d.add("Add", [d.last(), d.constant(1e-5)])
        d.add("Sqrt", [d.last()])
        d.add("Div", [centred, d.last()])
    elif kind == 2:  # squeeze and excite
        d.add("GlobalAveragePool", [x])
        d.add("Conv", [d.last(), d.noise(shape[1], shape[1], *(1 for _ in shape[2:]))])
        d.add(d.rng.choice(("Sigmoid", "HardSigmoid")), [d.last()])
        d.add("Mul", [x, d.last()])
    elif kind == 3:  # channel shuffle
        split = [shape[0], 2, shape[1] // 2, *shape[2:]]
        d.add("Reshape", [x, d.constant(split, np.int64)])
        d.add("Transpose", [d.last()], perm=[0, 2, 1, *range(3, len(split))])
        d.add("Reshape", [d.last(), d.constant([shape[0], -1, *shape[2:]], np.int64)])
    elif kind == 4:  # a gated half
        half = shape[-1] // 2
        parts = [half] * 2
        if d.opset < 13:
            d.add("Split", [x], 2, axis=len(shape) - 1, split=parts)
        else:
            d.add("Split", [x, d.constant(parts, np.int64)], 2, axis=-1)
        first, second = d.nodes[-1].output
        d.add("Sigmoid", [second])
        d.add("Mul", [first, d.last()])
    else:  # a choice by a comparison
        bound = d.constant(d.numbers.normal(0, 1, shape[-1:]))
        d.add(d.rng.choice(("Greater", "Less")), [x, d.rng.choice((bound, d.constant(0.0)))])
        d.add("Where", [d.last(), x, d.rng.choice((bound, d.constant(0.0)))])


def fused(d: Drawer) -> None:
    """What onnxruntime's optimizer writes."""
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    kind = d.few(0, 4)
    if kind == 0:
        w = d.noise(d.few(1, 4), shape[1], *(1 for _ in shape[2:]))
        d.add("FusedConv", [x, w], domain=MICROSOFT, activation="Relu")
    elif kind == 1:
        name = d.rng.choice(("Gelu", "FastGelu", "QuickGelu"))
        d.add(name, [x], domain=MICROSOFT)
    elif kind == 2:
        d.add("BiasGelu", [x, d.noise(shape[-1])], domain=MICROSOFT)
    elif kind == 3:
        d.add("FusedMatMul", [x, d.noise(d.few(1, 4), shape[-1])], domain=MICROSOFT, transB=1,
              alpha=0.5)  # fmt: skip
    else:
        d.add("FusedGemm", [x, d.noise(shape[-1], 3), d.noise(3)], domain=MICROSOFT,
              activation="Relu")  # fmt: skip


def other_precision(d: Drawer) -> None:
    """A stretch in float16 or double."""
    kind = d.rng.choice((TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE))
    number = helper.tensor_dtype_to_np_dtype(kind)
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    d.add("Cast", [x], to=kind)
    for _ in range(d.few(1, 3)):
        op = d.rng.choice(("Relu", "Sigmoid", "Add", "MatMul", "Conv", "Softmax", "Mul"))
        if op == "Conv":
            w = d.numbers.normal(0, 0.4, (d.few(1, 4), shape[1], *(1 for _ in shape[2:])))
            d.add(op, [d.last(), d.constant(w, number)])
        elif op == "MatMul":
            w = d.numbers.normal(0, 0.4, (d.values[d.last()].shape[-1], d.few(1, 4)))
            d.add(op, [d.last(), d.constant(w, number)])
        elif op in ("Add", "Mul"):
            d.add(op, [d.last(), d.constant(0.5, number)])
        else:
            d.add(op, [d.last()])
    d.add("Cast", [d.last()], to=TensorProto.FLOAT)


def rows_by_place(d: Drawer) -> None:
    """Elements picked or exchanged by their places."""
    x = d.pick((2, 3), np.float32)
    shape = d.values[x].shape
    kind = d.few(0, 4)
    if kind == 0:
        index = d.numbers.integers(-shape[0], shape[0], (d.few(1, 3), 1))
        d.add("GatherND", [x, d.constant(index, np.int64)])
    elif kind == 1:
        rows = d.noise(1, *shape[1:])
        index = d.constant([[d.few(0, shape[0] - 1)]], np.int64)
        d.add("ScatterND", [x, index, rows])
    elif kind == 2:
        whole = d.pick(kind=d.rng.choice((np.int64, np.int32)))
        d.add("OneHot", [whole, d.constant(3, np.int64), d.constant([0.0, 1.0])], axis=-1)
    elif kind == 3:
        d.add("Compress", [x, d.constant(d.numbers.random(shape[-1]) < 0.6, np.bool_)], axis=-1)
    else:
        d.add("EyeLike", [x])


def repeated(d: Drawer) -> None:
    """A Loop of three rounds around one tensor."""
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["state", "half"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [port_of("round", np.int64, []), port_of("go", np.bool_, []),
         port_of("state", np.float32, shape)],
        [port_of("on", np.bool_, []), port_of("next", np.float32, shape)],
        [half],
    )  # fmt: skip
    d.add("Loop", [d.constant(3, np.int64), d.constant(True, np.bool_), x], body=body)


PATTERNS: tuple[Draw, ...] = (
    *(layer_of_pairs,) * 4, *(quantized_operator,) * 3, dynamic, *(attention,) * 3,
    *(transposed,) * 2, long_kernel, long_kernel, *(recurrent_states,) * 2, *(groups,) * 2, sized,
    *(spelled,) * 4, *(fused,) * 2, *(other_precision,) * 2, rows_by_place, repeated,
)  # fmt: skip
