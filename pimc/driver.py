"""The driver: from a model file to a proved program, and to a program folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import onnx

from isa import container, verify
from isa.assembly import data_arrays, parse_with_source
from isa.diagnostics import Diagnostic, PimError
from isa.phases import Phases
from isa.printer import print_program
from isa.program import Program
from isa.target import Target
from passes.graph import Graph
from passes.manager import apply_passes
from passes.mapping import Mapping as Mapped
from passes.mesh_place import DEFAULT_METHOD
from passes.phases import DEFAULT_BATCH, cut_phases
from passes.pipelines import DEFAULT_MAPPING, pipeline
from passes.schedule import Schedule
from pimc.capacity import fit_tables, instruction_warnings
from pimc.compress import CompressionReport, Spec, compress
from pimc.data import Array
from pimc.frontend.build import FrontendOptions, Imported, import_model
from pimc.frontend.load import ModelSource, load_model
from pimc.placement import placement
from pimc.proof import check_conversions, check_reconstruction, dense_columns
from pimc.replication import DEFAULT_POLICY, choose_copies
from pimc.report import document, program_figures

Progress = Callable[[str], None]
MODEL_FILES: Final = ("reference.onnx", "float.onnx")
REPORT_FILE: Final = "report.json"


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


def model_files(
    reference: onnx.ModelProto | None,
    float_model: onnx.ModelProto | None,
    report: Mapping[str, Any],
) -> dict[str, bytes | Path]:
    """What stands in a program folder beside the program, by file name."""
    models = zip(MODEL_FILES, (reference, float_model), strict=True)
    files: dict[str, bytes | Path] = {
        name: model.SerializeToString() for name, model in models if model is not None
    }
    if report:
        files[REPORT_FILE] = (json.dumps(report, indent=2) + "\n").encode()
    return files


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
    phase = Clock(progress)
    if isinstance(options.tiles, int):
        target = target.with_cores(options.tiles)
    imported, lossy = _imported(model, calibration, options, phase)
    programs = _programs(imported.graph, target, options, phase)
    if options.tiles == "auto":
        target = target.with_mesh(max(len(program.cores) for program in programs))
    with phase("fit tables"):
        programs, target, notes = _fitted(programs, imported.graph, target)
    imported = replace(imported, warnings=(*imported.warnings, *notes))
    programs = [_proved(program, target, options, phase) for program in programs]
    whole = _whole(programs, imported.graph)
    with phase("prove text"):
        cores = tuple(core for program in programs for core in program.cores)
        check_reconstruction(replace(programs[0], cores=cores), imported.graph)
    report = _report(programs, target, imported, options, phase)
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


def _programs(graph: Graph, target: Target, options: CompileOptions, clock: Clock) -> list[Program]:
    """One program, or one for each phase. The cut needs the layers split, and nothing later."""
    grow = options.tiles == "auto"
    *front, _, place = pipeline(target, options.mapping, grow, options.place)
    mapping = apply_passes(graph, tuple(front), clock)
    parts: tuple[Mapped, ...] = (mapping,)
    if options.phases != "never" and not grow:
        with clock("cut phases"):
            parts = cut_phases(mapping, options.batch)
    programs = []
    for part in parts:
        program = _scheduled(part, target, options, clock)
        with clock(place.name):
            programs.append(place.run(program))
    return programs


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


def _fitted(
    programs: list[Program], graph: Graph, target: Target
) -> tuple[list[Program], Target, list[Diagnostic]]:
    """The programs for one target that holds the tables of all of them."""
    notes: list[Diagnostic] = []
    for program in programs:
        _, target, found = fit_tables(program, graph, target)
        notes += [*found, *instruction_warnings(program, target)]
    return [replace(p, target_sha256=target.sha256) for p in programs], target, notes


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
    calibration: Mapping[str, Array] | None,
    options: CompileOptions,
    phase: Clock,
) -> tuple[Imported, CompressionReport | None]:
    """The model, compressed where that was asked for; its float model is the one that was given."""
    if not options.compress:
        with phase("import"):
            return import_model(model, calibration, options.frontend), None
    if calibration is None:
        hint = "give samples with --calib FILE.npz, best a few hundred of the training set"
        raise PimError(
            Diagnostic("U951", "compression refits on samples; there are none", hint=hint)
        )
    with phase("compress"):
        original = load_model(model)
        done = compress(original, calibration, options.compress)
    with phase("import"):
        imported = import_model(done.model, calibration, options.frontend)
    return replace(imported, float_model=original), done.report


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


def load_models(path: str | Path) -> tuple[onnx.ModelProto, onnx.ModelProto | None]:
    """reference.onnx and float.onnx of a program folder. Raises PimError R705 for a damaged one."""
    reference = _load_model(Path(path) / "reference.onnx")
    if reference is None:
        raise PimError(
            Diagnostic(
                "R705",
                f"`{path}` has no reference.onnx, so there is nothing to verify it against",
                hint="programs made by `pimc asm` can be run, not verified",
            )
        )
    return reference, _load_model(Path(path) / "float.onnx")


def _load_model(file: Path) -> onnx.ModelProto | None:
    if not file.is_file():
        return None
    try:
        return onnx.load_from_string(file.read_bytes())
    except Exception as error:  # protobuf raises its own, undocumented classes
        raise PimError(Diagnostic("R705", f"`{file}` is damaged: {error}")) from error
