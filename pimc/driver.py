"""The driver: from a model file to a proved program, and to a program folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

from isa import container, verify
from isa.assembly import data_arrays, parse_with_source
from isa.diagnostics import Diagnostic, PimError
from isa.phases import Phases
from isa.printer import print_program
from isa.program import Program
from isa.target import Target
from passes.base import Pass
from passes.graph import Graph
from passes.manager import apply_passes
from passes.mapping import Mapping as Mapped
from passes.mesh_place import DEFAULT_METHOD, placed_like
from passes.phases import DEFAULT_BATCH, cut_phases
from passes.pipelines import DEFAULT_MAPPING, pipeline
from passes.schedule import Schedule
from pimc.capacity import fit_tables, instruction_warnings, memory_warnings
from pimc.compress import CompressionReport, Spec, compress
from pimc.data import Array
from pimc.frontend.bound import with_bound
from pimc.frontend.build import FrontendOptions, Imported, import_shapes
from pimc.frontend.load import ModelSource, load_model
from pimc.model_files import bound_report, model_files
from pimc.placement import placement
from pimc.proof import check_conversions, check_reconstruction, dense_columns
from pimc.replication import DEFAULT_POLICY, choose_copies
from pimc.report import document, program_figures

Progress = Callable[[str], None]


@dataclass(frozen=True)
class CompileOptions:
    """What a user may choose.

    tiles: cores of the chip: None for the target's own, "auto" to grow the mesh until the model
    fits, or a number. allow_clipping: compile although a conversion may saturate (lossy).
    compress: lossy changes of the weights before they are quantized, refitted on the calibration.
    place: of the cores on the mesh, one of `passes.mesh_place.METHODS`. phases: "auto" to run a
    model that does not fit in parts, the crossbars written anew for each. batch: images for which
    the parts are chosen; each of them takes its share of the writing. replicate:
    how the cores that are left are given to copies of layers, one of `passes.replicate.POLICIES`;
    budget: the crossbars that copies may take together, those of the chip by default.
    """

    frontend: FrontendOptions = field(default_factory=FrontendOptions)
    mapping: str = DEFAULT_MAPPING
    tiles: int | str | None = None
    allow_clipping: bool = False
    compress: tuple[Spec, ...] = ()
    place: str = DEFAULT_METHOD
    phases: str = "never"
    batch: int = DEFAULT_BATCH
    replicate: str = DEFAULT_POLICY
    budget: int | None = None


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program, or phases, as parsed back from the text, and all that belongs to it.

    seconds: time of each step. report: what `pimc compile --json` prints.
    """

    whole: Program | Phases
    target: Target
    reference: onnx.ModelProto
    float_model: onnx.ModelProto
    report: dict[str, Any]
    seconds: dict[str, float]
    warnings: tuple[Diagnostic, ...]

    @property
    def program(self) -> Program:
        """The program; of phases, what the whole takes and gives (no cores)."""
        return self.whole if isinstance(self.whole, Program) else self.whole.interface

    def save(self, path: str | Path) -> None:
        """Write the program folder ``path``; nothing is left behind when that fails."""
        files = model_files(self.reference, self.float_model, self.report)
        container.save(path, self.whole, self.target, files)


def compile_model(
    model: ModelSource,
    target: Target,
    calibration: Mapping[str, Array] | None = None,
    options: CompileOptions | None = None,
    progress: Progress = lambda phase: None,
) -> Compiled:
    """Compile a model; the result has been printed, parsed, verified and proved.

    calibration: float samples [n, ...] by input name. Raises PimError: F2xx for the model, M6xx
    when it does not fit, X801 when the blocks do not give the weights back.
    """
    options = options or CompileOptions()
    samples = () if calibration is None else (calibration,)
    shapes = (options.frontend.input_shapes,)
    return compile_shapes(model, shapes, target, samples, options, progress)[0]


def compile_shapes(
    model: ModelSource,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    target: Target,
    calibration: Sequence[Mapping[str, Array]] = (),
    options: CompileOptions | None = None,
    progress: Progress = lambda phase: None,
) -> tuple[Compiled, ...]:
    """Compile a model once for each of several input shapes: one chip, the same integers.

    shapes: full shapes by input name, in the place of those of ``options``. The first one decides
    mappings and places; parts have room in all of them. calibration: sample sets, each of one of
    the shapes; there is one set of scales for all. Raises PimError as ``compile_model``.
    """
    options = options or CompileOptions()
    phase = Clock(progress)
    if isinstance(options.tiles, int):
        target = target.with_cores(options.tiles)
    imported, lossy = _imported(model, shapes, calibration, options, phase)
    made = _programs([each.graph for each in imported], target, options, phase)
    if options.tiles == "auto":
        target = target.with_mesh(max(len(p.cores) for programs in made for p in programs))
    with phase("fit tables"):
        fits = []
        for each, programs in zip(imported, made, strict=True):
            target, notes = _fitting(programs, each.graph, target)
            fits.append(replace(each, warnings=(*each.warnings, *notes)))
    return tuple(
        _compiled(each, programs, target, options, lossy, phase)
        for each, programs in zip(fits, made, strict=True)
    )


def _compiled(
    imported: Imported,
    programs: list[Program],
    target: Target,
    options: CompileOptions,
    lossy: CompressionReport | None,
    phase: Clock,
) -> Compiled:
    """The programs of one input shape for the chip that they all run on, proved."""
    programs = [replace(program, target_sha256=target.sha256) for program in programs]
    programs = [_proved(program, target, options, phase) for program in programs]
    whole = _whole(programs, imported.graph)
    with phase("prove text"):
        cores = tuple(core for program in programs for core in program.cores)
        check_reconstruction(replace(programs[0], cores=cores), imported.graph)
    report = _report(programs, target, imported, options, phase)
    if options.frontend.bind:
        report["bound"] = bound_report(options.frontend.bind)
    if lossy is not None:
        report["compression"] = lossy.as_json()
    return Compiled(
        whole,
        target,
        imported.reference,
        imported.float_model,
        report,
        phase.seconds,
        imported.warnings,
    )


def _programs(
    graphs: Sequence[Graph], target: Target, options: CompileOptions, clock: Clock
) -> list[list[Program]]:
    """For each input shape one program, or one for each phase.

    The cut into phases needs the layers split, and nothing later. Layers with the same weights
    are mapped once, and their cores have the same places in all programs.
    """
    grow = options.tiles == "auto"
    mapper, split, _, place = pipeline(target, options.mapping, grow, options.place, tuple(graphs))
    made: list[list[Program]] = []
    for mapping in _mappings(graphs, target, (mapper, split), clock):
        parts: tuple[Mapped, ...] = (mapping,)
        if options.phases != "never" and not grow:
            with clock("cut phases"):
                parts = cut_phases(mapping, options.batch)
        programs = []
        for number, part in enumerate(parts):
            program = _scheduled(part, target, options, clock)
            first = made[0][number] if made and number < len(made[0]) else None
            with clock(place.name):
                placed = None if first is None else placed_like(program, first)
                programs.append(place.run(program) if placed is None else placed)
        made.append(programs)
    return made


def _mappings(
    graphs: Sequence[Graph],
    target: Target,
    passes: tuple[Pass[Graph, Mapped], Pass[Mapped, Mapped]],
    clock: Clock,
) -> Iterator[Mapped]:
    """The mapping of each graph, split; what an earlier one has mapped is taken from there."""
    known = Mapped(graphs[0], target)
    for graph in graphs:
        had = known.over(graph)
        rest = replace(graph, nodes=tuple(n for n in graph.nodes if n.name not in had.layers))
        mapped = replace(apply_passes(rest, passes[:1], clock), graph=graph)
        split = apply_passes(mapped, passes[1:], clock)
        known = replace(known, layers=known.layers | split.layers)
        yield known.over(graph)


def _scheduled(mapping: Mapped, target: Target, options: CompileOptions, clock: Clock) -> Program:
    """The program of a mapping, with copies of layers where they were asked for."""
    schedule = Schedule(options.tiles == "auto")
    with clock(schedule.name):
        program = schedule.run(mapping)
    if options.replicate == "none":
        return program
    chip = target.with_mesh(len(program.cores)) if schedule.grow else target
    with clock("replicate"):
        copies = choose_copies(program, mapping, chip, options.replicate, options.budget)
    with clock(schedule.name):
        return replace(schedule, copies=copies).run(mapping)


def _fitting(
    programs: list[Program], graph: Graph, target: Target
) -> tuple[Target, list[Diagnostic]]:
    """The target that holds the tables of all programs, and what has to be said about it."""
    notes: list[Diagnostic] = []
    for program in programs:
        _, target, found = fit_tables(program, graph, target)
        notes += [*found, *instruction_warnings(program, target), *memory_warnings(program, target)]
    return target, notes


def _proved(program: Program, target: Target, options: CompileOptions, clock: Clock) -> Program:
    """The program as its text says it, found sound."""
    with clock("print and parse"):
        text, arrays = print_program(program), data_arrays(program)
        made = program
        program, source = parse_with_source(text, arrays, "program.pim")
        program = container.with_models(program, made)
    with clock("verify text"):
        verify.check(program, target, source)
        if not options.allow_clipping:
            check_conversions(program, target)
    return program


def _whole(programs: list[Program], graph: Graph) -> Program | Phases:
    """The one program, or the phases, checked against each other."""
    if len(programs) == 1:
        return programs[0]
    stored = [tensor for program in programs for tensor in program.tensors]
    names = {t.onnx_name: t.name for t in stored if t.role == "output"}
    phases = Phases(tuple(programs), tuple(names[name] for name in graph.outputs))
    phases.check()
    return phases


def _imported(
    model: ModelSource,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    calibration: Sequence[Mapping[str, Array]],
    options: CompileOptions,
    phase: Clock,
) -> tuple[list[Imported], CompressionReport | None]:
    """The model in every shape, compressed where that was asked for.

    The float model of a compressed one is the one that was given.
    """
    if not options.compress:
        with phase("import"):
            return import_shapes(model, shapes, calibration, options.frontend), None
    if not calibration:
        hint = "give samples with --calib FILE.npz, best a few hundred of the training set"
        raise PimError(
            Diagnostic("U951", "compression refits on samples; there are none", hint=hint)
        )
    with phase("compress"):
        original = with_bound(load_model(model), options.frontend.bind)
        done = compress(original, calibration[0], options.compress)
    with phase("import"):
        frontend = replace(options.frontend, bind={})
        imported = import_shapes(done.model, shapes, calibration, frontend)
    return [replace(each, float_model=original) for each in imported], done.report


def _report(
    programs: list[Program],
    target: Target,
    imported: Imported,
    options: CompileOptions,
    clock: Clock,
) -> dict[str, Any]:
    """The document of `pimc compile --json`, without the hashes of the inputs.

    Of phases the figures are sums, but a core counts once however often it is written.
    """
    found = [program_figures(program, target) for program in programs]
    sums = {name: sum(figures[name] for figures in found) for name in found[0]}
    once = {name: max(figures[name] for figures in found) for name in ("cores", "cores_available")}
    places = placement(imported.graph, imported.on_host, programs)
    figures = {
        "mapping": options.mapping,
        "replicate": options.replicate,
        "reconstructs": True,  # compile_model has raised otherwise
        "may_clip": options.allow_clipping,
        "phases": len(programs),
        **sums,
        **once,
        "dense_columns": dense_columns(imported.graph, target),
        "host_mac_share": places["mac_share"]["host"],
        "placement": places,
        "warnings": [warning.as_json() for warning in imported.warnings],
        "compile_s": round(sum(clock.seconds.values()), 3),
    }
    return document("compile", figures, target)


class Clock:
    """Seconds of each phase; a phase that comes again adds up."""

    def __init__(self, progress: Progress = lambda phase: None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._progress(phase)
        since = perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - since
