"""Oracle of the frontend tests: a plain interpreter of Graphs, and onnxruntime on the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from passes.graph import (
    BinaryNode,
    CellNode,
    FloatLayerNormNode,
    Graph,
    GroupNormNode,
    LayerNormNode,
    LogSoftmaxNode,
    LookupNode,
    LrnNode,
    LutNode,
    MatrixNode,
    MoveNode,
    Node,
    PoolNode,
    ProductNode,
    RealNode,
    SelectNode,
    SoftmaxNode,
    Value,
)
from pimc.frontend.build import FrontendOptions, Imported, import_model

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float32]
F32 = np.float32


def evaluate_graph(graph: Graph, inputs: dict[str, Ints]) -> dict[str, Ints]:
    """Every value of a graph, int8 or uint8 [images, rows, columns, channels] by name."""
    found = dict(inputs)
    for node in graph.nodes:
        operands = [found[name] for name in node.inputs]
        result = _EVALUATORS[type(node)](graph, node, *operands)
        shape = graph.values[node.output].shape
        assert result.shape[1:] == shape, f"{node.name}: {result.shape[1:]} instead of {shape}"
        found[node.output] = result
    return found


def _dtype(value: Value) -> Any:
    return {"s8": np.int8, "u8": np.uint8, "s32": np.int32, "f32": np.float32}[value.dtype]


def _saturate(real: NDArray[np.floating[Any]], value: Value) -> Ints:
    if value.dtype == "f32":
        return real.astype(F32)
    info = np.iinfo(_dtype(value))
    return np.asarray(np.clip(np.rint(real) + value.zero, info.min, info.max), info.dtype)


def _windows(
    x: NDArray[Any], node: MatrixNode | PoolNode, kernel: tuple[int, int], fill: int
) -> list[tuple[int, int, NDArray[Any]]]:
    """For each kernel position the elements that it meets: (i, j, [images, rows, columns, C])."""
    top, left, bottom, right = node.pads
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, pads, constant_values=fill)
    sizes = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(padded.shape[1:3], kernel, node.dilation, node.stride, strict=True)
    ]
    found = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            first = (i * node.dilation[0], j * node.dilation[1])
            rows, columns = (
                slice(f, f + (n - 1) * s + 1, s)
                for f, n, s in zip(first, sizes, node.stride, strict=True)
            )
            found.append((i, j, padded[:, rows, columns]))
    return found


def _matrix(graph: Graph, node: MatrixNode, x: Ints) -> Ints:
    zero = graph.values[node.inputs[0]].zero
    outputs, rows, columns, per_group = node.weights.shape
    by_group = node.weights.reshape(node.groups, outputs // node.groups, rows, columns, per_group)
    total: Any = 0
    for i, j, taken in _windows(x.astype(np.float64) - zero, node, (rows, columns), 0):
        split = taken.reshape(*taken.shape[:3], node.groups, per_group)
        weights = by_group[:, :, i, j].astype(np.float64)  # float64 is exact below 2**53
        part = np.matmul(split.transpose(3, 0, 1, 2, 4), weights.transpose(0, 2, 1)[:, None, None])
        total = total + part
    sums = np.moveaxis(total, 0, 3).reshape(*total.shape[1:4], outputs) + node.bias
    assert np.abs(sums).max(initial=0) < 2**31
    return _saturate(sums.astype(np.int32).astype(F32) * node.scale, graph.values[node.output])


def _lut(graph: Graph, node: LutNode, x: Ints) -> Ints:
    index = x.astype(np.int64) - np.iinfo(x.dtype).min
    if node.table.ndim == 1:
        return node.table[index]
    return node.table[np.arange(x.shape[3]), index]


def _real(graph: Graph, name: str, x: Ints) -> Floats:
    value = graph.values[name]
    if value.dtype == "f32":
        return x.astype(F32)
    assert value.scale is not None or value.dtype == "s32"  # whole numbers are what they are
    return (x.astype(np.int32) - value.zero).astype(F32) * F32(value.scale or 1.0)


def _quantized(real: Floats, value: Value) -> Ints:
    if value.dtype == "f32":
        return real.astype(F32)
    assert value.scale is not None
    with np.errstate(invalid="ignore"):
        steps = real.astype(F32) / F32(value.scale)
        return _saturate(np.where(np.isnan(steps), F32(-np.inf), steps), value)


_BINARY: dict[str, Callable[..., Floats]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": lambda a, b: np.power(a.astype(np.float64), b).astype(F32),
    "max": np.maximum,
    "min": np.minimum,
}


def _binary(graph: Graph, node: BinaryNode, *operands: Ints) -> Ints:
    real = [_real(graph, n, o) for n, o in zip(node.inputs, operands, strict=True)]
    target = graph.values[node.output].shape
    assert graph.values[node.inputs[0]].shape == target
    if node.constant is not None:
        is_real = node.constant.dtype == F32
        sizes = node.constant.shape
        fits = [n in (1, whole) for n, whole in zip(sizes, target, strict=True)]
        assert all(fits) if is_real else sizes == target
        whole_numbers = node.constant if is_real else node.constant.astype(np.int32)
        centred = (whole_numbers - node.constant_zero).astype(F32)
        real.append(centred * F32(node.constant_scale))
    else:
        sizes = graph.values[node.inputs[1]].shape
        assert sizes[:2] in (target[:2], (1, 1))
        assert sizes[2] in (target[2], 1)
    with np.errstate(all="ignore"):
        return _quantized(_BINARY[node.op](real[0], real[1]), graph.values[node.output])


def _float_row(graph: Graph, node: RealNode, x: Ints) -> Ints:
    """In f64, rounded once."""
    real = _real(graph, node.inputs[0], x).astype(np.float64)
    with np.errstate(all="ignore"):
        y = np.asarray(_FLOATS[node.mnemonic](real))
    return _quantized(y.astype(F32), graph.values[node.output])


def _float_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _float_layer_norm(graph: Graph, node: FloatLayerNormNode, x: Ints) -> Ints:
    real = _real(graph, node.inputs[0], x).astype(np.float64)
    distance = real - real.mean(axis=-1, keepdims=True)
    root = np.sqrt(np.square(distance).mean(axis=-1, keepdims=True) + node.epsilon)
    y = distance / root * node.gain.astype(np.float64) + node.offset
    return _quantized(y.astype(F32), graph.values[node.output])


def _erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    t = 1 / (1 + 0.3275911 * np.abs(x))
    powers = t[..., None] ** np.arange(1, 6)
    tail = powers @ [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
    return np.asarray(np.sign(x) * (1 - np.exp(-np.square(x)) * tail))


_FLOATS: dict[str, Callable[[NDArray[np.float64]], Any]] = {
    "convert": lambda x: x,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "erf": _erf,
    "reducesum": lambda x: x.sum(axis=-1, keepdims=True),
    "reducemean": lambda x: x.mean(axis=-1, keepdims=True),
    "reducemax": lambda x: x.max(axis=-1, keepdims=True),
    "fsoftmax": _float_softmax,
}


def _pool(graph: Graph, node: PoolNode, x: Ints) -> Ints:
    if node.op == "max":
        windows = _windows(x, node, node.kernel, np.iinfo(x.dtype).min)
        return np.asarray(np.max([taken for _, _, taken in windows], axis=0))
    assert node.op == "sum"
    assert node.bias is not None
    assert node.scale is not None
    zero = graph.values[node.inputs[0]].zero
    windows = _windows(x.astype(np.int32), node, node.kernel, zero)
    sums = sum(taken for _, _, taken in windows) + node.bias
    return _saturate(sums.astype(F32) * node.scale, graph.values[node.output])


def _move(graph: Graph, node: MoveNode, *operands: Ints) -> Ints:
    flat = np.concatenate([o.reshape(len(o), -1) for o in operands], axis=1)
    assert node.index.max(initial=-1) < flat.shape[1]
    moved = np.where(node.index < 0, node.fill, flat[:, np.maximum(node.index, 0)])
    return moved.astype(_dtype(graph.values[node.output]))


def _lookup(graph: Graph, node: LookupNode, x: Ints) -> Ints:
    return node.table[x.reshape(len(x), -1)].reshape(len(x), *graph.values[node.output].shape)


def _softmax(graph: Graph, node: SoftmaxNode, x: Ints) -> Ints:
    distance = x.astype(np.int64) - x.max(axis=3, keepdims=True)
    powers = node.powers.astype(np.int64)[distance + 255]
    total = powers.sum(axis=3, keepdims=True)
    assert total.max() < 2**31
    return _quantized(powers.astype(F32) / total.astype(F32), graph.values[node.output])


def _log_softmax(graph: Graph, node: LogSoftmaxNode, x: Ints) -> Ints:
    distance = x.astype(np.int64) - x.max(axis=3, keepdims=True)
    powers = node.powers.astype(np.int64)[distance + 255]
    root = powers.sum(axis=3, keepdims=True).astype(F32) / F32(node.powers[255])
    for _ in range(10):
        root = np.sqrt(root)
    logarithm = F32(2048) * ((root - F32(1)) / (root + F32(1)))
    real = distance.astype(F32) * F32(node.scale) - logarithm
    return _quantized(real, graph.values[node.output])


def _select(graph: Graph, node: SelectNode, mask: Ints, *operands: Ints) -> Ints:
    assert graph.values[node.inputs[0]].zero == 0
    real = [_real(graph, n, o) for n, o in zip(node.inputs[1:], operands, strict=True)]
    if node.constant is not None:
        centred = (node.constant.astype(np.int32) - node.constant_zero).astype(F32)
        real.append(centred * F32(node.constant_scale))
    chosen = np.where((mask == 0) == node.is_inverted, real[0], real[1])
    return _quantized(chosen, graph.values[node.output])


def _layer_norm(graph: Graph, node: LayerNormNode, x: Ints) -> Ints:
    steps, count = x.astype(np.int64), x.shape[3]
    total = steps.sum(axis=3, keepdims=True)
    spread = count * (steps * steps).sum(axis=3, keepdims=True) - total * total
    root = np.sqrt(spread.astype(F32) + F32(node.epsilon))
    real = (count * steps - total).astype(F32) / root * node.gain + node.offset
    return _quantized(real, graph.values[node.output])


def _group_norm(graph: Graph, node: GroupNormNode, x: Ints) -> Ints:
    steps = x.astype(np.int64).reshape(*x.shape[:3], node.groups, x.shape[3] // node.groups)
    count = math.prod(x.shape[1:]) // node.groups
    total = steps.sum(axis=(1, 2, 4), keepdims=True)
    spread = count * (steps * steps).sum(axis=(1, 2, 4), keepdims=True) - total * total
    root = np.sqrt(spread.astype(F32) + F32(node.epsilon))
    real = ((count * steps - total).astype(F32) / root).reshape(x.shape) * node.gain + node.offset
    return _quantized(real, graph.values[node.output])


def _product(graph: Graph, node: ProductNode, a: Ints, b: Ints) -> Ints:
    left, right = (
        o.astype(np.int64) - graph.values[name].zero
        for name, o in zip(node.inputs, (a, b), strict=True)
    )
    sums = np.einsum("nrwk,nrko->nrwo", left, right)
    assert np.abs(sums).max(initial=0) < 2**31
    return _saturate(sums.astype(F32) * F32(node.scale), graph.values[node.output])


def _lrn(graph: Graph, node: LrnNode, x: Ints) -> Ints:
    value = graph.values[node.inputs[0]]
    steps = x.astype(np.int64) - value.zero
    before, after = (node.size - 1) // 2, node.size - 1 - (node.size - 1) // 2
    squares = np.pad(steps * steps, ((0, 0), (0, 0), (0, 0), (before, after)))
    sums = sum(squares[..., at : at + x.shape[3]] for at in range(node.size))
    norm = np.asarray(sums).astype(F32) * F32(node.factor) + F32(node.bias)
    root = {1.0: norm, 0.5: np.sqrt(norm), 0.75: np.sqrt(norm) * np.sqrt(np.sqrt(norm))}
    divisor = root.get(node.beta, norm ** F32(node.beta))
    real = steps.astype(F32) * F32(value.scale or 1.0) / divisor
    return _quantized(real, graph.values[node.output])


def _cell(graph: Graph, node: CellNode, *sums: Ints) -> Ints:
    """Row after row, by the evaluators of its steps."""
    rows = Graph((), (), (), node.rows)
    held = {
        name: np.repeat(first[None], len(sums[0]), axis=0) for name, (first, _) in node.kept.items()
    }
    made = []
    for at in range(sums[0].shape[1]):
        for name, (source, first) in node.slices.items():
            whole = sums[node.inputs.index(source)][:, at : at + 1]
            held[name] = whole[..., first : first + node.rows[name].shape[2]]
        for step in node.steps:
            operands = [held[name] for name in step.inputs]
            held[step.output] = _EVALUATORS[type(step)](rows, step, *operands)
        made.append(held[node.made[node.output]])
        held |= {name: held[following] for name, (_, following) in node.kept.items()}
    return np.concatenate(made, axis=1)


_EVALUATORS: dict[type[Node], Callable[..., Ints]] = {
    MatrixNode: _matrix,
    LutNode: _lut,
    LookupNode: _lookup,
    BinaryNode: _binary,
    PoolNode: _pool,
    MoveNode: _move,
    SelectNode: _select,
    SoftmaxNode: _softmax,
    LogSoftmaxNode: _log_softmax,
    LayerNormNode: _layer_norm,
    GroupNormNode: _group_norm,
    RealNode: _float_row,
    FloatLayerNormNode: _float_layer_norm,
    ProductNode: _product,
    LrnNode: _lrn,
    CellNode: _cell,
}


def run_onnx(
    model: onnx.ModelProto, feeds: dict[str, NDArray[Any]], inner: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    """All outputs of a model and its ``inner`` tensors, by onnxruntime as written."""
    work = onnx.ModelProto()
    work.CopyFrom(model)
    known = {value.name for value in (*work.graph.output, *work.graph.input)}
    infos = {value.name: value for value in work.graph.value_info}
    for name in dict.fromkeys(inner):
        if name not in known:
            work.graph.output.append(infos[name])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        work.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return {**feeds, **dict(zip(names, session.run(names, feeds), strict=True))}


@dataclass(frozen=True)
class Difference:
    """How the Graph and onnxruntime differ in one value: steps, elements, elements in all."""

    largest: int
    count: int
    size: int


def differences(imported: Imported, feeds: dict[str, NDArray[Any]]) -> dict[str, Difference]:
    """Compare every value of the graph with its tensor of the reference.

    Each node gets onnxruntime's own integers as inputs, so that a difference of one node does
    not show in the next ones.
    """
    graph = imported.graph
    names = tuple(value.onnx_name for value in graph.values.values())
    tensors = run_onnx(imported.reference, feeds, names)
    wanted = {name: to_machine(value, tensors[value.onnx_name]) for name, value in
              graph.values.items()}  # fmt: skip
    found = {}
    for name in graph.inputs:
        assert graph.values[name].onnx_name in tensors
    for node in graph.nodes:
        single = Graph(node.inputs, (node.output,), (node,), graph.values)
        result = evaluate_graph(single, {name: wanted[name] for name in node.inputs})[node.output]
        if result.dtype == F32:  # in another order of sums a last bit may differ, once in 1e8
            expected = wanted[node.output]
            near = np.isclose(result, expected, rtol=1.2e-7, atol=0, equal_nan=True)
            found[node.output] = Difference(int(not near.all()), int((~near).sum()), near.size)
            continue
        steps = np.abs(result.astype(np.int64) - wanted[node.output].astype(np.int64))
        found[node.output] = Difference(
            int(steps.max(initial=0)), int(np.count_nonzero(steps)), steps.size
        )
    return found


def to_machine(value: Value, tensor: NDArray[Any]) -> Ints:
    """A tensor of the reference as [images, rows, columns, channels]."""
    images = len(tensor) if value.batched else 1
    whole = tensor.reshape(images, *value.onnx_shape)
    order = (0, *(axis + 1 for axis in value.order))
    return np.ascontiguousarray(whole.transpose(order)).reshape(images, *value.shape)


def check_model(
    model: onnx.ModelProto | bytes,
    *,
    images: int = 3,
    seed: int = 0,
    options: FrontendOptions | None = None,
    feeds: dict[str, NDArray[Any]] | None = None,
    tolerance: int = 0,
) -> Imported:
    """Import a model with random calibration data and demand that the Graph equals onnxruntime.

    tolerance: steps allowed in the values of LRN (its power); everything else must be equal.
    Returns the import, for further questions.
    """
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    feeds = feeds or random_feeds(proto, images, seed)
    imported = import_model(model, feeds, options)
    makers = imported.graph.producers()
    for name, difference in differences(imported, feeds).items():
        is_loose = isinstance(makers[name], LrnNode)
        allowed = tolerance if is_loose else 0
        assert difference.largest <= allowed, f"`{name}` differs: {difference}"
    return imported


def random_feeds(model: onnx.ModelProto, images: int, seed: int) -> dict[str, NDArray[Any]]:
    """Normal noise for float inputs, all integers for 8-bit ones; a dynamic or 1 batch: images."""
    random = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for port in model.graph.input:
        if port.name in constants:
            continue
        sizes = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        shape = (images, *sizes[1:])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
        if dtype == np.float32:
            feeds[port.name] = random.normal(0, 1, shape).astype(np.float32)
        elif np.dtype(dtype).itemsize > 1:  # row numbers
            feeds[port.name] = random.integers(0, 3, shape).astype(dtype)
        else:
            info = np.iinfo(dtype)
            feeds[port.name] = random.integers(info.min, info.max, shape, dtype, endpoint=True)
    return feeds
