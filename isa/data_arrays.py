"""Arrays of a program that stand in its data file: which ones, and how they are put together.

A table ``T`` is the array ``T``; a matrix ``M`` is the arrays ``M.rows``, ``M.cells``,
``M.column_start``, ``M.routing``, ``M.routes.*`` and ``M.spans.*``, the fields of
``isa.matrix.BlockMatrix``, exactly as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Findings, Location
from isa.matrix import BlockMatrix, Routes, Spans
from isa.printer import quoted
from isa.program import DTYPES, Program

Array = NDArray[np.generic]

# field of a BlockMatrix -> (element type, axes)
MATRIX_ARRAYS: Final[Mapping[str, tuple[type[np.generic], int]]] = {
    "rows": (np.int32, 2),
    "cells": (np.uint8, 3),
    "column_start": (np.int64, 1),
    "routing": (np.int32, 1),
    "routes.column_start": (np.int64, 1),
    "routes.start": (np.int64, 1),
    "routes.output": (np.int32, 1),
    "routes.shift": (np.uint8, 1),
    "routes.sign": (np.int8, 1),
    "spans.group": (np.int32, 1),
    "spans.first": (np.int32, 1),
    "spans.count": (np.int32, 1),
    "spans.crossbar": (np.int32, 1),
    "spans.row": (np.int32, 1),
    "spans.column": (np.int32, 1),
}


@dataclass(frozen=True)
class Wanted:
    """An array that a program needs: its key in the data file, element type and shape.

    shape: -1 for any size.
    """

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def data_arrays(program: Program) -> dict[str, Array]:
    """The arrays of the data file by key. Raises PimError C507 when two want the same key."""
    arrays: dict[str, Array] = {}
    findings = Findings()
    for key, array in _all_arrays(program):
        if key in arrays:
            message = f"two tables or matrices want the array {quoted(key)} of the data file"
            findings.error("C507", message, hint="rename one of them")
        arrays[key] = array
    findings.raise_if_any()
    return arrays


def _all_arrays(program: Program) -> Iterator[tuple[str, Array]]:
    for table in program.tables:
        if not table.inline:
            yield table.name, table.values
    for matrix in program.matrices():
        if matrix.inline or matrix.of:
            continue
        for path in MATRIX_ARRAYS:
            holder: Any = matrix.blocks
            for part in path.split("."):
                holder = getattr(holder, part)
            yield f"{matrix.name}.{path}", holder


def find_array(
    arrays: Mapping[str, Array] | None, wanted: Wanted, at: Location | None, findings: Findings
) -> Array | None:
    """The array that is wanted, or None after noting C505 (missing) or C506 (wrong)."""
    array = (arrays or {}).get(wanted.key)
    if array is None:
        message = f"the array {quoted(wanted.key)} is not in the data file"
        hint = "the data file has to come with the text, or the values have to stand inline"
        findings.error("C505", message, at, hint)
        return None
    fits = len(array.shape) == len(wanted.shape) and all(
        size in (-1, found) for size, found in zip(wanted.shape, array.shape, strict=True)
    )
    if array.dtype != wanted.dtype or not fits:
        shape = ", ".join("any" if size < 0 else str(size) for size in wanted.shape)
        findings.error(
            "C506",
            f"the array {quoted(wanted.key)} should be {wanted.dtype} [{shape}], "
            f"found {array.dtype} {list(array.shape)}",
            at,
        )
        return None
    return array


def table_from(
    arrays: Mapping[str, Array] | None,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    at: Location | None,
    findings: Findings,
) -> Array | None:
    """The values of a table of the data file, or None after noting what is wrong."""
    return find_array(arrays, Wanted(name, DTYPES[dtype], shape), at, findings)


def matrix_from(
    arrays: Mapping[str, Array] | None,
    name: str,
    shape: tuple[int, int],
    at: Location | None,
    findings: Findings,
) -> BlockMatrix | None:
    """The blocks of a matrix of the data file, or None after noting what is wrong."""
    found: dict[str, Any] = {}
    if arrays is None or not any(f"{name}.{path}" in arrays for path in MATRIX_ARRAYS):
        message = f"the arrays of matrix {quoted(name)} are not in the data file"
        hint = "the data file has to come with the text, or the matrix has to stand inline"
        findings.error("C505", message, at, hint)
        return None
    for path, (kind, axes) in MATRIX_ARRAYS.items():
        wanted = Wanted(f"{name}.{path}", np.dtype(kind), (-1,) * axes)
        found[path] = find_array(arrays, wanted, at, findings)
    if any(array is None for array in found.values()):
        return None
    routes = {p.split(".")[1]: a for p, a in found.items() if p.startswith("routes.")}
    spans = {p.split(".")[1]: a for p, a in found.items() if p.startswith("spans.")}
    return BlockMatrix(
        inputs=shape[0],
        outputs=shape[1],
        cell_bits=found["cells"].shape[1],
        rows=found["rows"],
        cells=found["cells"],
        column_start=found["column_start"],
        routing=found["routing"],
        routes=Routes(**routes),
        spans=Spans(**spans),
    )
