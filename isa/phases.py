"""Phases: programs that run one after another on one chip, its crossbars written anew for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from isa.diagnostics import Diagnostic, Findings, Location
from isa.program import Program, Tensor


@dataclass(frozen=True, eq=False)
class Phases:
    """Programs in the order in which they run, and what the model gives.

    A tensor name means the same value in every phase: an input of a phase that an earlier one
    stores is taken from global memory, all others are the model's inputs. outputs: names of the
    tensors that are the model's outputs; other outputs of a phase are for later phases alone.
    """

    programs: tuple[Program, ...]
    outputs: tuple[str, ...]

    @cached_property
    def interface(self) -> Program:
        """The whole as one program without cores: the model's tensors, each once.

        What a phase stores for a later one is "inner" here.
        """
        found: dict[str, Tensor] = {}
        for program in self.programs:
            for tensor in program.tensors:
                is_inner = tensor.role == "output" and tensor.name not in self.outputs
                known = replace(tensor, role="inner") if is_inner else tensor
                found.setdefault(tensor.name, known)
        first = self.programs[0]
        parts = tuple(part for program in self.programs for part in program.partitions)
        tensors = tuple(found.values())
        return Program(first.target, first.target_sha256, tensors, partitions=parts)

    def check(self, at: Location | None = None) -> None:
        """Raise PimError C511 where phases do not fit together, with all findings."""
        findings, stored = Findings(), dict[str, Tensor]()
        first = self.programs[0]
        for number, program in enumerate(self.programs):
            if (program.target, program.target_sha256) != (first.target, first.target_sha256):
                findings.add(_finding(f"phase {number} is for another target than phase 0", at))
            for tensor in program.tensors:
                given = stored.get(tensor.name)
                if given is not None and not _is_same(given, tensor):
                    message = f"phase {number} takes `{tensor.name}` in another form than stored"
                    findings.add(_finding(message, at))
                if tensor.role == "output":
                    stored[tensor.name] = tensor
        for name in self.outputs:
            if name not in stored:
                findings.add(_finding(f"no phase stores the output `{name}`", at))
        findings.raise_if_any()


def _is_same(stored: Tensor, taken: Tensor) -> bool:
    return taken.role == "input" and (stored.dtype, stored.shape) == (taken.dtype, taken.shape)


def _finding(message: str, at: Location | None) -> Diagnostic:
    return Diagnostic("C511", message, at, "compile the model again")
