"""The Python face: compile a model, run it, verify it, save and load it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from isa import container, verify
from isa.diagnostics import Diagnostic, PimError
from isa.printer import print_program
from isa.program import Program
from isa.target import DEFAULT_TARGET, Target, load_target
from pimc.check import verify_program
from pimc.data import Array, check_feeds, ports, random_feeds, to_machine, to_onnx, to_real
from pimc.driver import Compiled, CompileOptions, compile_model, load_models
from runtime.machine import Machine

DEFAULT_SAMPLES = 16  # random ones, when a check is given no data


class CompiledProgram:
    """A program with its target, its reference model and a machine to run it on."""

    def __init__(
        self,
        program: Program,
        target: Target,
        reference: onnx.ModelProto | None = None,
        float_model: onnx.ModelProto | None = None,
        compiled: Compiled | None = None,
    ) -> None:
        self.program, self.target = program, target
        self.reference, self.float_model = reference, float_model
        self._compiled = compiled
        self._machine: Machine | None = None

    @property
    def report(self) -> dict[str, Any]:
        """What `pimc compile --json` prints; empty for a program that was loaded."""
        return {} if self._compiled is None else self._compiled.report

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape without the batch axis by ONNX input name."""
        return {tensor.onnx_name: tensor.onnx_shape for tensor in ports(self.program, "input")}

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Shape without the batch axis by ONNX output name."""
        return {tensor.onnx_name: tensor.onnx_shape for tensor in ports(self.program, "output")}

    def text(self) -> str:
        """The program as people read it."""
        return print_program(self.program)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for samples [n, ...] of every input, by ONNX name; floats in, floats out.

        Raises PimError R703 with everything that is wrong with the feeds.
        """
        check_feeds(self.program, feeds)
        if self._machine is None:
            self._machine = Machine(self.program, self.target)
        inputs = ports(self.program, "input")
        result = self._machine.run({t.name: to_machine(t, feeds[t.onnx_name]) for t in inputs})
        return {
            t.onnx_name: to_real(t, to_onnx(t, result.outputs[t.name]))
            for t in ports(self.program, "output")
        }

    __call__ = run

    def verify(
        self, feeds: Mapping[str, Array] | None = None, per_layer: bool = True
    ) -> dict[str, Any]:
        """Compare with onnxruntime; the document of `pimc verify --json`.

        feeds: samples by input name, with ``labels`` if there are any; random ones by default.
        Raises PimError C510 for a program without a reference model.
        """
        if self.reference is None:
            raise PimError(Diagnostic("C510", "this program has no reference model"))
        feeds = feeds or random_feeds(self.program, DEFAULT_SAMPLES, seed=0)
        found = verify_program(
            self.program, self.target, self.reference, self.float_model, feeds, per_layer
        )
        return found.as_json()

    def save(self, path: str | Path) -> None:
        """Write a program folder."""
        if self._compiled is not None:
            self._compiled.save(path)
            return
        models = {"reference.onnx": self.reference, "float.onnx": self.float_model}
        extra = {n: m.SerializeToString() for n, m in models.items() if m is not None}
        container.save(path, self.program, self.target, extra)


def compile(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    target: str | os.PathLike[str] | Target = DEFAULT_TARGET,
    calibration: Mapping[str, Array] | None = None,
    options: CompileOptions | None = None,
) -> CompiledProgram:
    """Compile a float, QDQ or QOperator model for a target; the result is verified and proved.

    calibration: float samples [n, ...] by input name, for models that are not quantized yet.
    Raises PimError with all findings of the stage that refuses.
    """
    chip = target if isinstance(target, Target) else load_target(str(target))
    compiled = compile_model(model, chip, calibration, options)
    return CompiledProgram(
        compiled.program, compiled.target, compiled.reference, compiled.float_model, compiled
    )


def load(path: str | Path) -> CompiledProgram:
    """Read a program folder and verify the program in it. Raises PimError."""
    loaded = container.load(path)
    verify.check(loaded.program, loaded.target, loaded.source)
    if not (Path(path) / "reference.onnx").is_file():
        return CompiledProgram(loaded.program, loaded.target)
    return CompiledProgram(loaded.program, loaded.target, *load_models(path))
