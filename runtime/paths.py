"""The way each matrix takes through the kernel, chosen by proof, and its data made ready for it."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, PimError
from isa.matrix import BlockMatrix, Routes, fold
from runtime.crossbar import Int32, UInt8, block_product, exact_pieces, linear_product
from runtime.kernel import Kernel

MAX_GEMM_INPUTS = 65536  # as MAX_INPUTS of the C kernel
CANNOT = {
    "table": "can sum beyond a byte",
    "sliced": "have more than 12 word lines or more than one bit a cell",
}


@dataclass(frozen=True, eq=False)
class InC:
    """A matrix as the C engine takes it.

    weights: of the linear product, as `pack_weights` gives them; None where there is none. plan:
    what goes bit by bit, by ``method`` of `_crossbar.serial`; None where nothing clips.
    """

    weights: NDArray[np.int8] | None
    plan: object | None = None
    method: str = "auto"


class Path(Protocol):
    """One prepared matrix on one way. in_c: the same for the C engine; None where it is Python."""

    name: str
    in_c: InC | None

    def multiply(self, u: UInt8, out: Int32) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations."""


class Crossbars:
    """A programmed matrix, prepared once for many products.

    proved: no conversion can exceed ``adc_max``, so the sums are linear. path: "proved"; "excess",
    which subtracts from the linear product what the ADC cuts off, and turns to sliced, table or
    popcount where it cuts too often; one of these where forced; "bitserial" in NumPy.
    Raises PimError R720 when PIMC_PATH forces a path that would not be exact.
    """

    def __init__(self, blocks: BlockMatrix, adc_max: int, kernel: Kernel, name: str = "") -> None:
        self.blocks = blocks
        self.largest_sum = int(blocks.largest_sums().max(initial=0))
        self.proved = self.largest_sum <= adc_max
        if kernel.path == "proved" and not self.proved:
            message = (
                f"PIMC_PATH=proved, but a column of matrix `{name}` can sum up to "
                f"{self.largest_sum} and the ADC saturates at {adc_max}"
            )
            raise PimError(Diagnostic("R720", message, hint="leave PIMC_PATH at `auto`"))
        if self.proved and kernel.path in ("auto", "proved"):
            self._path = linear_path(fold(blocks), kernel)
        else:
            self._path = _serial(blocks, adc_max, kernel, name)
        self.path = self._path.name
        self.in_c = self._path.in_c

    def multiply(self, u: UInt8, out: Int32) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations.

        u: C-contiguous. out: int32 [windows, outputs], C-contiguous.
        """
        return self._path.multiply(u, out)


def linear_path(weights: Int32, kernel: Kernel) -> Path:
    """The product with W* [inputs, outputs], as quick as its size and this machine allow."""
    fits = bool(((weights >= -128) & (weights <= 127)).all())
    # at level 0 NumPy's BLAS is thirty times quicker than portable C, and as exact
    if kernel.extension is None or kernel.level == 0 or not fits or len(weights) > MAX_GEMM_INPUTS:
        return _LinearBlas(weights)
    return _LinearC(weights, kernel.extension, kernel.level)


def _serial(blocks: BlockMatrix, adc_max: int, kernel: Kernel, name: str) -> Path:
    if kernel.extension is None:
        return _SerialNumpy(blocks, adc_max)
    plan = make_plan(kernel.extension, blocks, adc_max)
    if kernel.path in CANNOT and not kernel.extension.can(plan, kernel.path):
        message = (
            f"PIMC_PATH={kernel.path}, but the groups of matrix `{name}` {CANNOT[kernel.path]} "
            f"({blocks.rows.shape[1]} word lines of {blocks.cell_bits}-bit cells)"
        )
        raise PimError(Diagnostic("R720", message, hint="PIMC_PATH=popcount does any matrix"))
    if kernel.path in ("table", "popcount"):
        return _SerialC(kernel.extension, plan, kernel.path, kernel.level)
    method = kernel.path if kernel.path in ("excess", "sliced") else "auto"
    linear = linear_path(fold(blocks), kernel)
    return _ExcessC(kernel.extension, plan, method, kernel.level, linear)


class _LinearBlas:
    """Product with W* in floating-point pieces that are exact."""

    name = "proved"
    in_c: InC | None = None

    def __init__(self, weights: Int32) -> None:
        self._pieces = list(exact_pieces(weights))

    def multiply(self, u: UInt8, out: Int32) -> int:
        linear_product(u, self._pieces, out)
        return 0


class _LinearC:
    """Product with W* in 8-bit integers."""

    name = "proved"

    def __init__(self, weights: Int32, extension: ModuleType, level: int) -> None:
        self._packed = pack_weights(weights)
        self.in_c: InC | None = InC(self._packed)
        self._gemm = extension.gemm
        self._level = level

    def multiply(self, u: UInt8, out: Int32) -> int:
        self._gemm(u, self._packed, out, self._level)
        return 0


class _SerialNumpy:
    """The definition itself."""

    name = "bitserial"
    in_c: InC | None = None

    def __init__(self, blocks: BlockMatrix, adc_max: int) -> None:
        self._blocks = blocks
        self._adc_max = adc_max

    def multiply(self, u: UInt8, out: Int32) -> int:
        out[...], saturated = block_product(u, self._blocks, self._adc_max)
        return saturated


class _SerialC:
    """Bit by bit in C, by one method for every window."""

    def __init__(self, extension: ModuleType, plan: object, method: str, level: int) -> None:
        self.name = method
        self._serial = extension.serial
        self._plan = plan
        self._method = method
        self._level = level
        self.in_c: InC | None = InC(None, plan, method)

    def multiply(self, u: UInt8, out: Int32) -> int:
        saturated: int = self._serial(self._plan, u, out, self._method, self._level)
        return saturated


class _ExcessC(_SerialC):
    """The linear product, minus what the ADC cuts off; the C kernel finds where it does."""

    def __init__(
        self, extension: ModuleType, plan: object, method: str, level: int, linear: Path
    ) -> None:
        super().__init__(extension, plan, method, level)
        self.name = "sliced" if method == "sliced" else "excess"
        self._linear = linear
        self.in_c = InC(linear.in_c.weights, plan, method) if linear.in_c is not None else None

    def multiply(self, u: UInt8, out: Int32) -> int:
        self._linear.multiply(u, out)
        return super().multiply(u, out)


def pack_weights(weights: Int32) -> NDArray[np.int8]:
    """Weights [inputs, outputs] as the C kernel reads them: [output tiles, inputs / 4, 16, 4]."""
    inputs, outputs = weights.shape
    padded = np.zeros((-(-inputs // 4) * 4, -(-outputs // 16) * 16), np.int8)
    padded[:inputs, :outputs] = weights
    tiles = padded.reshape(-1, 4, padded.shape[1] // 16, 16)
    return np.ascontiguousarray(tiles.transpose(2, 0, 3, 1))


def make_plan(extension: ModuleType, blocks: BlockMatrix, adc_max: int) -> object:
    """Bring the groups of each route list together, its routes in order of their outputs."""
    order = np.argsort(blocks.routing, kind="stable")
    lists = len(blocks.routes.column_start) - 1
    groups = np.concatenate([[0], np.cumsum(np.bincount(blocks.routing, minlength=lists))])
    list_outputs, output, entry, slot, factor = _routes_by_output(blocks.routes, blocks.outputs)
    return extension.plan(
        blocks.inputs,
        blocks.outputs,
        min(adc_max, 65535),
        np.ascontiguousarray(blocks.rows[order]),
        np.ascontiguousarray(blocks.column_start[:-1][order]),
        np.ascontiguousarray(blocks.cells),
        groups.astype(np.int64),
        np.diff(blocks.routes.column_start),
        list_outputs,
        output,
        entry,
        slot,
        factor,
    )


def _routes_by_output(
    routes: Routes, outputs: int
) -> tuple[NDArray[np.int64], Int32, NDArray[np.int64], Int32, Int32]:
    """Routes sorted by list, output and column; those that share all three become one factor."""
    slots = np.repeat(np.arange(len(routes.start) - 1), np.diff(routes.start))
    lists = np.searchsorted(routes.column_start, slots, side="right") - 1
    key = lists * outputs + routes.output
    order = np.argsort(key, kind="stable")  # by column within a key already
    key, column = key[order], (slots - routes.column_start[lists])[order]
    factor = routes.sign[order].astype(np.int64) << routes.shift[order]
    if len(key):
        new = np.flatnonzero(np.diff(key, prepend=-1) | (np.diff(column, prepend=-1) != 0))
        factor = np.add.reduceat(factor, new)
        key, column = key[new], column[new]
    entry = np.flatnonzero(np.diff(key, prepend=-1, append=-1)) if len(key) else np.zeros(1, int)
    entry_key = key[entry[:-1]]
    count = len(routes.column_start) - 1
    bounds = np.searchsorted(entry_key, np.arange(count + 1) * outputs)
    return (
        bounds.astype(np.int64),
        (entry_key % outputs).astype(np.int32),
        entry.astype(np.int64),
        column.astype(np.int32),
        factor.astype(np.int32),
    )
