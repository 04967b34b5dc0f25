"""The Python face of programs for several input shapes: compile, run, verify, save and load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from isa import verify as verifier
from isa.container import LoadedPhases
from isa.folder import shape_folder
from isa.shape_container import load_shapes as load_programs
from isa.shape_container import save_shapes, shape_of
from isa.shapes import Shape
from isa.target import DEFAULT_TARGET, Target, load_target
from pimc import api
from pimc.api import CompiledProgram, Samples
from pimc.data import Array
from pimc.driver import CompileOptions
from pimc.driver import compile_shapes as compile_models
from pimc.model_files import load_models, load_report, reference_file, shared_model_files
from pimc.shapes import pick, shapes_report


class CompiledShapes:
    """Programs of one model for several input shapes, which share weights and quantization.

    report: what `pimc compile --json` prints; empty for programs that were not compiled here.
    """

    def __init__(
        self, programs: Sequence[CompiledProgram], report: Mapping[str, Any] | None = None
    ) -> None:
        self.programs = tuple(programs)
        self.report: dict[str, Any] = dict(report or {})

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What each of the programs is for."""
        return tuple(shape_of(program.whole) for program in self.programs)

    def program_for(self, feeds: Samples) -> CompiledProgram:
        """The program for samples of this shape. Raises PimError R706 when there is none."""
        return self.programs[pick(self.shapes, None, api.arrays_of(feeds))]

    def run(self, feeds: Samples, jobs: int = 1) -> dict[str, Array]:
        """As `CompiledProgram.run`, by the program for the shape of the samples."""
        return self.program_for(feeds).run(feeds, jobs)

    __call__ = run

    def verify(self, data: Samples, per_layer: bool = True) -> dict[str, Any]:
        """As `CompiledProgram.verify`, of the program for the shape of the samples."""
        return self.program_for(data).verify(data, per_layer)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the folder of all programs, or nothing. Raises PimError C508, C509."""
        references = [each.reference for each in self.programs if each.reference is not None]
        files = shared_model_files(references, self.programs[0].float_model, self.report)
        wholes = [each.whole for each in self.programs]
        save_shapes(Path(path), wholes, self.programs[0].target, files)


def compile_shapes(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    target: str | os.PathLike[str] | Target = DEFAULT_TARGET,
    calibration: Sequence[Samples] = (),
    options: CompileOptions | None = None,
) -> CompiledShapes:
    """Compile a model for several input shapes; every program is verified and proved.

    shapes: full shapes by input name, at least two. calibration: sample sets, each of one of the
    shapes; all programs have the same scales. options: everything else, as `pimc compile` has it.
    Raises PimError with all findings of the stage that refuses.
    """
    chip = target if isinstance(target, Target) else load_target(str(target))
    sets = [api.arrays_of(samples) for samples in calibration]
    done = compile_models(model, shapes, chip, sets, options)
    programs = [
        CompiledProgram(each.whole, each.target, each.reference, each.float_model, each.report)
        for each in done
    ]
    return CompiledShapes(programs, shapes_report(done))


def load_shapes(path: str | os.PathLike[str]) -> CompiledShapes:
    """Read a folder of several shapes and verify its programs. Raises PimError C5xx, E3xx, V4xx."""
    folder = Path(path)
    programs = [
        _loaded(folder / shape_folder(number), held)
        for number, held in enumerate(load_programs(folder))
    ]
    return CompiledShapes(programs, load_report(folder))


def _loaded(folder: Path, held: LoadedPhases) -> CompiledProgram:
    verifier.check_phases(held.phases, held.target, held.sources)
    known = reference_file(folder).is_file()
    reference, float_model = load_models(folder) if known else (None, None)
    return CompiledProgram(held.whole, held.target, reference, float_model, load_report(folder))
