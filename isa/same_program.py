"""Structural comparison of programs, which hold arrays and therefore have no ``==``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from isa.matrix import BlockMatrix
from isa.program import Program

_NOTHING = object()


def same_program(a: Program, b: Program) -> bool:
    """Whether two programs are equal; see `first_difference`."""
    return first_difference(a, b) is None


def first_difference(a: Program, b: Program) -> str | None:
    """Where two programs first differ, as a path like ``cores[0].body[3]``; None when equal.

    Real numbers are compared as the single-precision numbers they stand for, matrices by what
    their blocks mean: how route lists are shared and in which order places are listed is a
    matter of encoding.
    """
    return next(_differences("", a, b), None)


def same_blocks(a: BlockMatrix, b: BlockMatrix) -> bool:
    """Whether two matrices mean the same blocks."""
    return a is b or not any(_block_differences(a, b))


def _differences(path: str, a: Any, b: Any) -> Iterator[str]:
    if type(a) is not type(b):
        yield path
    elif isinstance(a, BlockMatrix):
        yield from (f"{path}.{name}" for name in _block_differences(a, b))
    elif isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
            yield path
    elif is_dataclass(a) and not isinstance(a, type):
        for field in fields(a):
            name = f"{path}.{field.name}" if path else field.name
            yield from _differences(name, getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple):
        for index, (x, y) in enumerate(zip_longest(a, b, fillvalue=_NOTHING)):
            yield from _differences(f"{path}[{index}]", x, y)
    elif isinstance(a, float):
        with np.errstate(over="ignore"):
            if np.float32(a).tobytes() != np.float32(b).tobytes():
                yield path
    elif a != b:
        yield path


def _block_differences(a: BlockMatrix, b: BlockMatrix) -> Iterator[str]:
    for name in ("inputs", "outputs", "cell_bits"):
        if getattr(a, name) != getattr(b, name):
            yield name
    for name in ("rows", "cells", "column_start"):
        if not _equal(getattr(a, name), getattr(b, name)):
            yield name
            return
    for which, (x, y) in enumerate(zip(_routes(a), _routes(b), strict=True)):
        if not _equal(x, y):
            yield ("route counts", "outputs", "shifts", "signs")[which]
    if sorted(_places(a)) != sorted(_places(b)):
        yield "spans"


def _equal(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def _routes(matrix: BlockMatrix) -> Sequence[np.ndarray[Any, Any]]:
    """Routes of every stored column in order: counts per column, outputs, shifts, signs."""
    slot = matrix.slot_of_column()
    first, stop = matrix.routes.start[slot], matrix.routes.start[slot + 1]
    counts = stop - first
    index = np.repeat(stop - np.cumsum(counts), counts) + np.arange(counts.sum())
    routes = matrix.routes
    return counts, routes.output[index], routes.shift[index], routes.sign[index]


def _places(matrix: BlockMatrix) -> list[tuple[int, ...]]:
    columns = [getattr(matrix.spans, field.name).tolist() for field in fields(matrix.spans)]
    return list(zip(*columns, strict=True))
