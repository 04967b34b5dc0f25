"""Channels: surgery on the ONNX graph that takes channels out, exactly where they are constant.

A channel whose filters are all zero has one value everywhere, whatever the image. Its share of
each reading layer is folded into that layer's bias; where the reading windows overlap padding, the
constant is missing there, and a position-dependent correction is added behind the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference

from passes.channel_prune import (
    ChannelPrune,
    ChannelUse,
    border_correction,
    folded_bias,
    keep_inputs,
    keep_outputs,
)
from pimc.compress.coupling import ChannelSet, channel_sets, shrink_reshape
from pimc.compress.layers import (
    MatrixLayer,
    find_layers,
    onnx_weights,
    read_layer,
    replace_tensor,
    windows,
    write_bias,
)
from pimc.compress.runner import Data, Runner

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Surgery:
    """A model with fewer channels. kept: indices that stayed, by the output tensor of each layer
    that lost some; removed: their number; total: channels of all sets that could have shrunk.
    """

    model: onnx.ModelProto
    kept: dict[str, NDArray[np.intp]]
    removed: int
    total: int


def prune_channels(model: onnx.ModelProto, pruning: ChannelPrune) -> Surgery:
    """Take the weakest channels of every set out. Lossy; nothing is folded or compensated.

    The last set of a network, its outputs, is never touched.
    """
    sets = channel_sets(model)
    return _operate(model, [pruning.run(_use(model, found)) for found in sets], sets)


def remove_constant_channels(model: onnx.ModelProto, data: Data) -> Surgery:
    """Take out every channel whose filters are all zero. Exact up to float32 rounding.

    data: one image or more; only the first is used, to read off the constants.
    """
    sets = channel_sets(model)
    kept = [_live(model, found) for found in sets]
    first = {name: array[:1] for name, array in data.items()}
    work = onnx.ModelProto()
    work.CopyFrom(model)
    corrections: list[tuple[MatrixLayer, Array]] = []
    for number, found in enumerate(sets):
        gone = np.setdiff1d(np.arange(found.size), kept[number])
        if not gone.size:
            continue
        folds = [_fold(model, layer, found.size, gone, first) for layer in found.consumed]
        if any(fold is None for fold in folds):
            kept[number] = np.arange(found.size)  # a padded pool in between: not constant
            continue
        for layer, fold in zip(found.consumed, folds, strict=True):
            assert fold is not None
            bias, border = fold
            write_bias(work, layer, read_layer(work, layer)[1] + bias)
            if border is not None:
                corrections.append((layer, border))
    done = _operate(work, kept, sets)
    for layer, border in corrections:
        _add_behind(done.model, layer, border[:, done.kept.get(layer.output, slice(None))])
    return done


def _use(model: onnx.ModelProto, found: ChannelSet) -> ChannelUse:
    produced = tuple(read_layer(model, layer)[0] for layer in found.produced)
    consumed = tuple(read_layer(model, layer)[0] for layer in found.consumed)
    return ChannelUse(found.size, produced, consumed)


def _live(model: onnx.ModelProto, found: ChannelSet) -> NDArray[np.intp]:
    """Channels that some producer's filter makes depend on the image; at least one."""
    live = np.zeros(found.size, np.bool_)
    for layer in found.produced:
        live |= np.any(read_layer(model, layer)[0] != 0, axis=(1, 2, 3))
    if not live.any():
        live[0] = True
    return np.flatnonzero(live)


def _fold(
    model: onnx.ModelProto, layer: MatrixLayer, size: int, gone: NDArray[np.intp], first: Data
) -> tuple[Array, Array | None] | None:
    """What the constant channels ``gone`` add to a layer: to its bias, and at its borders.

    Returns None where a channel is not constant over the layer's input image.
    """
    found = Runner(model, [layer.source, layer.output]).all(first)
    source, output = found[layer.source], found[layer.output]
    weights = keep_inputs(read_layer(model, layer)[0], gone, size)
    if layer.op_type == "Gemm":
        features = np.arange(layer.shape[1]).reshape(size, -1)[gone].ravel()
        return folded_bias(weights, source[0, features]), None
    images = source[:, gone].astype(np.float64)
    flat = images.swapaxes(0, 1).reshape(len(gone), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    if np.any(low != high):
        return None
    bias = folded_bias(weights, low)
    chunks = [
        columns[0] @ weights.reshape(len(weights), -1).T
        for columns, _ in windows(layer, images, output)
    ]
    shape = (*output.shape[2:], len(weights)) if layer.spatial == 2 else (1, -1, len(weights))
    response = np.concatenate(chunks).reshape(shape).transpose(2, 0, 1)
    border = border_correction(response, bias)
    return bias, None if border is None else border.reshape(1, *output.shape[1:])


def _operate(
    model: onnx.ModelProto, kept: list[NDArray[np.intp]], sets: list[ChannelSet]
) -> Surgery:
    """Cut all sets down to their kept channels; shapes are inferred anew."""
    work = onnx.ModelProto()
    work.CopyFrom(model)
    outputs: dict[str, NDArray[np.intp]] = {}
    inputs: dict[str, tuple[NDArray[np.intp], int]] = {}
    removed = 0
    for found, chosen in zip(sets, kept, strict=True):
        removed += found.size - len(chosen)
        if len(chosen) == found.size:
            continue
        outputs.update({layer.output: chosen for layer in (*found.produced, *found.depthwise)})
        inputs.update({layer.output: (chosen, found.size) for layer in found.consumed})
        for shape in dict.fromkeys(found.reshaped):
            shrink_reshape(work, shape, found.size, len(chosen))
    for layer in find_layers(model):
        if layer.output in outputs or layer.output in inputs:
            _cut(work, layer, outputs.get(layer.output), inputs.get(layer.output))
    del work.graph.value_info[:]
    total = sum(found.size for found in sets)
    return Surgery(shape_inference.infer_shapes(work), outputs, removed, total)


def _cut(
    work: onnx.ModelProto,
    layer: MatrixLayer,
    outputs: NDArray[np.intp] | None,
    inputs: tuple[NDArray[np.intp], int] | None,
) -> None:
    weights, bias = read_layer(work, layer)
    if inputs is not None:
        weights = keep_inputs(weights, *inputs)
    if outputs is not None:
        weights, bias = keep_outputs(weights, outputs), keep_outputs(bias, outputs)
    replace_tensor(work, layer.weight, onnx_weights(layer, weights).astype(np.float32))
    if layer.bias:
        write_bias(work, layer, bias)
    if layer.groups > 1 and outputs is not None:
        for attribute in work.graph.node[layer.index].attribute:
            if attribute.name == "group":
                attribute.i = len(outputs)


def _add_behind(model: onnx.ModelProto, layer: MatrixLayer, border: Array) -> None:
    """Add ``border`` [1, O, ...] to the output of a layer, by a node right behind it."""
    index = next(i for i, n in enumerate(model.graph.node) if layer.output in n.output)
    inner, constant = f"{layer.output}_inside", f"{layer.output}_border"
    model.graph.node[index].output[0] = inner
    node = helper.make_node("Add", [inner, constant], [layer.output], name=f"{layer.name}_border")
    model.graph.node.insert(index + 1, node)
    replace_tensor(model, constant, border.astype(np.float32))
