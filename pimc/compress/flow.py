"""Flow: lossy compression of a float ONNX model, layer by layer, on its real inputs.

Each layer is fitted to the outputs that the *original* network gives, from the inputs that the
*already compressed* earlier layers give, so later layers make up for what earlier ones lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, PimError
from passes.channel_prune import ChannelPrune
from passes.compensate import Statistics, to_sections
from pimc.compress.channels import Surgery, prune_channels
from pimc.compress.grid import hold_integers
from pimc.compress.layers import MatrixLayer, find_layers, read_layer, windows, write_layer
from pimc.compress.report import Accuracy, CompressionReport, LayerReport, top1
from pimc.compress.runner import Data, Runner, image_count
from pimc.compress.spec import ChannelSpec, Spec
from pimc.compress.treat import Grid, Plan, Treated, make_plans, treat

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images and their labels. data: arrays [images, ...] by input name; labels: int [images]."""

    data: Data
    labels: Array


@dataclass(frozen=True, eq=False)
class Compressed:
    """The new float model, the report, and the integer grids of translated weights.

    In the model those weights stand as int8 behind a DequantizeLinear, which the frontend keeps;
    ``grids`` has the same integers by weight name, in the layer's [O, C, rows, columns] form.
    """

    model: onnx.ModelProto
    report: CompressionReport
    grids: dict[str, Grid] = field(default_factory=dict)


@dataclass(eq=False)
class _Work:
    """Models under work: ``current`` is compensated, ``plain`` is not."""

    original: onnx.ModelProto
    current: onnx.ModelProto
    plain: onnx.ModelProto
    surgery: Surgery | None
    grids: dict[str, Grid] = field(default_factory=dict)
    reports: list[LayerReport] = field(default_factory=list)


def compress(
    model: onnx.ModelProto,
    calibration: Data,
    specs: Sequence[Spec],
    labelled: Labelled | None = None,
    compensate: bool = True,
    ridge: float = 1e-3,
) -> Compressed:
    """Apply lossy ``specs`` to a float model; ``model`` itself is not changed.

    calibration: images by input name, best a few hundred from the training set; arrays of other
    names, as labels, are passed over.
    compensate: re-solve what is left of each layer by least squares. ridge: how much of each
    input's power pulls the solution towards the weights as they are.
    Raises PimError U951 (data), U952 (no layer that the specs work on).
    """
    names = {port.name for port in model.graph.input}
    calibration = {name: array for name, array in calibration.items() if name in names}
    images = image_count(calibration)
    if labelled is not None and len(labelled.labels) != image_count(labelled.data):
        raise PimError(Diagnostic("U951", f"{len(labelled.labels)} labels do not fit the images"))
    work = _start(model, specs)
    layers = find_layers(work.current)
    if not layers:
        hint = "give the network in float32, as it was before it was converted or quantized"
        raise PimError(Diagnostic("U952", "no layer of the model has float32 weights", hint=hint))
    plans = make_plans(layers, [read_layer(work.current, one)[0] for one in layers], specs)
    if work.surgery is None and all(plan.is_dense for plan in plans):
        raise PimError(_nothing(specs))
    changed = work.surgery is not None
    sizes = {layer.output: layer for layer in find_layers(model)}
    for layer, plan in zip(layers, plans, strict=True):
        changed = changed or not plan.is_dense
        data = calibration if changed else None
        _step(work, layer, plan, data, compensate, ridge, sizes[layer.output])
    report = CompressionReport(
        specs=tuple(map(str, specs)),
        layers=tuple(work.reports),
        calibration_images=images,
        channels_removed=work.surgery.removed if work.surgery else 0,
        accuracy=None if labelled is None else _accuracy(work, labelled),
    )
    return Compressed(hold_integers(work.current, layers, work.grids), report, work.grids)


def collect(
    original: onnx.ModelProto,
    current: onnx.ModelProto,
    layer: MatrixLayer,
    data: Data,
    kept: NDArray[np.intp] | None = None,
) -> Statistics:
    """Statistics of a layer: inputs from ``current``, targets from ``original``.

    kept: the original's output channels that ``current`` still has; None for all. Memory does not
    grow with the number of images.
    """
    weights, bias = read_layer(current, layer)
    statistics = Statistics.empty(to_sections(weights, bias, layer.groups))
    axis = 1 if layer.op_type == "Conv" else -1
    inputs = Runner(current, [layer.source]).chunks(data)
    outputs = Runner(original, [layer.output]).chunks(data)
    for given, wanted in zip(inputs, outputs, strict=True):
        target = wanted[layer.output]
        if kept is not None:
            target = np.take(target, kept, axis=axis)
        for columns, aims in windows(layer, given[layer.source], target):
            statistics.add(columns, aims)
    return statistics


def _start(model: onnx.ModelProto, specs: Sequence[Spec]) -> _Work:
    surgery = None
    current = model
    for spec in specs:
        if isinstance(spec, ChannelSpec):
            surgery = prune_channels(current, ChannelPrune(spec.keep, spec.multiple))
            current = surgery.model
    copies = [onnx.ModelProto(), onnx.ModelProto()]
    for copy in copies:
        copy.CopyFrom(current)
    return _Work(model, copies[0], copies[1], surgery)


def _step(
    work: _Work,
    layer: MatrixLayer,
    plan: Plan,
    data: Data | None,
    compensate: bool,
    ridge: float,
    before: MatrixLayer,
) -> None:
    """Treat one layer, write it into both models, and note what it cost. data: None where
    neither the layer nor its inputs change.
    """
    weights, bias = read_layer(work.current, layer)
    statistics = None
    if data is not None:
        kept = None if work.surgery is None else work.surgery.kept.get(layer.output)
        statistics = collect(work.original, work.current, layer, data, kept)
    done = treat(layer, weights, bias, plan, statistics if compensate else None, ridge)
    if data is not None:
        write_layer(work.current, layer, done.weights, done.bias)
        write_layer(work.plain, layer, done.plain, bias)
    if done.grid is not None:
        work.grids[layer.weight] = done.grid
    work.reports.append(_report(layer, before, plan, done, statistics, bias))


def _report(
    layer: MatrixLayer,
    before: MatrixLayer,
    plan: Plan,
    done: Treated,
    statistics: Statistics | None,
    bias: Array,
) -> LayerReport:
    errors: list[float | None] = [None, None]
    if statistics is not None:
        pairs = ((done.plain, bias), (done.weights, done.bias))
        errors = [statistics.relative_error(to_sections(w, b, layer.groups)) for w, b in pairs]
    size, kept = int(np.prod(before.shape)), int(done.mask.sum())
    treatment = plan.describe()
    return LayerReport(
        layer.name, layer.op_type, treatment, size, kept, done.stored, errors[0], errors[1]
    )


def _accuracy(work: _Work, labelled: Labelled) -> Accuracy:
    name = work.original.graph.output[0].name
    original, plain, current = (
        top1(Runner(model, [name]).all(labelled.data)[name], labelled.labels)
        for model in (work.original, work.plain, work.current)
    )
    return Accuracy(len(labelled.labels), original, plain, current)


def _nothing(specs: Sequence[Spec]) -> Diagnostic:
    kinds = ", ".join(spec.kind for spec in specs) or "none"
    return Diagnostic(
        "U952",
        f"no layer of the model is of the kind that the compression works on ({kinds})",
        hint="pattern pruning wants 3x3 convolutions; end layers need first=yes or last=yes",
    )
