"""Yu et al. 2020 (arXiv 2010.06156): pattern-pruned kernels, reordered and mapped without zeros.

Their body was not available: mapping, tables and synthetic network are our reading. Kernels of an
input channel with the same pattern form a block whose zero rows are gone; all-zero kernels cost
nothing; blocks fill shelves of their height; an all-zero input skips its block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pimc.reproduce.result import Band, Kind, Row, Table

KERNEL: Final = 9  # positions of a 3x3 kernel
AREA_BAND: Final[Band] = (4.16, 5.20)
ENERGY_BAND: Final[Band] = (1.98, 2.15)
SPEED_BAND: Final[Band] = (1.15, 1.35)
WEIGHT_BITS: Final = 8
ZERO_INPUTS: Final = 0.70  # share of zero activations; chosen so that both calibrations reach 1.15

# VGG16's convolutions: input channels, output channels, output positions (32x32 images; at 224x224
# all positions grow by 49, and every ratio stays)
VGG16: Final = (
    (3, 64, 1024), (64, 64, 1024), (64, 128, 256), (128, 128, 256),
    (128, 256, 64), (256, 256, 64), (256, 256, 64),
    (256, 512, 16), (512, 512, 16), (512, 512, 16),
    (512, 512, 4), (512, 512, 4), (512, 512, 4),
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """Crossbars of ``size`` x ``size`` cells, fired ``ou_rows`` x ``ou_columns`` at once."""

    size: int = 512
    ou_rows: int = 9
    ou_columns: int = 8
    cells: int = 4  # of a weight


@dataclass(frozen=True)
class Pruning:
    """``positions`` of a kernel stay, in one of ``patterns``; ``kept`` kernels are not all zero."""

    positions: int = 4
    patterns: int = 8
    kept: float = 0.48

    @property
    def sparsity(self) -> float:
        """Share of weights that are zero."""
        return 1 - self.kept * self.positions / KERNEL


@dataclass(frozen=True)
class Account:
    """What a mapping of one or more layers takes.

    steps: OU steps of one window and input bit. work: steps x windows. busiest: steps of the
    busiest crossbar x windows, layers one after the other. index_bits: tables.
    """

    crossbars: int = 0
    cells: int = 0
    steps: int = 0
    work: int = 0
    busiest: int = 0
    index_bits: int = 0

    def __add__(self, other: Account) -> Account:
        return Account(
            self.crossbars + other.crossbars,
            self.cells + other.cells,
            self.steps + other.steps,
            self.work + other.work,
            self.busiest + other.busiest,
            self.index_bits + other.index_bits,
        )


def dense_account(inputs: int, outputs: int, windows: int, device: Device) -> Account:
    """Account for the plain mapping of a 3x3 convolution."""
    rows = _cut(inputs * KERNEL, device.size)
    columns = _cut(outputs * device.cells, device.size)
    down = -(-rows // device.ou_rows)
    across = -(-columns // device.ou_columns)
    steps = int(down.sum() * across.sum())
    return Account(
        crossbars=rows.size * columns.size,
        cells=int(rows.sum() * columns.sum()),
        steps=steps,
        work=steps * windows,
        busiest=int(down.max() * across.max()) * windows,
    )


def reorder_account(
    supports: NDArray[np.bool_], windows: int, device: Device, patterns: int
) -> Account:
    """Account for the reordered mapping of a convolution.

    supports: [outputs, inputs, positions], where weights are not zero. patterns: size of the
    dictionary of the tables. Blocks begin on an OU column boundary.
    """
    outputs, inputs, positions = supports.shape
    packed = supports @ (1 << np.arange(positions))
    block = np.arange(inputs) * (1 << positions) + packed
    blocks, kernels = np.unique(block[packed > 0], return_counts=True)
    heights = np.bitwise_count(blocks & ((1 << positions) - 1)).astype(np.int64)
    shelves = [
        _fill_shelves(kernels[heights == height] * device.cells, device)
        for height in range(positions, 0, -1)
    ]
    loads = np.concatenate(shelves)
    levels = np.repeat(np.arange(positions, 0, -1), [shelf.size for shelf in shelves])
    crossbars = _stack(levels, loads, device.size)
    steps = int(loads.sum())
    kept = int(kernels.sum())
    block_bits = _bits(patterns) + _bits(outputs + 1) + 1  # pattern, width, channel step
    return Account(
        crossbars=crossbars.size,
        cells=int((kernels * heights).sum()) * device.cells,
        steps=steps,
        work=steps * windows,
        busiest=int(crossbars.max(initial=0)) * windows,
        index_bits=kept * _bits(outputs) + blocks.size * block_bits + patterns * positions,
    )


def synthetic_supports(
    inputs: int, outputs: int, pruning: Pruning, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Prune a Gaussian 3x3 convolution; return [outputs, inputs, 9], where weights stay.

    The dictionary holds the layer's most frequent natural patterns; a kernel takes the pattern
    that keeps most of its energy, and the kernels with least energy left become zero.
    """
    energy = rng.standard_normal((outputs * inputs, KERNEL), dtype=np.float32) ** 2
    order = np.argpartition(-energy, pruning.positions - 1, axis=1)[:, : pruning.positions]
    natural = np.bincount((1 << order).sum(axis=1), minlength=1 << KERNEL)
    names = np.argsort(-natural, kind="stable")[: pruning.patterns]
    dictionary = (names[:, None] >> np.arange(KERNEL) & 1).astype(np.bool_)
    left = energy @ dictionary.T.astype(np.float32)
    supports: NDArray[np.bool_] = dictionary[left.argmax(axis=1)]
    dropped = round((1 - pruning.kept) * len(energy))
    supports[np.argsort(left.max(axis=1), kind="stable")[:dropped]] = False
    return supports.reshape(outputs, inputs, KERNEL)


def account_synthetic(pruning: Pruning, device: Device, seed: int = 0) -> tuple[Account, Account]:
    """Return the accounts (dense, reordered) of VGG16 with pruned Gaussian weights."""
    rng = np.random.default_rng(seed)
    layers = (
        (synthetic_supports(inputs, outputs, pruning, rng), windows)
        for inputs, outputs, windows in VGG16
    )
    return account_network(layers, device, pruning.patterns)


def account_network(
    layers: Iterable[tuple[NDArray[Any], int]], device: Device, patterns: int
) -> tuple[Account, Account]:
    """Return the accounts (dense, reordered) of 3x3 convolutions.

    layers: (weights or supports [outputs, inputs, 9], windows). Zero means pruned.
    """
    dense = ours = Account()
    for weights, windows in layers:
        outputs, inputs, _ = weights.shape
        dense += dense_account(inputs, outputs, windows, device)
        ours += reorder_account(weights != 0, windows, device, patterns)
    return dense, ours


def tables(zero_inputs: float = ZERO_INPUTS, seed: int = 0) -> tuple[Table, ...]:
    """Return the table of each of two calibrations.

    zero_inputs: share of zero activations, independent of each other: what speed rests on.
    """
    calibrations = (
        (Pruning(4, 8, 0.48), Device(cells=4)),
        (Pruning(4, 6, 0.45), Device(cells=2)),
    )
    return tuple(_table(pruning, device, zero_inputs, seed) for pruning, device in calibrations)


def _table(pruning: Pruning, device: Device, zero: float, seed: int) -> Table:
    dense, ours = account_synthetic(pruning, device, seed)
    assumptions = (
        f"Gaussian weights on VGG16's convolutions (seed {seed}), {pruning.positions} of 9 "
        f"positions kept, {pruning.patterns} patterns, {pruning.kept:.0%} of the kernels not zero: "
        f"sparsity {pruning.sparsity:.3f}",
        f"crossbars of {device.size}x{device.size}, OU {device.ou_rows}x{device.ou_columns}, "
        f"{device.cells} cells a weight; one OU step a crossbar at a time",
        "energy counts OU steps x windows; tables and buffers are not charged",
        f"speed: a share pz={zero:g} of the activations is zero, independently; a block whose "
        f"{pruning.positions} inputs are all zero is skipped. A hypothesis: without "
        "it the denser crossbars make the speed fall below 1",
        "corrected: the dense mapping skips its all-zero inputs too, and a skipped step saves "
        "energy in both",
    )
    rows = (*_size_rows(dense, ours, device), *_time_rows(dense, ours, pruning, device, zero))
    cells = f"{device.cells} cells a weight, {pruning.patterns} patterns"
    return Table(f"Yu et al.: kernel reordering, {cells}", assumptions, rows)


def _size_rows(dense: Account, ours: Account, device: Device) -> Iterator[Row]:
    kind: Kind = "reconstructed"
    counts = f"{dense.crossbars} -> {ours.crossbars}"
    yield Row("crossbars", AREA_BAND, dense.crossbars / ours.crossbars, None, kind, "x", counts)
    yield Row("stored cells", None, dense.cells / ours.cells, None, kind)
    mebibytes = ours.index_bits / 8 / 2**20
    note = "output channel a kernel; pattern, width, channel step a block; dictionary"
    yield Row("index tables", None, mebibytes, None, kind, "MiB", note)
    cell_bits = WEIGHT_BITS // device.cells
    charged = dense.cells / (ours.cells + ours.index_bits / cell_bits)
    note = f"tables kept in cells of {cell_bits} bits as well"
    yield Row("stored cells with tables", None, charged, None, kind, "x", note)


def _time_rows(
    dense: Account, ours: Account, pruning: Pruning, device: Device, zero: float
) -> Iterator[Row]:
    kind: Kind = "reconstructed"
    fired, dense_fired = 1 - zero**pruning.positions, 1 - zero**device.ou_rows
    fair = dense_fired / fired
    work, busiest = dense.work / ours.work, dense.busiest / ours.busiest
    yield Row("OU steps", None, dense.steps / ours.steps, None, kind, "x", "of one window")
    note = "corrected lies outside the claim: if skipping made the speed, it saved energy as well"
    yield Row("energy (OU steps)", ENERGY_BAND, work, work * fair, kind, "x", note)
    yield Row("speed without zero-skipping", None, busiest, None, kind, "x", "busiest crossbar")
    low, high = (max(0.0, 1 - busiest / edge) ** (1 / pruning.positions) for edge in SPEED_BAND)
    note = f"inside the band for pz {low:.2f}..{high:.2f}"
    yield Row(f"speed, pz={zero:g}", SPEED_BAND, busiest / fired, busiest * fair, kind, "x", note)
    yield Row("blocks skipped", None, 100 * (1 - fired), None, kind, "%")


def _cut(length: int, piece: int) -> NDArray[np.int64]:
    """Return the lengths of the pieces, all full but the last."""
    return np.minimum(piece, length - np.arange(0, length, piece))


def _fill_shelves(widths: NDArray[np.int64], device: Device) -> NDArray[np.int64]:
    """Lay blocks side by side on shelves as wide as a crossbar; return the OU steps of each shelf.

    widths: columns of each block. A block that meets the end of a shelf goes on on the next one,
    so shelves form one long row of OU columns.
    """
    across = device.size // device.ou_columns
    units = int((-(-widths // device.ou_columns)).sum())
    return _cut(units, across)


def _stack(heights: NDArray[np.int64], loads: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Stack shelves, tallest first, into crossbars; return the OU steps of each crossbar."""
    crossbar = np.zeros(heights.size, np.int64)
    start = number = 0
    ends = np.cumsum(heights)
    while start < heights.size:
        base = ends[start] - heights[start]
        stop = int(np.searchsorted(ends, base + size, side="right"))
        crossbar[start:stop] = number
        start, number = stop, number + 1
    return np.bincount(crossbar, weights=loads, minlength=number).astype(np.int64)


def _bits(values: int) -> int:
    """Return the bits that tell that many values apart."""
    return max(0, values - 1).bit_length()
