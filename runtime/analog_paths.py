"""The ways of a non-ideal matrix: NumPy's definition, and the C kernel with the same bits."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, fold
from isa.program import Program
from runtime.analog import TILE, AnalogMatrix, Place, analog_matrix, analog_product, scaled
from runtime.crossbar import Int32, UInt8
from runtime.device import Device, Faults, effective_cells
from runtime.draws import normal_pool
from runtime.kernel import Kernel
from runtime.paths import linear_path

LARGEST_CODE: Final = 255  # of the C kernel
SPARSE_LINES: Final = 12  # all patterns of so many word lines are looked at
SPARSE_COLUMNS: Final = 65535  # of a row group
SPARSE_SHARE: Final = 0.018  # of patterns and columns that may differ; beyond, tables are quicker
SPARSE_MOST: Final = 1 << 23  # differences of a matrix: 50 MB


class AnalogCrossbars:
    """A programmed non-ideal matrix, prepared once for many products.

    path: "analog-sparse" where nothing is random and few codes differ from the sums of the cells;
    "analog" where C adds up tables; "analog-numpy" where there is no C kernel, or sums do not fit
    16 bits.
    """

    def __init__(self, matrix: AnalogMatrix, kernel: Kernel) -> None:
        self._path: AnalogPath = _NumpyPath(matrix)
        extension = load_device_extension() if kernel.extension is not None else None
        if extension is not None and matrix.narrow and len(matrix.thresholds) <= LARGEST_CODE:
            plan = make_sparse_plan(extension, matrix, kernel.level)
            if plan is not None and kernel.path in ("auto", "excess"):
                self._path = _SparsePath(extension, plan, fold(matrix.blocks), kernel)
            else:
                self._path = _TablePath(extension, matrix, kernel.level)
        self.path = self._path.name

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations.

        u: C-contiguous. out: int32 [windows, outputs], C-contiguous.
        """
        return self._path.multiply(u, out, place)


class AnalogPath(Protocol):
    """One prepared matrix on one way."""

    name: str

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        """As of `AnalogCrossbars`."""


class _NumpyPath:
    """The definition itself."""

    name = "analog-numpy"

    def __init__(self, matrix: AnalogMatrix) -> None:
        self._matrix = matrix

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        out[...], saturated = analog_product(u, self._matrix, place)
        return saturated


class _TablePath:
    """Tables of sums, noise and transfer, in C."""

    name = "analog"

    def __init__(self, extension: ModuleType, matrix: AnalogMatrix, level: int) -> None:
        self._product = extension.product
        self._plan = make_device_plan(extension, matrix)
        self._step, self._level = matrix.step, level

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        origin = (place.image, place.window, place.windows)
        saturated: int = self._product(self._plan, u, out, *origin, self._level)
        if self._step != 1.0:
            out[...] = scaled(out, self._step)
        return saturated


class _SparsePath:
    """The linear product, and in C what the device changes of it."""

    name = "analog-sparse"

    def __init__(self, extension: ModuleType, plan: object, weights: Int32, kernel: Kernel) -> None:
        self._sparse, self._plan, self._level = extension.sparse, plan, kernel.level
        self._linear = linear_path(weights, kernel)

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        self._linear.multiply(u, out)
        saturated: int = self._sparse(self._plan, u, out, self._level)
        return saturated


def load_device_extension() -> ModuleType | None:
    """The C kernel of the device, or None where it was not built."""
    try:
        return import_module("runtime._device")
    except ImportError:
        return None


def make_sparse_plan(extension: ModuleType, matrix: AnalogMatrix, level: int) -> object | None:
    """Where codes differ from the sums of the cells; None where tables are the better way."""
    blocks = matrix.blocks
    lines = blocks.rows.shape[1]
    if matrix.variance is not None or matrix.step != 1.0 or lines > SPARSE_LINES:
        return None
    rows, _, first, list_groups, list_columns = _layout(blocks)
    if list_columns.max(initial=0) > SPARSE_COLUMNS:
        return None
    routes = blocks.routes
    factor = (routes.sign.astype(np.int64) << routes.shift).astype(np.int32)
    sizes = (blocks.groups, lines, len(list_columns), len(routes.start) - 1, len(factor))
    plan: object | None = extension.sparse_plan(
        blocks.inputs,
        blocks.outputs,
        blocks.columns,
        sizes,
        _adc(matrix),
        (rows, first, list_groups, list_columns, routes.column_start[:-1].astype(np.int64)),
        (routes.start.astype(np.int64), routes.output, factor),
        matrix.cells.astype(np.int16),
        blocks.cell_values().astype(np.int16),
        _thresholds(matrix),
        matrix.is_uniform,
        level,
        min(SPARSE_MOST, int(SPARSE_SHARE * blocks.columns * (1 << lines))),
    )
    return plan


def make_device_plan(extension: ModuleType, matrix: AnalogMatrix) -> object:
    """A matrix as the C kernel wants it: the groups of each route list together."""
    blocks = matrix.blocks
    layout = _layout(blocks)
    return extension.plan(
        blocks.inputs,
        blocks.outputs,
        blocks.columns,
        (blocks.groups, blocks.rows.shape[1], len(layout[-1])),
        _adc(matrix),
        layout,
        matrix.cells.astype(np.int16),
        _routes_by_tile(blocks),
        None if matrix.is_uniform else _thresholds(matrix),
        _noise(matrix),
    )


def _layout(blocks: BlockMatrix) -> tuple[NDArray[Any], ...]:
    """Rows, numbers and first columns of the groups by route list, list_groups, list_columns."""
    order = np.argsort(blocks.routing, kind="stable")
    counts = np.bincount(blocks.routing, minlength=len(blocks.routes.column_start) - 1)
    return (
        np.ascontiguousarray(blocks.rows[order]),
        order.astype(np.int32),
        np.ascontiguousarray(blocks.column_start[:-1][order]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.diff(blocks.routes.column_start),
    )


def _adc(matrix: AnalogMatrix) -> tuple[int, int, int, int]:
    return len(matrix.thresholds), matrix.fraction, matrix.bias, min(matrix.top, 1 << 20)


def _thresholds(matrix: AnalogMatrix) -> Int32:
    """A sum fits 16 bits, so a transition beyond them is never reached, or always."""
    return np.clip(matrix.thresholds, -32768, 32768).astype(np.int32)


def _noise(matrix: AnalogMatrix) -> tuple[Any, ...] | None:
    """Key, pool, and deviation by driven lines where all cells are alike, else their variances."""
    if matrix.variance is None:
        return None
    pool = np.concatenate([normal_pool(), normal_pool()[:TILE]])
    blocks = matrix.blocks
    used = np.repeat(blocks.rows >= 0, np.diff(blocks.column_start), axis=0)
    variances = matrix.variance[used]
    lines = np.arange(blocks.rows.shape[1] + 1)
    if not len(variances) or variances.min() == variances.max():
        each = int(variances[0]) if len(variances) else 0
        std = np.rint(np.sqrt((lines * each).astype(np.float64))).astype(np.int16)
        return (*matrix.noise_key, pool, std, None)
    return (*matrix.noise_key, pool, None, matrix.variance.astype(np.int32))


def _routes_by_tile(blocks: BlockMatrix) -> tuple[Any, ...]:
    """Routes sorted by tile of 64 slots and output; equal ones become one factor.

    Returns entries, routes, tile_outputs int64 [tiles + 1], output int32 [entries], entry int64
    [entries + 1], slot and factor int32 [routes].
    """
    routes = blocks.routes
    slots = np.repeat(np.arange(len(routes.start) - 1), np.diff(routes.start))
    lists = np.searchsorted(routes.column_start, slots, side="right") - 1
    column = slots - routes.column_start[lists]
    tiles = -(-np.diff(routes.column_start) // TILE)
    first_tile = np.concatenate([[0], np.cumsum(tiles)])
    tile_key = (first_tile[lists] + column // TILE) * blocks.outputs + routes.output
    key = tile_key * TILE + column % TILE
    order = np.argsort(key, kind="stable")
    key, factor = key[order], (routes.sign.astype(np.int64) << routes.shift)[order]
    new: NDArray[np.int64] = np.flatnonzero(np.diff(key, prepend=-1))
    if len(key):
        key, factor = key[new], np.add.reduceat(factor, new)
    entry = np.flatnonzero(np.diff(key // TILE, prepend=-1, append=-1)) if len(key) else [0]
    entries = (key // TILE)[entry[:-1]]
    bounds = np.searchsorted(entries, np.arange(first_tile[-1] + 1) * blocks.outputs)
    return (
        len(entries),
        len(key),
        bounds.astype(np.int64),
        (entries % blocks.outputs).astype(np.int32),
        np.asarray(entry, np.int64),
        (key % TILE).astype(np.int32),
        factor.astype(np.int32),
    )


def program_device(
    program: Program, device: Device, kernel: Kernel
) -> dict[int, dict[str, AnalogCrossbars]]:
    """Write every matrix of a program into a device: core -> matrix name -> crossbars.

    Raises PimError R730, R731, R732.
    """
    faults = Faults(device)
    programmed = {}
    for core in program.cores:
        cells = effective_cells(core, device, faults)
        programmed[core.index] = {
            m.name: AnalogCrossbars(
                analog_matrix(m.blocks, cells[m.name], device, (core.index, m.name)), kernel
            )
            for m in core.matrices
        }
    return programmed
