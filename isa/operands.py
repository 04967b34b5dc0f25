"""Operands of instructions: affine row indices, spans and regions of a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Env = Mapping[str, int]


@dataclass(frozen=True)
class Affine:
    """``constant + sum(coefficient * variable)`` over the variables of the enclosing loops.

    terms: (variable, coefficient) pairs, sorted by variable, no coefficient is zero.
    """

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def at(self, env: Env) -> int:
        """Value for the loop variables of ``env``. Raises KeyError for an unbound variable."""
        return self.constant + sum(factor * env[name] for name, factor in self.terms)

    def __add__(self, offset: int) -> Affine:
        return Affine(self.constant + offset, self.terms)

    def __str__(self) -> str:
        text = ""
        for name, factor in self.terms:
            size = name if abs(factor) == 1 else f"{abs(factor)}*{name}"
            text += f"{'-' if factor < 0 else '+' if text else ''}{size}"
        if not text or self.constant:
            text += f"{self.constant:+d}" if text else str(self.constant)
        return text


@dataclass(frozen=True)
class Span:
    """``count`` consecutive indices from ``start``: ``y..y+3`` in the text, ``y`` for one."""

    start: Affine
    count: int = 1

    def at(self, env: Env) -> range:
        first = self.start.at(env)
        return range(first, first + self.count)

    def __str__(self) -> str:
        return str(self.start) if self.count == 1 else f"{self.start}..{self.start + self.count}"


@dataclass(frozen=True)
class Region:
    """A box of a buffer or tensor: rows, columns and channels; ``None`` means all of that axis.

    Text: ``name``, ``name[y]``, ``name[y..y+3, 0..28]``, ``name[y, *, 3..6]``. Row indices of a
    ring buffer are absolute; row ``r`` stands in slot ``r mod depth``.
    """

    name: str
    rows: Span | None = None
    columns: Span | None = None
    channels: Span | None = None

    def __str__(self) -> str:
        axes = [self.rows, self.columns, self.channels]
        while axes and axes[-1] is None:
            axes.pop()
        if not axes:
            return self.name
        return f"{self.name}[{', '.join('*' if axis is None else str(axis) for axis in axes)}]"


def span(start: int | Affine, count: int = 1) -> Span:
    """A Span from a plain number or an affine start."""
    return Span(start if isinstance(start, Affine) else Affine(start), count)


def region(
    name: str,
    row: int | None = None,
    rows: int = 1,
    columns: tuple[int, int] | None = None,
    channels: tuple[int, int] | None = None,
) -> Region:
    """A Region with constant bounds; ``columns`` and ``channels`` are (start, stop) pairs."""
    return Region(
        name,
        None if row is None else span(row, rows),
        None if columns is None else span(columns[0], columns[1] - columns[0]),
        None if channels is None else span(channels[0], channels[1] - channels[0]),
    )
