"""What a reader has begun and not yet ended: loops, inline matrices, long tables, a core."""

from __future__ import annotations

from dataclasses import dataclass, field

from isa.matrix_text import BlocksDraft
from isa.program import Buffer, Matrix, Statement
from isa.syntax_tree import Directive, LoopHead, Number


@dataclass
class OpenLoop:
    """A loop whose `}` has not come yet."""

    head: LoopHead
    line: int
    body: list[Statement] = field(default_factory=list)


@dataclass
class OpenMatrix:
    """An inline matrix whose lines are being read."""

    name: str
    layer: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    draft: BlocksDraft


@dataclass
class OpenTable:
    """A table whose values stand on the lines that follow."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    head: Directive
    line: int
    numbers: list[Number]


class Skipped:
    """What follows a matrix or table whose head could not be read; its lines are passed over."""


@dataclass
class OpenCore:
    """The core whose lines are being read."""

    index: int
    layer: str
    matrices: list[Matrix] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    loops: list[OpenLoop] = field(default_factory=list)

    @property
    def innermost(self) -> list[Statement]:
        """Where the next statement belongs."""
        return self.loops[-1].body if self.loops else self.body
