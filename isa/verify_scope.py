"""What the checks of the verifier share: declared things by name, and places for findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from isa.diagnostics import Findings, Location
from isa.instruction import Instruction
from isa.printer import instruction_text, quoted
from isa.program import Buffer, Channel, Core, Matrix, Partition, Program, Table, Tensor
from isa.source import Source
from isa.target import Target
from isa.validate import did_you_mean

K = TypeVar("K")
T = TypeVar("T")


@dataclass
class Scope:
    """One verification: the program with its names resolved, the target, and the findings.

    Where a name is declared twice the first declaration counts.
    """

    program: Program
    target: Target
    source: Source | None
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        program = self.program
        self.tensors: Mapping[str, Tensor] = _by_name((t.name, t) for t in program.tensors)
        self.tables: Mapping[str, Table] = _by_name((t.name, t) for t in program.tables)
        self.channels: Mapping[str, Channel] = _by_name((c.name, c) for c in program.channels)
        self.partitions: Mapping[str, Partition] = _by_name((p.name, p) for p in program.partitions)
        self.cores: Mapping[int, Core] = _by_name((c.index, c) for c in program.cores)
        self.matrices: Mapping[int, Mapping[str, Matrix]] = {
            core.index: _by_name((m.name, m) for m in core.matrices) for core in program.cores
        }
        self._matrices = _by_name((m.name, m) for m in program.matrices())
        self.buffers: Mapping[int, Mapping[str, Buffer]] = {
            core.index: _by_name((b.name, b) for b in core.buffers) for core in program.cores
        }

    def matrix_named(self, name: str) -> Matrix | None:
        """The matrix of a name, whichever core it stands in."""
        return self._matrices.get(name)

    def distinct_cores(self) -> Iterator[Core]:
        """The cores, without any that takes the index of an earlier one."""
        return (core for core in self.program.cores if self.cores[core.index] is core)

    def at_declaration(
        self, kind: str, core: int | None, name: str, again: bool = False
    ) -> Location:
        """Place of a declaration: its line (``again``: the last one), or its name in words."""
        found = self.source.declaration(kind, core, name, again) if self.source else None
        words = f"core {name}" if kind == "core" else f"{kind} {quoted(name)}"
        words += "" if core is None else f" of core {core}"
        return found or Location(node=words)

    def at_instruction(
        self, core: int, ordinal: int, instruction: Instruction, needle: str | None = None
    ) -> Location:
        """Place of an instruction: its line, or its core and text in words."""
        found = self.source.instruction(core, ordinal, needle) if self.source else None
        layer = self.cores[core].layer if core in self.cores else ""
        words = f"core {core}{f' ({layer})' if layer else ''}: `{instruction_text(instruction, 0)}`"
        return found or Location(node=words)

    def declared(
        self, code: str, message: str, kind: str, core: int | None, name: str,
        hint: str | None = None,
    ) -> None:  # fmt: skip
        """Note an error at a declaration, at the last one of a name that is used twice."""
        self.findings.error(
            code, message, self.at_declaration(kind, core, name, code == "V402"), hint
        )


def _by_name(pairs: Iterable[tuple[K, T]]) -> dict[K, T]:
    found: dict[K, T] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def known_hint(name: str, known: Iterable[str], what: str) -> str:
    """ "did you mean `x`?", or the list of what there is."""
    names = sorted(known)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return did_you_mean(name, names) or (f"the {what} are: {shown}" if names else f"no {what} here")
