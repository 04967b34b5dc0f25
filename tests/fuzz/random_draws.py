"""Draws: how each operator of a random network is chosen, with attributes that often fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fuzz.random_graphs import Draw, Drawer, port_of
from onnx import TensorProto, helper, numpy_helper

UNARY = """Abs Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg
    Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tanh ThresholdedRelu Celu
    Dropout Not Hardmax Sinh Atan IsNaN Shape Size Mean""".split()  # noqa: SIM905
BINARY = """Add Sub Mul Div Max Min Pow Greater Less Equal And Or Mod PRelu Sum Mean""".split()  # noqa: SIM905
NORMALIZATIONS = """BatchNormalization GroupNormalization InstanceNormalization LRN
    LayerNormalization LogSoftmax LpNormalization Softmax""".split()  # noqa: SIM905
REDUCTIONS = "Mean Sum Max Min Prod L1 L2 LogSumExp SumSquare".split()  # noqa: SIM905
KINDS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.BOOL: np.bool_,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}


def unary(d: Drawer) -> None:
    d.add(d.rng.choice(UNARY), [d.pick()])


def binary(d: Drawer) -> None:
    a = d.pick()
    value = d.values[a]
    shape = tuple(n if d.maybe(0.6) else 1 for n in value.shape[d.few(0, value.ndim) :])
    same = [name for name, v in d.values.items() if v.dtype == value.dtype]
    b = d.rng.choice(same)
    if d.maybe(0.4):
        b = d.constant(d.numbers.normal(0, 1, shape), value.dtype)
    pair = [a, b] if d.maybe(0.8) else [b, a]
    d.add(d.rng.choice(BINARY), pair)


def many(d: Drawer) -> None:
    a = d.pick(kind=np.float32)
    value = d.values[a]
    same = [n for n, v in d.values.items() if (v.shape, v.dtype) == (value.shape, value.dtype)]
    names = [a, *(d.rng.choice(same) for _ in range(d.few(0, 3)))]
    op = d.rng.choice(("Sum", "Mean", "Max", "Min", "Concat", "Concat"))
    d.add(op, names, axis=d.few(0, d.values[a].ndim - 1) if op == "Concat" else None)


def clip(d: Drawer) -> None:
    low, high = sorted(d.numbers.normal(0, 1, 2).round(2).tolist())
    if d.opset < 11:
        d.add("Clip", [d.pick(kind=np.float32)], min=low, max=high)
    else:
        ends = [d.constant(low), d.constant(high)]
        d.add("Clip", [d.pick(kind=np.float32), ends[0] if d.maybe(0.8) else "", ends[1]])


def cast(d: Drawer) -> None:
    d.add("Cast", [d.pick()], to=d.rng.choice([*KINDS, TensorProto.FLOAT, TensorProto.FLOAT]))


def back(d: Drawer) -> None:
    """Whatever is there, as float again."""
    name = d.rng.choice([n for n, v in d.values.items() if v.dtype != np.float32])
    d.add("Cast", [name], to=TensorProto.FLOAT)


def where(d: Drawer) -> None:
    a = d.pick(kind=np.float32)
    truth = [n for n, v in d.values.items() if v.dtype == np.bool_]
    if truth and d.maybe(0.6):
        condition = d.rng.choice(truth)
    else:
        condition = d.constant(d.numbers.random(d.values[a].shape) < 0.5, np.bool_)
    d.add("Where", [condition, a, d.rng.choice([a, d.constant(0.5)])])


def window(d: Drawer, spatial: Sequence[int], largest: int = 3) -> dict[str, Any]:
    """Attributes of a convolution or pool that often fit."""
    kernel = [d.few(1, max(1, min(largest, n))) for n in spatial]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if d.maybe(0.5):
        found["strides"] = [d.few(1, 3) for _ in spatial]
    if d.maybe(0.3):
        found["dilations"] = [d.few(1, 2) for _ in spatial]
    if d.maybe(0.15):
        found["auto_pad"] = d.rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif d.maybe(0.5):
        found["pads"] = [d.few(0, k - 1) for k in kernel * 2]
    return found


def conv(d: Drawer) -> None:
    x = d.pick((3, 4, 4, 5), np.float32)
    channels, spatial = d.values[x].shape[1], d.values[x].shape[2:]
    groups = d.rng.choice([g for g in range(1, channels + 1) if channels % g == 0] + [1])
    outputs = groups * d.few(1, 4)
    attributes = window(d, spatial)
    kernel = attributes["kernel_shape"]
    if d.maybe(0.15):
        attributes = {k: v for k, v in attributes.items() if k != "dilations"}
        w = d.noise(channels, outputs // groups, *kernel)
        d.add("ConvTranspose", [x, w], group=groups, **attributes)
        return
    inputs = [x, d.noise(outputs, channels // groups, *kernel)]
    inputs += [d.noise(outputs)] if d.maybe(0.5) else []
    if d.maybe(0.3):
        del attributes["kernel_shape"]
    d.add("Conv", inputs, group=groups if d.maybe(0.9) or groups > 1 else None, **attributes)


def pool(d: Drawer) -> None:
    x = d.pick((3, 4, 4, 5), np.float32)
    op = d.rng.choice(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool"))
    attributes = {} if op.startswith("Global") else window(d, d.values[x].shape[2:], 4)
    if op == "AveragePool":
        attributes["count_include_pad"] = d.few(0, 1)
        if d.opset < 19:
            attributes.pop("dilations", None)
    if op in ("MaxPool", "AveragePool") and d.opset >= 10:
        attributes["ceil_mode"] = d.few(0, 1)
    d.add(op, [x], 2 if op == "MaxPool" and d.maybe(0.05) else 1, **attributes)


def product(d: Drawer) -> None:
    a = d.pick((1, 2, 3, 4), np.float32)
    inner = d.values[a].shape[-1]
    kind = d.rng.choice(("right", "right", "left", "gemm", "gemm", "both", "stack"))
    if kind == "right":
        d.add("MatMul", [a, d.noise(inner, d.few(1, 6))])
    elif kind == "stack":
        d.add("MatMul", [a, d.noise(*d.values[a].shape[:-2], inner, d.few(1, 6))])
    elif kind == "left":
        d.add("MatMul", [d.noise(d.few(1, 6), d.values[a].shape[-2]), a])
    elif kind == "both":
        d.add("MatMul", [a, d.pick(kind=np.float32)])
    else:
        flip = d.few(0, 1)
        outputs = d.few(1, 6)
        w = d.noise(outputs, inner) if flip else d.noise(inner, outputs)
        bias = d.noise(*d.rng.choice(((outputs,), (1, outputs), (1,), ())))
        d.add(
            "Gemm", [a, w, bias] if d.maybe(0.7) or d.opset < 11 else [a, w], transB=flip,
            alpha=d.rng.choice((None, 0.5, -1.5)), beta=d.rng.choice((None, 2.0)),
        )  # fmt: skip


def normalize(d: Drawer) -> None:
    x = d.pick((2, 3, 4), np.float32)
    shape = d.values[x].shape
    op = d.rng.choice(NORMALIZATIONS)
    c = shape[1] if len(shape) > 1 else 1
    if op == "BatchNormalization":
        d.add(op, [x, d.noise(c), d.noise(c), d.noise(c), d.constant(d.numbers.uniform(0.5, 2, c))])
    elif op == "InstanceNormalization":
        d.add(op, [x, d.noise(c), d.noise(c)])
    elif op == "GroupNormalization":
        d.add(op, [x, d.noise(c), d.noise(c)], num_groups=1)
    elif op == "LayerNormalization" and d.opset >= 17:
        axis = d.rng.choice((-1, -1, len(shape) - 1, 1))
        sizes = shape[axis:]
        d.add(op, [x, d.noise(*sizes), d.noise(*sizes)][: d.few(2, 3)], axis=axis)
    elif op == "LRN":
        d.add(op, [x], size=d.rng.choice((1, 3, 5)), beta=d.rng.choice((0.5, 0.75, 1.0)), bias=1.0)
    else:
        d.add(op, [x], axis=d.few(-1, len(shape) - 1))


def reduce(d: Drawer) -> None:
    x = d.pick(kind=np.float32 if d.maybe(0.9) else None)
    rank = d.values[x].ndim
    axes = sorted(d.rng.sample(range(rank), d.few(1, rank)))
    if d.maybe(0.3):
        axes = [axis - rank for axis in axes]
    if d.maybe(0.2):
        op = d.rng.choice(("ArgMax", "ArgMin"))
        d.add(op, [x], axis=axes[0], keepdims=d.few(0, 1))
        return
    d.axes("Reduce" + d.rng.choice(REDUCTIONS), x, axes, keepdims=d.few(0, 1))


def reshape(d: Drawer) -> None:
    x = d.pick()
    shape = list(d.values[x].shape)
    kind = d.few(0, 5)
    if kind == 0:
        d.add("Flatten", [x], axis=d.few(0, len(shape)))
    elif kind == 1:
        d.axes("Unsqueeze", x, [d.few(0, len(shape))])
    elif kind == 2:
        ones = [axis for axis, size in enumerate(shape) if size == 1]
        d.axes("Squeeze", x, [d.rng.choice(ones)])
    elif kind == 3:
        at = d.few(0, len(shape) - 2)
        merged = [*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]]
        d.add("Reshape", [x, d.constant(_open(d, merged), np.int64)])
    elif kind == 4:
        at = d.few(0, len(shape) - 1)
        factor = d.rng.choice([f for f in (2, 3, 4, 5) if shape[at] % f == 0])
        split = [*shape[:at], factor, shape[at] // factor, *shape[at + 1 :]]
        d.add("Reshape", [x, d.constant(_open(d, split), np.int64)])
    else:
        d.rng.shuffle(shape)
        d.add("Reshape", [x, d.constant(_open(d, shape), np.int64)])


def _open(d: Drawer, shape: list[int]) -> list[int]:
    """The shape with one size left open, as exporters write it."""
    if d.maybe(0.5) and 0 not in shape:
        shape[0 if d.maybe(0.6) else d.few(0, len(shape) - 1)] = -1
    return shape


def move(d: Drawer) -> None:
    x = d.pick()
    shape = d.values[x].shape
    rank, axis = len(shape), d.few(0, len(shape) - 1)
    kind = d.few(0, 5)
    if kind == 0:
        order = d.rng.sample(range(rank), rank)
        d.add("Transpose", [x], perm=order if d.maybe(0.6) else [0, *[a for a in order if a]])
    elif kind == 1:
        size = d.rng.choice(((), (1,), (3,), (2, 2)))
        numbers = d.constant(d.numbers.integers(0, shape[axis], size), np.int64)
        d.add("Gather", [x, numbers], axis=axis)
    elif kind == 2:
        times = [1 if d.maybe(0.6) else 2 for _ in shape]
        d.add("Tile", [x, d.constant(times, np.int64)])
    elif kind == 3:
        wide = [d.few(1, 3) if size == 1 else size for size in shape]
        extra = [d.few(1, 2)] if d.maybe(0.2) else []
        d.add("Expand", [x, d.constant(extra + wide, np.int64)])
    elif kind == 4:
        op = d.rng.choice(("DepthToSpace", "SpaceToDepth"))
        mode = d.rng.choice(("DCR", "CRD")) if op == "DepthToSpace" and d.opset > 10 else None
        d.add(op, [x], blocksize=d.few(1, 2), mode=mode)
    else:
        d.add("Trilu", [x], upper=d.few(0, 1))


def cut(d: Drawer) -> None:
    x = d.pick()
    shape = d.values[x].shape
    rank, axis = len(shape), d.few(0, len(shape) - 1)
    kind = d.few(0, 2)
    if kind == 0:
        start, end = d.few(-shape[axis], shape[axis]), d.few(-shape[axis], shape[axis])
        step = d.rng.choice((1, 1, 2, -1, -2))
        if d.opset < 10:
            d.add("Slice", [x], starts=[start], ends=[end], axes=[axis])
        else:
            d.add("Slice", [x, *(d.constant([v], np.int64) for v in (start, end, axis, step))])
    elif kind == 1:
        pads = [d.rng.choice((0, 0, 1, 2)) for _ in range(2 * rank)]
        pads[0] = pads[rank] = 0
        mode = d.rng.choice(("constant", "constant", "reflect", "edge"))
        if d.opset < 11:
            d.add("Pad", [x], pads=pads, mode=mode)
        else:
            d.add("Pad", [x, d.constant(pads, np.int64)], mode=mode)
    else:
        half = d.few(0, shape[axis])
        sizes = [half, shape[axis] - half]
        if d.opset < 13:
            d.add("Split", [x], 2, axis=axis, split=sizes)
        else:
            d.add("Split", [x, d.constant(sizes, np.int64)], 2, axis=axis)


def resize(d: Drawer) -> None:
    x = d.pick()
    factors = (d.rng.choice((0.5, 1.0, 2.0, 1.5)) for _ in d.values[x].shape[2:])
    scales = d.constant([1.0, 1.0, *factors])
    mode = d.rng.choice(("nearest", "nearest", "linear", "cubic"))
    if d.opset >= 11:
        how = d.rng.choice(("asymmetric", "half_pixel", "align_corners"))
        inputs = [x, d.constant([]), scales]
        d.add("Resize", inputs, mode=mode, coordinate_transformation_mode=how)
    else:
        d.add("Upsample" if d.opset < 10 else "Resize", [x, scales], mode=mode)


def foreign(d: Drawer) -> None:
    """What no chip has."""
    x = d.pick(kind=np.float32)
    shape = d.values[x].shape
    axis = d.few(0, len(shape) - 1)
    kind = d.few(0, 6)
    if kind == 0:
        d.add("CumSum", [x, d.constant(axis, np.int64)])
    elif kind == 1:
        k = d.few(1, shape[axis])
        if d.opset < 10:
            d.add("TopK", [x], 2, axis=axis, k=k)
        else:
            d.add("TopK", [x, d.constant([k], np.int64)], 2, axis=axis)
    elif kind == 2:
        letters = "abcde"[: len(shape)]
        d.add("Einsum", [x], equation=f"{letters}->{letters[::-1]}")
    elif kind == 3:
        d.add("NonZero", [x])
    elif kind == 4:
        index = d.constant(d.numbers.integers(0, shape[axis], shape), np.int64)
        d.add("GatherElements", [x, index], axis=axis)
    elif kind == 5:
        branch(d, x)
    else:
        lengths = d.constant([1] * shape[1], np.int64)
        d.add("ReverseSequence", [x, lengths], time_axis=0, batch_axis=1)


def branch(d: Drawer, x: str) -> None:
    """If with two bodies that read a tensor from around them."""
    condition = d.constant(d.maybe(0.5), np.bool_)
    if d.maybe(0.5):
        truth = [n for n, v in d.values.items() if v.dtype == np.bool_ and v.size == 1]
        condition = d.rng.choice(truth)
    value = port_of("b", np.float32, d.values[x].shape)
    bodies = [
        helper.make_graph([helper.make_node(op, [x], ["b"])], op, [], [value])
        for op in ("Relu", "Neg")
    ]
    name = f"t{len(d.nodes)}"
    node = helper.make_node(
        "If", [condition], [name], name, then_branch=bodies[0], else_branch=bodies[1]
    )
    found = d.run([node], [condition, x], [name])
    d.nodes.append(node)
    d.values[name] = found[0]


def quantize(d: Drawer) -> None:
    """A tensor through 8 bits, as quantized networks write it; sometimes the integers stay."""
    x = d.pick(kind=np.float32)
    kind = d.rng.choice((np.int8, np.uint8))
    zero = d.constant(int(d.rng.choice((0, 0, 3, 100))), kind)
    scale = d.constant(d.rng.choice((0.01, 0.05, 1.0)))
    d.add("QuantizeLinear", [x, scale, zero])
    if d.maybe(0.85):
        d.add("DequantizeLinear", [d.nodes[-1].output[0], scale, zero])


def integer_layer(d: Drawer) -> None:
    """A quantized convolution or product of integers that are there."""
    x = d.pick((2, 4), d.rng.choice((np.int8, np.uint8)))
    value = d.values[x]
    kind = value.dtype
    scale, zero = d.constant(0.05), d.constant(3, kind)
    outputs = d.few(1, 5)
    if value.ndim == 4:
        w = d.constant(d.numbers.integers(-128, 128, (outputs, value.shape[1], 1, 1)), np.int8)
        rest = [d.constant(0.02), d.constant(0, np.int8)]
        d.add("QLinearConv", [x, scale, zero, w, *rest, scale, zero])
    else:
        w = d.constant(d.numbers.integers(0, 128, (value.shape[1], outputs)), kind)
        rest = [d.constant(0.02), d.constant(5, kind)]
        d.add("QLinearMatMul", [x, scale, zero, w, *rest, scale, zero])


def embed(d: Drawer) -> None:
    """Rows of a constant by numbers that are given."""
    ids = d.pick(kind=d.rng.choice((np.int64, np.int32)))
    d.add("Gather", [d.noise(d.few(3, 8), d.few(1, 6)), ids])


def shapes(d: Drawer) -> None:
    """Arithmetic on shapes, as exporters write views."""
    x = d.pick(kind=np.float32)
    d.add("Shape", [x])
    shape = d.nodes[-1].output[0]
    kind = d.few(0, 2)
    if kind == 0:
        d.add("Gather", [shape, d.constant([0], np.int64)], axis=0)
        d.add("Concat", [d.nodes[-1].output[0], d.constant([-1], np.int64)], axis=0)
        d.add("Reshape", [x, d.nodes[-1].output[0]])
    elif kind == 1:
        half = numpy_helper.from_array(np.array([0.5], np.float32))
        d.add("ConstantOfShape", [shape], value=half)
        d.add("Mul", [x, d.nodes[-1].output[0]])
    else:
        d.add("Expand", [d.pick(kind=np.float32), shape])


def recurrent(d: Drawer) -> None:
    x = d.pick((3,), np.float32)
    inputs, hidden = d.values[x].shape[2], d.few(1, 4)
    op, gates = d.rng.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    directions = d.few(1, 2)
    w = [d.noise(directions, gates * hidden, n) for n in (inputs, hidden)]
    bias = [d.noise(directions, 2 * gates * hidden)] if d.maybe(0.7) else []
    direction = "bidirectional" if directions == 2 else d.rng.choice(("forward", "reverse"))
    d.add(op, [x, *w, *bias], d.few(1, 2), hidden_size=hidden, direction=direction)


DRAWS: tuple[Draw, ...] = (
    *(unary,) * 4, *(binary,) * 5, many, many, clip, cast, back, back, where, *(conv,) * 5,
    *(pool,) * 3, *(product,) * 4, *(normalize,) * 3, *(reduce,) * 2, *(reshape,) * 3,
    *(move,) * 3, cut, cut, resize, foreign, foreign, quantize, quantize, integer_layer, embed,
    shapes, recurrent,
)  # fmt: skip
