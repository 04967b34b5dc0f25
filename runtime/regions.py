"""Regions of buffers as NumPy views, resolved once per starting slot and then only looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, PimError
from isa.instruction import Pair
from isa.operands import Affine, Env, Region, Span

Array = NDArray[Any]
Pieces = tuple[Array, ...]
Starts = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Storage:
    """A buffer or tensor of all images, [images, rows, columns, channels].

    ring: row ``r`` stands in slot ``r mod rows``.
    """

    name: str
    array: Array
    ring: bool = False


class Box:
    """One region operand of one instruction, over all images.

    env: the live loop variables of the core; the box is looked up at their current values.
    shape: (rows, columns, channels) of the region, which no loop variable can change. spans: the
    same axes with their starts; an axis that the region leaves out is the whole one.
    """

    def __init__(self, storage: Storage, region: Region, env: Env) -> None:
        spans = (region.rows, region.columns, region.channels)
        sizes = storage.array.shape[1:]
        self.storage = storage
        self.region = region
        self._env = env
        self.spans = tuple(
            Span(Affine(), size) if axis is None else axis
            for axis, size in zip(spans, sizes, strict=True)
        )
        self.shape: tuple[int, int, int] = (
            self.spans[0].count,
            self.spans[1].count,
            self.spans[2].count,
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.storage.array.dtype

    @property
    def elements(self) -> int:
        """Elements of the region in one image."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def resolver(self, build: Callable[[Pieces], T]) -> Callable[[], T]:
        """A function that gives ``build(pieces)`` for the current loop variables.

        pieces: views [images, rows, columns, channels]; two of them where a ring buffer wraps.
        Each starting slot is built once. Raises PimError R710 for a region out of bounds.
        """
        row, column, channel = (_evaluator(span.start, self._env) for span in self.spans)
        depth = self.storage.array.shape[1] if self.storage.ring else 0
        if not any(span.start.terms for span in self.spans):
            first = row() % depth if depth else row()
            constant = build(self._pieces((first, column(), channel())))
            return lambda: constant
        built: dict[object, T] = {}
        if not self.spans[1].start.terms and not self.spans[2].start.terms:
            fixed = (column(), channel())

            def by_row() -> T:
                start = row() % depth if depth else row()
                try:
                    return built[start]
                except KeyError:
                    built[start] = found = build(self._pieces((start, *fixed)))
                    return found

            return by_row

        def by_all() -> T:
            starts = (row() % depth if depth else row(), column(), channel())
            if starts not in built:
                built[starts] = build(self._pieces(starts))
            return built[starts]

        return by_all

    def reader(self) -> Callable[[], Array]:
        """A function that gives the values [images, *shape]: a view unless a ring wraps."""
        pieces = self.resolver(lambda pieces: pieces)

        def read() -> Array:
            found = pieces()
            return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

        return read

    def writer(self) -> Callable[[Array], None]:
        """A function that copies [images, *shape] values of any type into the region."""
        pieces = self.resolver(lambda pieces: pieces)

        def write(values: Array) -> None:
            found = pieces()
            if len(found) == 1:
                found[0][...] = values  # casts as it copies, quicker than np.copyto
                return
            first = 0
            for piece in found:
                rows = piece.shape[1]
                piece[...] = values[:, first : first + rows]
                first += rows

        return write

    def _pieces(self, starts: Starts) -> Pieces:
        """Views of the region from ``starts``; the row is a slot where the storage is a ring."""
        array, ring = self.storage.array, self.storage.ring
        for axis, (start, span) in enumerate(zip(starts, self.spans, strict=True)):
            size = array.shape[axis + 1]
            wraps = ring and axis == 0 and start >= 0 and span.count <= size
            if not wraps and not 0 <= start <= start + span.count <= size:
                raise PimError(self._out_of_bounds(axis, start, span.count, size))
        (row, column, channel), (rows, columns, channels) = starts, self.shape
        inner = array[:, :, column : column + columns, channel : channel + channels]
        depth = array.shape[1]
        if row + rows <= depth:
            return (inner[:, row : row + rows],)
        return inner[:, row:], inner[:, : row + rows - depth]

    def _out_of_bounds(self, axis: int, start: int, count: int, size: int) -> Diagnostic:
        what = ("row", "column", "channel")[axis]
        return Diagnostic(
            "R710",
            f"`{self.region}`: {what}s {start}..{start + count} are outside 0..{size} of "
            f"`{self.storage.name}`",
            hint="`pimc verify` finds such regions before anything runs",
        )


def _evaluator(affine: Affine, env: Env) -> Callable[[], int]:
    """A quick function for the current value of ``affine``."""
    constant = affine.constant
    if not affine.terms:
        return lambda: constant
    if len(affine.terms) == 1:
        ((name, factor),) = affine.terms
        return lambda: constant + factor * env[name]
    return lambda: affine.at(env)


def windows_of(
    piece_rows: Pieces, kernel: Pair, dilation: Pair, stride: int, windows: int
) -> list[tuple[slice, Array]]:
    """The windows of one output row: (kernel rows, view [images, windows, rows, kw, channels]).

    piece_rows: pieces of a region that holds ``(kernel - 1) * dilation + 1`` rows. One entry
    where the rows lie evenly in memory, else one per kernel row.
    """
    span = (kernel[0] - 1) * dilation[0] + 1
    if len(piece_rows) == 1:
        return [(slice(0, kernel[0]), _strided(piece_rows[0], kernel, dilation, stride, windows))]
    rows = [piece[:, r : r + 1] for piece in piece_rows for r in range(piece.shape[1])]
    picked = rows[: span : dilation[0]]
    return [
        (slice(i, i + 1), _strided(row, (1, kernel[1]), dilation, stride, windows))
        for i, row in enumerate(picked)
    ]


def _strided(rows: Array, kernel: Pair, dilation: Pair, stride: int, windows: int) -> Array:
    """View [images, windows, kernel rows, kernel columns, channels] of [images, rows, ...]."""
    images, height, width, channels = rows.shape
    spans = ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)
    need = (spans[0], (windows - 1) * stride + spans[1])
    if need[0] > height or need[1] > width:
        raise PimError(
            Diagnostic(
                "R710",
                f"{windows} windows of {kernel[0]}x{kernel[1]} need {need[0]} rows and {need[1]} "
                f"columns, the source has {height} and {width}",
            )
        )
    image, row, column, channel = rows.strides
    return np.lib.stride_tricks.as_strided(
        rows,
        (images, windows, *kernel, channels),
        (image, column * stride, row * dilation[0], column * dilation[1], channel),
    )
