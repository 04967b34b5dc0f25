"""The analog product: effective cells, noise and ADC as integers on a fixed grid, in NumPy.

Everything an ADC sees is an integer multiple of 2^-fraction LSB. Sums of integers do not depend
on their order, so this definition and the C kernel give the same bits on any machine, for any
batch, threads or vector width. `docs/device.md` says how fine the grid is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, PimError
from isa.matrix import BlockMatrix
from runtime.crossbar import INPUT_BITS, Int32, UInt8, route
from runtime.device import Device, Float
from runtime.draws import POOL, POOL_FRACTION, bit_offsets, key_of, normal_pool

Int64 = NDArray[np.int64]

TILE: Final = 64  # stored columns that share one offset into the pool
STD_BITS: Final = 15 - POOL_FRACTION  # further fraction bits of a standard deviation
FINEST: Final = 12  # fraction bits, at most
NARROW: Final = 32767.0  # largest value of a 16-bit lane of the C kernel
COARSEST_NARROW: Final = 6  # fraction bits with which 16 bits are still fine enough
WIDE: Final = 2.0**40
ROOM: Final = 8.0  # standard deviations: no number of the pool is larger, and 2^15 holds them


@dataclass(frozen=True, eq=False)
class AnalogMatrix:
    """A programmed matrix as the ADC sees it.

    step: counts that one code stands for. fraction: bits of the grid. cells: int64 [columns, R].
    variance: of the read noise of each driven cell, int64 [columns, R], or None; its unit is
    the square of 2^-STD_BITS grid units. bias: offset and rounding. thresholds: int64 [codes],
    where code 1, 2, ... begins. top: from here on a conversion is saturated. narrow: every
    possible sum fits 16 bits.
    """

    blocks: BlockMatrix
    step: float
    fraction: int
    cells: Int64
    variance: Int64 | None
    bias: int
    thresholds: Int64
    top: int
    narrow: bool
    noise_key: tuple[int, int]

    @property
    def is_uniform(self) -> bool:
        """Whether the transitions of the ADC are where they should be."""
        codes = np.arange(1, len(self.thresholds) + 1, dtype=np.int64)
        return bool((self.thresholds == codes << self.fraction).all())


def analog_matrix(
    blocks: BlockMatrix, cells: Float, device: Device, key: tuple[int, str]
) -> AnalogMatrix:
    """Put a matrix on the grid. cells: as from `effective_cells`. key: core and matrix name."""
    transfer, read, target = device.nonideal.adc, device.nonideal.read, device.target
    step = count_step(blocks, device, key)
    scale = transfer.gain / step
    used = np.repeat(blocks.rows >= 0, np.diff(blocks.column_start), axis=0)
    cells = np.where(used, cells * scale, 0.0)  # LSB
    deviation = np.zeros_like(cells)
    if read.sigma:
        size = target.cell_max if read.distribution == "gaussian" else 1.0
        deviation[:] = read.sigma * scale * size
        if read.distribution == "proportional":
            deviation = np.abs(cells) * read.sigma
        deviation *= used
    largest = np.abs(cells).sum(axis=1)
    largest += ROOM * np.sqrt((deviation**2).sum(axis=1)) + abs(transfer.offset_lsb) + 2
    bound = float(largest.max(initial=1.0))
    fraction, narrow = _fraction(bound, blocks.rows.shape[1])
    one = 1 << fraction
    codes = np.arange(1, target.adc_max + 1)
    inl = np.zeros(len(codes) + 1)
    for code, lsb in transfer.inl_lsb.items():
        if int(code) <= target.adc_max:
            inl[int(code)] = lsb
    words = key_of(device.seed, "read", *key)
    return AnalogMatrix(
        blocks,
        step,
        fraction,
        np.rint(cells * one).astype(np.int64),
        np.rint((deviation * (one << STD_BITS)) ** 2).astype(np.int64) if read.sigma else None,
        int(np.rint((transfer.offset_lsb + 0.5) * one)),
        np.sort(np.rint((codes + inl[1:]) * one).astype(np.int64)),
        int(np.rint((target.adc_max + 1 + inl[-1]) * one)),
        narrow,
        (words & 0xFFFFFFFF, words >> 32 & 0xFFFFFFFF),
    )


def _fraction(bound: float, lines: int) -> tuple[int, bool]:
    """Fraction bits with which sums up to ``bound`` LSB fit, and whether into 16 bits."""
    for fraction in range(FINEST, COARSEST_NARROW - 1, -1):
        if bound * (1 << fraction) + lines <= NARROW:  # each cell may be rounded up
            return fraction, True
    fraction = FINEST
    while fraction > 0 and bound * (1 << fraction) > WIDE:
        fraction -= 1
    return fraction, False


def count_step(blocks: BlockMatrix, device: Device, key: tuple[int, str]) -> float:
    """Counts that one code of the ADC stands for, at least one.

    Raises PimError R732 where the range is to be calibrated and no samples were run.
    """
    transfer, codes = device.nonideal.adc, device.target.adc_max
    if transfer.range == "unit":
        return 1.0
    if transfer.range == "proof":
        return max(1.0, int(blocks.largest_sums().max(initial=0)) / codes)
    if key not in device.full_scales:
        message = f"the ADC's range is by {transfer.range}, but matrix `{key[1]}` saw no samples"
        hint = "`pimc verify --noise` calibrates on its first samples"
        raise PimError(Diagnostic("R732", message, hint=hint))
    return max(1.0, device.full_scales[key] / codes)


@dataclass(frozen=True)
class Place:
    """Which conversions a product is: the noise of a conversion depends on nothing else.

    image: index of the first image. window: index of the first window within its image, over all
    products with this matrix. windows: of each image in this product, image by image.
    """

    image: int = 0
    window: int = 0
    windows: int = 1

    def counters(self, rows: int) -> tuple[Int64, Int64]:
        """Image and window of each row of a product."""
        row = np.arange(rows)
        return self.image + row // self.windows, self.window + row % self.windows


def analog_product(u: UInt8, matrix: AnalogMatrix, place: Place) -> tuple[Int32, int]:
    """Product of ``u`` [windows, inputs] with the matrix, and how many conversions saturated.

    ``out = rint(step * sum_t 2^t * sum over routes sign * 2^shift * code_t)``, int32.
    """
    blocks = matrix.blocks
    out = np.zeros((len(u), blocks.outputs), np.int64)
    saturated = 0
    for routing in range(len(blocks.routes.column_start) - 1):
        columns = int(np.diff(blocks.routes.column_start)[routing])
        totals = np.zeros((len(u), columns), np.int64)
        for group in np.flatnonzero(blocks.routing == routing):
            codes, clipped = _group_codes(u, matrix, int(group), place)
            totals += codes
            saturated += clipped
        route(totals, blocks, routing, out)
    return scaled(out.astype(np.int32), matrix.step), saturated


def scaled(out: Int32, step: float) -> Int32:
    """Codes in counts."""
    return out if step == 1.0 else np.rint(out * step).astype(np.int64).astype(np.int32)


def _group_codes(u: UInt8, matrix: AnalogMatrix, group: int, place: Place) -> tuple[Int64, int]:
    """``sum_t 2^t * code_t``, int64 [windows, columns of the group], and the saturations."""
    blocks = matrix.blocks
    used = blocks.rows[group] >= 0
    inputs = u[:, blocks.rows[group][used]]
    columns = slice(*(int(c) for c in blocks.column_start[group : group + 2]))
    cells = matrix.cells[columns][:, used].astype(np.float64).T
    noise = _Noise(matrix, group, columns, used, place, len(u))
    total = np.zeros((len(u), cells.shape[1]), np.int64)
    saturated = 0
    for bit in range(INPUT_BITS):
        driven = ((inputs >> bit) & 1).astype(np.float64)
        seen = (driven @ cells).astype(np.int64) + matrix.bias  # exact: far below 2^53
        seen += noise.of_bit(bit, driven)
        saturated += int(np.count_nonzero(seen >= matrix.top))
        total += np.searchsorted(matrix.thresholds, seen, side="right") << bit
    return total, saturated


class _Noise:
    """The read noise of all conversions of one row group."""

    def __init__(
        self,
        matrix: AnalogMatrix,
        group: int,
        columns: slice,
        used: NDArray[np.bool_],
        place: Place,
        rows: int,
    ) -> None:
        self._variance = None
        if matrix.variance is None:
            return
        self._variance = matrix.variance[columns][:, used].astype(np.float64).T
        image, window = (counter[:, None] for counter in place.counters(rows))
        column = np.arange(columns.stop - columns.start)
        tiles = np.arange(-(-len(column) // TILE))
        offsets = bit_offsets((group, tiles, window, image), matrix.noise_key)
        self._at = offsets[:, column // TILE] + (column % TILE)[:, None]

    def of_bit(self, bit: int, driven: Float) -> Int64 | int:
        """Noise of the conversions of one input bit, grid units [windows, columns]."""
        if self._variance is None:
            return 0
        std = np.rint(np.sqrt(driven @ self._variance)).astype(np.int64)
        drawn = normal_pool()[self._at[..., bit] % POOL].astype(np.int64)
        half = 1 << (POOL_FRACTION + STD_BITS - 1)
        noise: Int64 = (drawn * std + half) >> (POOL_FRACTION + STD_BITS)
        return noise
