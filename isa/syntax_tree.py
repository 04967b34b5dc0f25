"""What one line of a .pim text is made of: a small tree, before anybody asks what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isa.operands import Affine

RESERVED: Final = frozenset({"loop", "step", "ring", "group", "at", "inf", "nan"})


class SyntaxFault(Exception):
    """Something wrong in one line; column and end are 1-based, end is exclusive."""

    def __init__(
        self, code: str, message: str, column: int, end: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
        self.column = column
        self.end = column + 1 if end is None else end


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of a line, from `column` up to, not including, `end`; both 1-based."""

    column: int
    end: int


@dataclass(frozen=True, slots=True)
class Name(Node):
    text: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    value: int | float


@dataclass(frozen=True, slots=True)
class Range(Node):
    """``start..stop`` of plain numbers."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Items(Node):
    """``[1 2 5..9]``."""

    items: tuple[Number | Range, ...]


@dataclass(frozen=True, slots=True)
class Axis(Node):
    """One axis of a box: everything (no start), one index (no stop), a span, or a ring depth."""

    start: Affine | None = None
    stop: Affine | None = None
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Box(Node):
    """``name`` or ``name[axis, ...]``; a bare name has no axes, and neither has ``name[]``."""

    name: Name
    axes: tuple[Axis, ...]

    @property
    def is_bare(self) -> bool:
        """Whether it is a name without brackets."""
        return self.end == self.name.end


@dataclass(frozen=True, slots=True)
class Hash(Node):
    text: str


@dataclass(frozen=True, slots=True)
class Address(Node):
    """``@0x40`` or ``@global``, without the at sign."""

    text: str


@dataclass(frozen=True, slots=True)
class Arrow(Node):
    pass


@dataclass(frozen=True, slots=True)
class Contents(Node):
    """``= [1 2 3]``; no values when they stand on the lines that follow."""

    values: Items | None


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    key: str
    value: Node


@dataclass(frozen=True, slots=True)
class Directive(Node):
    """``.name item item: ``; name with its dot."""

    name: str
    items: tuple[Node, ...]
    opens: bool  # ends in a colon


@dataclass(frozen=True, slots=True)
class LoopHead(Node):
    variable: Name
    start: int
    stop: int
    step: int


@dataclass(frozen=True, slots=True)
class Close(Node):
    pass


@dataclass(frozen=True, slots=True)
class Call(Node):
    """An instruction as written: mnemonic and operands."""

    mnemonic: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Code(Node):
    """A line of a stream: loop heads, an instruction, closing braces, in this order."""

    parts: tuple[LoopHead | Call | Close, ...]


@dataclass(frozen=True, slots=True)
class Group(Node):
    rows: Items


@dataclass(frozen=True, slots=True)
class At(Node):
    box: Box
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Route(Node):
    output: int
    shift: int
    sign: int


@dataclass(frozen=True, slots=True)
class Column(Node):
    """A stored column; binary: its cells were written as one ``0b`` number."""

    cells: tuple[int, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Values(Node):
    values: Items


def whole(number: Number) -> int:
    """The number of a node that has to be whole. Raises SyntaxFault E306."""
    if isinstance(number.value, float):
        message = f"expected a whole number, found `{number.value}`"
        raise SyntaxFault("E306", message, number.column, number.end)
    return number.value


def whole_numbers(items: Items) -> list[int]:
    """The integers of a list, ``a..b`` written out. Raises SyntaxFault for a float."""
    numbers: list[int] = []
    for item in items.items:
        if isinstance(item, Range):
            if not 0 <= item.stop - item.start <= 1 << 20:
                message = f"`{item.start}..{item.stop}` is no range of a list"
                raise SyntaxFault("E309", message, item.column, item.end)
            numbers += range(item.start, item.stop)
        else:
            numbers.append(whole(item))
    return numbers
