"""Build: from an ONNX model of any kind to the integer reference model and the Graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from isa.diagnostics import Diagnostic, Location, PimError
from passes.graph import Graph
from pimc.frontend.annotate import annotate
from pimc.frontend.assign import assign
from pimc.frontend.batch import spread_batch
from pimc.frontend.bound import with_bound
from pimc.frontend.calibrate import Method
from pimc.frontend.emit.reference import write_reference
from pimc.frontend.entries import enter_numbers
from pimc.frontend.expand import expand
from pimc.frontend.fold import fold_constants
from pimc.frontend.grids import warn_of_grids
from pimc.frontend.input_shapes import lost_batches, open_batches
from pimc.frontend.islands import free_operands, mark_islands, quantize_before_moves
from pimc.frontend.load import OLDEST_RUNNABLE, ModelSource, load_model, opset_of
from pimc.frontend.lower.graph import lower
from pimc.frontend.masks import spell_masks
from pimc.frontend.net import Array, Net, build_net
from pimc.frontend.normalize import Normalized, normalize, upgraded
from pimc.frontend.place import Stay, host_warnings, place
from pimc.frontend.ranges import Limits, Planned, common_ranges, planned, sorted_sets
from pimc.frontend.recurrent import sequence_of_images
from pimc.frontend.regions import plan
from pimc.frontend.simplify import simplify
from pimc.frontend.supported import check_net, refuse_other_types


@dataclass(frozen=True)
class FrontendOptions:
    """What a user may choose about the import.

    input_shapes: full shape by input name, for inputs with dynamic axes besides the batch.
    calibration_method: how ranges come from data. per_channel: a weight scale per output channel.
    seed: of the random calibration data that is drawn when none is given. use_host: let the host
    run what the chip cannot; else such a model is refused. is_reference: the model is the
    ``reference.onnx`` of a program, which is taken as it is. bind: values of inputs
    that are weights.
    """

    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    calibration_method: Method = "minmax"
    per_channel: bool = True
    seed: int = 0
    use_host: bool = True
    is_reference: bool = False
    bind: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Imported:
    """What the frontend hands on.

    graph: for the passes. reference: the integer model that the program must equal, for
    onnxruntime. float_model: the user's model as loaded, for the distance to the float network
    (below opset 7 upgraded, because onnxruntime runs nothing older). on_host: what stays there.
    """

    graph: Graph
    reference: onnx.ModelProto
    float_model: onnx.ModelProto
    on_host: tuple[Stay, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()


def import_model(
    model: ModelSource,
    calibration: Mapping[str, Array] | None = None,
    options: FrontendOptions | None = None,
) -> Imported:
    """Import a float, QDQ or QOperator model.

    calibration: samples [n, ...] by input name; only float tensors need them.
    Raises PimError with every finding of the stage that refuses the model (codes F2xx).
    """
    options = options or FrontendOptions()
    samples = () if calibration is None else (calibration,)
    return import_shapes(model, (options.input_shapes,), samples, options)[0]


def import_shapes(
    model: ModelSource,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    calibration: Sequence[Mapping[str, Array]],
    options: FrontendOptions,
) -> list[Imported]:
    """Import a model once for each of several input shapes, all with one quantization.

    shapes: in the place of ``options.input_shapes``. calibration: sample sets, each of one of the
    shapes; see `pimc.frontend.ranges`. Raises PimError as ``import_model`` does.
    """
    file = None if isinstance(model, onnx.ModelProto | bytes) else str(model)
    try:
        loaded = load_model(model)
        if options.is_reference:
            return [Imported(_relowered(loaded), loaded, loaded) for _ in shapes]
        if options.bind:
            loaded = with_bound(loaded, options.bind)
        if (opset_of(loaded) or OLDEST_RUNNABLE) < OLDEST_RUNNABLE:
            loaded = upgraded(loaded)
        refuse_other_types(loaded)
        prepared = [_prepared(loaded, shape, options, len(shapes) > 1) for shape in shapes]
        plans = [planned(net) for net, _ in prepared]
        method, seed = options.calibration_method, options.seed
        ranges = common_ranges(plans, calibration, method, seed)
        sets = sorted_sets(plans, calibration)
        return [
            _imported(each, stays, ranges, data, loaded, options)
            for each, (_, stays), data in zip(plans, prepared, sets, strict=True)
        ]
    except PimError as error:
        raise PimError(_in_file(diagnostic, file) for diagnostic in error.diagnostics) from error


def _relowered(reference: onnx.ModelProto) -> Graph:
    """The graph of a model that should be a reference; another may lack anything."""
    try:
        return lower(reference)
    except (AssertionError, AttributeError, LookupError, StopIteration, ValueError) as error:
        text = "the model is not a reference model as pimc writes them"
        raise PimError(Diagnostic("F204", text)) from error


def _prepared(
    model: onnx.ModelProto,
    shape: Mapping[str, Sequence[int]],
    options: FrontendOptions,
    is_one_of_several: bool,
) -> tuple[Net, tuple[Stay, ...]]:
    """As ``_prepare``; what is refused says in which of several shapes."""
    try:
        return _prepare(model, replace(options, input_shapes=shape))
    except PimError as error:
        if not is_one_of_several:
            raise
        said = ",".join(f"{name}={','.join(map(str, sizes))}" for name, sizes in shape.items())
        raise PimError(
            replace(found, message=f"{found.message} (with --input-shape {said})")
            for found in error.diagnostics
        ) from error


def _imported(
    plan: Planned,
    stays: tuple[Stay, ...],
    ranges: Limits,
    data: Mapping[str, Array] | None,
    model: onnx.ModelProto,
    options: FrontendOptions,
) -> Imported:
    net = plan.net
    qparams = assign(net, plan.steps, plan.held, ranges)
    warn_of_grids(net, qparams, plan.unknown, data, options.seed)
    reference = write_reference(net, plan.steps, qparams, options.per_channel)
    graph = lower(reference)
    notes = (*net.notes, *host_warnings(graph, stays))
    return Imported(graph, reference, model, stays, notes)


def _in_file(diagnostic: Diagnostic, file: str | None) -> Diagnostic:
    """Say which file a finding is about, where only its node was known."""
    at = diagnostic.at or Location()
    return diagnostic if at.file or not file else replace(diagnostic, at=replace(at, file=file))


def _prepare(model: onnx.ModelProto, options: FrontendOptions) -> tuple[Net, tuple[Stay, ...]]:
    """The checked net, and what stays on the host.

    A fixed leading size counts as the batch where the images stay apart.
    """
    shapes = options.input_shapes
    try:
        normalized = normalize(model, shapes)
    except PimError as error:
        if all(diagnostic.code != "F204" for diagnostic in error.diagnostics):
            raise
        normalized = normalize(model, shapes, split_batch=False)
    try:
        net, stays = _placed(normalized, options)
    except PimError:  # perhaps only at batch 1
        if not normalized.is_split:
            raise
        normalized = normalize(model, shapes, split_batch=False)
        net, stays = _placed(normalized, options)
    if _cuts_sequences(net, open_batches(model, shapes, normalized.batched)):
        normalized = normalize(model, shapes, split_batch=False)
        net, stays = _placed(normalized, options)
    lost = {port.name for port in net.outputs if port.tensor in net.batched}
    if lost:
        ports = net.outputs if normalized.is_split else []
        known = {port.name: net.shapes.get(port.tensor, ()) for port in ports}
        sizes = {name: math.prod(shape) for name, shape in known.items()}
        lost &= lost_batches(model, shapes, normalized.batched, sizes)
    keeps = net.output_tensors() <= net.batched and not stays  # who knows what the host mixes
    if lost and not normalized.is_split:
        names = ", ".join(f"`{name}`" for name in sorted(lost))
        text = f"the images of a batch do not stay apart on the way to output {names}"
        hint = "give the whole shape of the inputs with --input-shape, the batch included"
        raise PimError(Diagnostic("F205", text, hint=hint))
    if normalized.is_split and (lost or not keeps):
        net, stays = _placed(normalize(model, shapes, split_batch=False), options)
    check_net(net, plan(net))
    return net, stays


def _cuts_sequences(net: Net, named: Mapping[str, bool]) -> bool:
    """Whether images of the batch are the elements of a sequence, whose length is given.

    named: inputs with an open leading axis, and whether its size is given. Raises PimError F205
    when none is.
    """
    layer = sequence_of_images(net) if named else None
    if layer is not None and not any(named.values()):
        text = f"{layer}: the axis of its sequence is the open one of the batch"
        hint = f"give its length with --input-shape {next(iter(named))}=24,..."
        raise PimError(Diagnostic("F205", text, hint=hint))
    return layer is not None


def _placed(normalized: Normalized, options: FrontendOptions) -> tuple[Net, tuple[Stay, ...]]:
    net = _annotated(normalized)
    if options.use_host:
        return net, place(net)
    mark_islands(net)
    return net, ()


def _annotated(normalized: Normalized) -> Net:
    net = build_net(normalized.model, normalized.outputs, normalized.batched)
    for note in normalized.notes:
        net.notes.add(note)
    fold_constants(net)
    annotate(net)
    enter_numbers(net)
    fold_constants(net)
    spell_masks(net)
    expand(net)
    simplify(net)
    quantize_before_moves(net)
    free_operands(net)
    spread_batch(net)
    return net
