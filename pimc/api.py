"""The Python face: compile a model, run it, verify it, save and load it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike

from isa import container
from isa import verify as verifier
from isa.diagnostics import Diagnostic, PimError
from isa.phases import Phases
from isa.printer import print_program
from isa.program import Program, Tensor
from isa.target import DEFAULT_TARGET, Target, load_target
from passes.mesh_place import DEFAULT_METHOD
from passes.phases import DEFAULT_BATCH
from passes.pipelines import DEFAULT_MAPPING
from pimc.check import verify_program
from pimc.compress import parse_compression
from pimc.data import (
    LABELS,
    Array,
    check_feeds,
    labels_of,
    ports,
    random_feeds,
    read_data,
    to_machine,
    to_onnx,
    to_real,
)
from pimc.driver import CompileOptions, compile_model
from pimc.frontend.build import FrontendOptions
from pimc.frontend.calibrate import Method
from pimc.frontend.precision import elements_of
from pimc.host import host_of
from pimc.model_files import load_models, load_report, model_files, reference_file, refuse_bound
from runtime.counters import Counters
from runtime.machine import Machine
from runtime.phased import PhasedMachine, machine_of

DEFAULT_SAMPLES = 16  # random ones, when a check is given no data
Samples = Mapping[str, ArrayLike] | str | os.PathLike[str]


class CompiledProgram:
    """A program or phases with the target, the reference model and a machine to run them on.

    report: what `pimc compile --json` prints; empty for a program that was not compiled here.
    """

    def __init__(
        self,
        whole: Program | Phases,
        target: Target,
        reference: onnx.ModelProto | None = None,
        float_model: onnx.ModelProto | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self.whole, self.target = whole, target
        self.reference, self.float_model = reference, float_model
        self.report: dict[str, Any] = dict(report or {})
        self._machine: Machine | PhasedMachine | None = None

    @property
    def program(self) -> Program:
        """The program; of phases, what the whole takes and gives (no cores)."""
        return self.whole if isinstance(self.whole, Program) else self.whole.interface

    @property
    def input_tensors(self) -> list[Tensor]:
        """The program's inputs in the order of the model."""
        return ports(self.program, "input")

    @property
    def output_tensors(self) -> list[Tensor]:
        """The program's outputs in the order of the model."""
        return ports(self.program, "output")

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape without the batch axis by ONNX input name."""
        return {tensor.onnx_name: tensor.onnx_shape for tensor in self.input_tensors}

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Shape without the batch axis by ONNX output name."""
        return {tensor.onnx_name: tensor.onnx_shape for tensor in self.output_tensors}

    def text(self) -> str:
        """The program as people read it, phase after phase."""
        if isinstance(self.whole, Program):
            return print_program(self.whole)
        return "\n".join(print_program(program) for program in self.whole.programs)

    def run(self, feeds: Samples, jobs: int = 1) -> dict[str, Array]:
        """Outputs for samples [n, ...] of every input, by ONNX name; floats in, floats out.

        Outputs have the element types of the model that was compiled, those of the machine
        where it is not known.

        feeds: arrays by input name, or an npz file; ``labels`` in it are passed over.
        jobs: processes that run the images; the outputs do not depend on it.
        Raises PimError R702, R703 with everything that is wrong with the feeds.
        """
        return self.run_and_count(feeds, jobs)[0]

    def run_and_count(self, feeds: Samples, jobs: int = 1) -> tuple[dict[str, Array], Counters]:
        """As ``run``, and what happened on the machine, over all samples and by layer."""
        given = arrays_of(feeds)
        if labels_of(self.program, given) is not None:
            del given[LABELS]
        refuse_bound(self.report, given)
        check_feeds(self.program, given)
        if self._machine is None:
            self._machine = machine_of(self.whole, self.target, host_of(self.whole))
        machine_feeds = {t.name: to_machine(t, given[t.onnx_name]) for t in self.input_tensors}
        result = self._machine.run(machine_feeds, jobs=jobs)
        outputs = {
            t.onnx_name: to_real(t, to_onnx(t, result.outputs[t.name])) for t in self.output_tensors
        }
        kinds = {} if self.float_model is None else elements_of(self.float_model)
        for name, values in outputs.items():
            outputs[name] = values.astype(kinds.get(name, values.dtype), copy=False)
        return outputs, result.counters

    __call__ = run

    def verify(self, data: Samples | None = None, per_layer: bool = True) -> dict[str, Any]:
        """Compare with onnxruntime; the figures of `pimc verify --json`.

        data: samples by input name, or an npz file, with ``labels`` if there are any; seeded
        random ones by default. per_layer: compare inner tensors, too.
        Raises PimError R705 for a program without a reference model, R702, R703.
        """
        if self.reference is None:
            raise PimError(
                Diagnostic(
                    "R705",
                    "this program has no reference model, so there is nothing to verify it against",
                    hint="programs made by `pimc asm` can be run, not verified",
                )
            )
        feeds = random_feeds(self.program, DEFAULT_SAMPLES, 0) if data is None else arrays_of(data)
        refuse_bound(self.report, feeds)
        found = verify_program(
            self.whole, self.target, self.reference, self.float_model, feeds, per_layer
        )
        return found.as_json()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a program folder, all of it or nothing. Raises PimError C508, C509."""
        files = model_files(self.reference, self.float_model, self.report)
        container.save(Path(path), self.whole, self.target, files)


def compile(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    target: str | os.PathLike[str] | Target = DEFAULT_TARGET,
    calibration: Samples | None = None,
    *,
    calibration_method: Method = "minmax",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    mapping: str = DEFAULT_MAPPING,
    tiles: int | str | None = None,
    allow_clipping: bool = False,
    place: str = DEFAULT_METHOD,
    phases: str = "never",
    batch: int = DEFAULT_BATCH,
    seed: int = 0,
    compress: Sequence[str] = (),
    host: bool = True,
    bind: Samples | None = None,
) -> CompiledProgram:
    """Compile a float, QDQ or QOperator model for a target; the result is verified and proved.

    calibration: float samples [n, ...] by input name, or an npz file, for models that are not
    quantized yet; without it ranges come from random noise of ``seed``. input_shapes: full shapes
    of inputs with dynamic axes. tiles: number of cores, or "auto" to grow the chip until the model
    fits. place: of the cores on the mesh, "none", "descent", "faq" or "best". compress: lossy
    changes of the weights, as `pimc compress` reads them; the report says what they left.
    phases: "auto" to run a model that does not fit in parts, chosen for batches of ``batch``.
    host: let onnxruntime run what the chip cannot, else refuse it. bind: values of inputs that are
    weights, by name, or an npz file: they become constants, which crossbars can hold.
    Raises PimError with all findings of the stage that refuses.
    """
    chip = target if isinstance(target, Target) else load_target(str(target))
    samples = None if calibration is None else arrays_of(calibration)
    frontend = FrontendOptions(
        input_shapes or {},
        calibration_method,
        seed=seed,
        use_host=host,
        bind={} if bind is None else arrays_of(bind),
    )
    specs = tuple(parse_compression(spec) for spec in compress)
    options = CompileOptions(
        frontend, mapping, tiles, allow_clipping, specs, place=place, phases=phases, batch=batch
    )
    done = compile_model(model, chip, samples, options)
    return CompiledProgram(done.whole, done.target, done.reference, done.float_model, done.report)


def load(path: str | os.PathLike[str]) -> CompiledProgram:
    """Read a program folder and verify the program in it. Raises PimError C5xx, E3xx, V4xx."""
    folder = Path(path)
    loaded = container.load_phases(folder)
    verifier.check_phases(loaded.phases, loaded.target, loaded.sources)
    reference: onnx.ModelProto | None = None
    float_model: onnx.ModelProto | None = None
    if reference_file(folder).is_file():
        reference, float_model = load_models(folder)
    return CompiledProgram(loaded.whole, loaded.target, reference, float_model, load_report(folder))


def verify(
    program: CompiledProgram | str | os.PathLike[str], data: Samples | None = None
) -> dict[str, Any]:
    """Compare a program, or the one in a program folder, with onnxruntime; see the method."""
    held = program if isinstance(program, CompiledProgram) else load(program)
    return held.verify(data)


def arrays_of(samples: Samples) -> dict[str, Array]:
    """Samples as arrays by name; those of an npz file are read."""
    if isinstance(samples, Mapping):
        arrays = {name: np.asarray(values) for name, values in samples.items()}
        is_ours = {name: array.dtype.name == "bfloat16" for name, array in arrays.items()}
        return {n: a.astype(np.float32) if is_ours[n] else a for n, a in arrays.items()}
    return read_data(Path(samples))
