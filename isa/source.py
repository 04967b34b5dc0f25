"""Where the parts of a program stand in its text, for findings that come after the parse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from isa.diagnostics import Location

Declared = tuple[str, int | None, str]  # kind ("buffer", ...), core of a core's own, name


@dataclass
class Source:
    """Line numbers (1-based) of a parsed program.

    instructions: per core index, the line of each instruction in the order of
    ``isa.program.walk``; the first core of an index counts. declared: the lines of each tensor,
    table, channel, matrix, buffer and core, more than one where a name is declared again.
    """

    file: str
    lines: Sequence[str]
    instructions: dict[int, list[int]] = field(default_factory=dict)
    declared: dict[Declared, list[int]] = field(default_factory=dict)

    def instruction(self, core: int, ordinal: int, needle: str | None = None) -> Location | None:
        """Place of a core's instruction; the caret stands under ``needle``, a part of it."""
        lines = self.instructions.get(core, ())
        return self._location(lines[ordinal], needle) if ordinal < len(lines) else None

    def declare(self, kind: str, core: int | None, name: str, line: int) -> None:
        """Note that a line declares something."""
        self.declared.setdefault((kind, core, name), []).append(line)

    def declaration(
        self, kind: str, core: int | None, name: str, again: bool = False
    ) -> Location | None:
        """Place of a declaration, None when the text has none of that name.

        again: of the last one, where a name is declared more than once.
        """
        lines = self.declared.get((kind, core, name))
        return None if lines is None else self._location(lines[-1 if again else 0], None)

    def _location(self, line: int, needle: str | None) -> Location:
        text = self.lines[line - 1].rstrip("\r")
        at = text.find(needle) if needle else -1
        if needle and at >= 0:
            return Location(self.file, line, at + 1, len(needle), text)
        start = len(text) - len(text.lstrip())
        code = text.split(";")[0].rstrip()
        return Location(self.file, line, start + 1, max(1, len(code) - start), text)
