"""PattPIM (DAC 2020): weight patterns that repeat in a row group are stored and computed once.

A pattern is the slice of one filter in one row group. Distinct patterns of a group are stored, a
table tells each filter which one is its own. Exact at distance 0; above it, a pattern may take the
place of another one within that L1 distance, which changes weights. Numbers are measured on the
weights handed in; the paper's networks and OU size are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pimc.reproduce import prap_model as hardware
from pimc.reproduce.result import Row, Table

SPACE_SAVED: Final = 52.95  # % of the crossbar space, as are the next two: the thesis's wording
ENERGY_SAVED: Final = 56.53  # %
SPEEDUP: Final = 1.73
DISTANCES: Final = (8, 16, 32, 64)  # L1, in weight steps, over a whole pattern
SHARES: Final = (0.75, 0.5)  # the distance is the norm of the pattern of that rank: 3.4 of PRAP-PIM
SAMPLED_GROUPS: Final = 16  # row groups of a layer looked at for distances above 0
_PAIRS: Final = 1 << 22  # distances held at once: 8 MB of int16


@dataclass(frozen=True, eq=False)
class Layer:
    """A quantized weight matrix. weights: int8 [K, O]; windows: input vectors of one inference."""

    weights: NDArray[np.int8]
    windows: int


@dataclass(frozen=True)
class Unit:
    """An OU of ``rows`` x ``columns`` one-bit cells; a weight takes 8 columns."""

    rows: int = 8
    columns: int = 8

    @property
    def columns_of_weight(self) -> int:
        """Bit columns of one weight, and input bits of one activation."""
        return 8


@dataclass(frozen=True)
class Count:
    """Patterns of one or many layers. Floats, for they may be scaled up from sampled groups.

    patterns: all of them, dense; stored: those kept. steps, dense_steps: OU steps of one
    inference. time_ns, energy_pj with their dense twins: under PRAP-PIM's part costs. table_bits,
    side_bits: pattern numbers of all filters, and the largest group's partial sums.
    moved, weight: L1 of what was changed, and of the weights.
    """

    patterns: float = 0
    stored: float = 0
    steps: float = 0
    dense_steps: float = 0
    time_ns: float = 0
    dense_time_ns: float = 0
    energy_pj: float = 0
    dense_energy_pj: float = 0
    table_bits: float = 0
    side_bits: float = 0
    moved: float = 0
    weight: float = 0

    def __add__(self, other: Count) -> Count:
        names = (name for name in self.__dataclass_fields__ if name != "side_bits")
        summed = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Count(**summed, side_bits=max(self.side_bits, other.side_bits))


def group_rows(weights: NDArray[np.int8], height: int) -> NDArray[np.int8]:
    """Cut [K, O] into patterns [groups, O, height]; the last group is filled up with zeros."""
    rows, outputs = weights.shape
    groups = -(-rows // height)
    padded = np.zeros((groups * height, outputs), np.int8)
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(groups, height, outputs).transpose(0, 2, 1))


def count_distinct(patterns: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return how many distinct non-zero patterns each group has: [groups].

    patterns: [groups, O, height]. A pattern is compared as whole 8-byte words; more than one word
    is first replaced by its rank, so that the comparison stays exact.
    """
    groups, outputs, height = patterns.shape
    padded = np.zeros((groups, outputs, -(-height // 8) * 8), np.int8)
    padded[..., :height] = patterns
    words = padded.view(np.uint64)
    keys = words[..., 0]
    for word in np.moveaxis(words[..., 1:], -1, 0):
        keys = _ranks(keys) * np.uint64(keys.size + 1) + _ranks(word)
    keys = np.sort(keys, axis=1)
    distinct = 1 + np.count_nonzero(keys[:, 1:] != keys[:, :-1], axis=1)
    has_zero = np.any(np.max(patterns != 0, axis=2) == 0, axis=1)
    return np.asarray(distinct - has_zero, np.int64)


def keep_patterns(
    patterns: NDArray[np.int8], distance: int | float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the patterns that no kept, larger one stands in for; return (kept, moved), [groups].

    patterns: [groups, O, height]. distance: the largest L1 distance if an int; if a float, a share
    of the filters: the norm of the pattern of that rank, largest first, is the distance.
    Patterns come largest L1 norm first; one is translated to the nearest kept pattern or to zero
    when that is near enough. moved: the L1 distance of all translations.
    """
    norms = np.abs(patterns.astype(np.int64)).sum(axis=2)
    order = np.argsort(-norms, axis=1, kind="stable")
    ordered = np.take_along_axis(patterns, order[..., None], axis=1)
    norms = np.take_along_axis(norms, order, axis=1)
    groups, outputs, _ = patterns.shape
    limits = np.full(groups, distance, np.int64)
    if isinstance(distance, float):
        limits = norms[:, min(outputs - 1, int(outputs * distance))].astype(np.int64)
    batch = max(1, _PAIRS // outputs**2)
    parts = [
        _keep_batch(ordered[i : i + batch], norms[i : i + batch], limits[i : i + batch])
        for i in range(0, groups, batch)
    ]
    kept, moved = zip(*parts, strict=True)
    return np.concatenate(kept), np.concatenate(moved)


def count_layer(
    layer: Layer, unit: Unit, distance: int | float = 0, sampled: int = SAMPLED_GROUPS
) -> Count:
    """Count one layer. distance: as for `keep_patterns`; 0 is exact and looks at every group.

    sampled: for other distances, evenly spaced row groups looked at, scaled up to all of them.
    """
    patterns = group_rows(layer.weights, unit.rows)
    groups, outputs, _ = patterns.shape
    chosen = np.arange(groups)
    if distance == 0:
        stored = count_distinct(patterns)
        moved = np.zeros(groups, np.int64)
    else:
        chosen = np.unique(np.linspace(0, groups - 1, min(sampled, groups)).astype(np.int64))
        stored, moved = keep_patterns(patterns[chosen], distance)
    scale = groups / chosen.size
    weight = float(np.abs(patterns[chosen].astype(np.int64)).sum()) * scale
    return _price(stored, outputs, unit, layer.windows, scale, float(moved.sum()) * scale, weight)


def count_network(
    layers: Mapping[str, Layer],
    unit: Unit,
    distance: int | float = 0,
    sampled: int = SAMPLED_GROUPS,
) -> Count:
    """Count all layers of a network, one after the other."""
    counts = (count_layer(layer, unit, distance, sampled) for layer in layers.values())
    return sum(counts, Count())


def tables(
    networks: Mapping[str, Mapping[str, Layer]],
    unit: Unit | None = None,
    distances: Sequence[int | float] = (*DISTANCES, *SHARES),
    sampled: int = SAMPLED_GROUPS,
) -> tuple[Table, ...]:
    """Return one table a network: exact reuse first, then each distance.

    networks: name -> layer name -> layer, at least one layer each. unit: 8x8 by default.
    """
    unit = unit or Unit()
    return tuple(_table(name, net, unit, distances, sampled) for name, net in networks.items())


def _table(
    name: str,
    layers: Mapping[str, Layer],
    unit: Unit,
    distances: Sequence[int | float],
    sampled: int,
) -> Table:
    rows = list(_rows("exact", count_network(layers, unit, 0)))
    for distance in distances:
        share = isinstance(distance, float)
        label = f"share {distance:g}" if share else f"distance {distance}"
        rows += _rows(label, count_network(layers, unit, distance, sampled))
    assumptions = (
        f"measured on the weights of {name}; the paper's six networks and its OU size are not "
        f"known, so its figures (at an approximation it does not state) are only set beside",
        f"OU {unit.rows}x{unit.columns}, 8-bit weights on one-bit cells, zero patterns cost "
        "nothing; space counts stored cells",
        "time and energy: PRAP-PIM's part costs for OU steps, one OU step at a time, and its "
        "buffer beats for saving and reading reused sums and the table",
        "`distance d`: a pattern may stand in for one within L1 distance d (weight steps); "
        "`share t`: that distance is the norm of the group's pattern of rank t x filters",
        f"above distance 0, {sampled} row groups of each layer are looked at and scaled up",
    )
    return Table(f"PattPIM: pattern reuse on {name}", assumptions, tuple(rows))


def _rows(label: str, count: Count) -> Iterator[Row]:
    """Return the rows of one distance. Published figures stand beside each, comparable or not."""
    space = 100 * (1 - count.stored / count.patterns)
    energy = 100 * (1 - count.energy_pj / count.dense_energy_pj)
    speed = count.dense_time_ns / count.time_ns
    moved = 100 * count.moved / count.weight if count.weight else 0.0
    changed = f"{moved:.2f} % of the weights' L1 changed" if count.moved else ""
    yield Row(f"{label}: space saved", SPACE_SAVED, space, None, "measured", "%", changed)
    yield Row(f"{label}: energy saved", ENERGY_SAVED, energy, None, "measured", "%")
    yield Row(f"{label}: speed", SPEEDUP, speed, None, "measured")
    yield Row(f"{label}: stored patterns", None, count.stored, None, "measured", "patterns")
    steps = 100 * (1 - count.steps / count.dense_steps)
    yield Row(f"{label}: OU steps saved", None, steps, None, "measured", "%")
    kilobytes = count.table_bits / 8 / 1024
    yield Row(f"{label}: table", None, kilobytes, None, "measured", "KiB")
    yield Row(f"{label}: side buffer", None, count.side_bits, None, "measured", "bits")


def _price(
    stored: NDArray[np.int64],
    outputs: int,
    unit: Unit,
    windows: int,
    scale: float,
    moved: float,
    weight: float,
) -> Count:
    """Count steps, time, energy and tables from the stored patterns of each (sampled) group."""
    bits = unit.columns_of_weight
    dense = stored.size * -(-outputs * bits // unit.columns) * bits * windows * scale
    steps = float((-(-stored * bits // unit.columns)).sum()) * bits * windows * scale
    # each stored pattern's sum is saved; each filter reads its table entry and that sum, and adds
    saved = float(stored.sum()) * windows * scale
    read = stored.size * outputs * windows * scale
    # the columns of an OU share an ADC: they are converted one after the other
    step_ns, step_pj = unit.columns * hardware.STEP_NS, unit.columns * _column_energy(unit)
    traffic = (saved + 2 * read) * hardware.BEAT_NS
    adding = read * hardware.CYCLE_NS
    name_bits = np.ceil(np.log2(stored + 1)).sum()  # pattern number or zero
    sum_bits = 2 * bits + (unit.rows - 1).bit_length()
    return Count(
        patterns=stored.size * outputs * scale,
        stored=float(stored.sum()) * scale,
        steps=steps,
        dense_steps=dense,
        time_ns=steps * step_ns + traffic + adding,
        dense_time_ns=dense * step_ns + adding,
        energy_pj=steps * step_pj + traffic * _side_milliwatts() + adding * hardware.SHIFTER_MW,
        dense_energy_pj=dense * step_pj + adding * hardware.SHIFTER_MW,
        table_bits=float(name_bits) * outputs * scale,
        side_bits=float(stored.max(initial=0)) * sum_bits,
        moved=moved,
        weight=weight,
    )


def _column_energy(unit: Unit) -> float:
    """Return the energy in pJ of reading and converting one column of an OU."""
    line = hardware.CROSSBAR_MW * 4 / (hardware.CROSSBAR / unit.rows) / hardware.CROSSBAR
    column = line * hardware.READ_NS + unit.rows * hardware.DAC_MW * hardware.DAC_NS
    column += hardware.ADC_MW * hardware.ADC_NS
    column += (2 * hardware.SHIFTER_MW + unit.rows * hardware.REGISTER_MW) * hardware.CYCLE_NS
    return column


def _side_milliwatts() -> float:
    """Return the power of a PE's side buffer of 0.5 KB and its index buffer of 8 KB."""
    index = hardware.MODES["identical"].index_kilobytes(hardware.CROSSBAR)
    return (0.5 + index) * hardware.BUFFER_MW_PER_KB


def _ranks(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Replace each key by its rank among the distinct ones."""
    _, ranks = np.unique(keys, return_inverse=True)
    return ranks.reshape(keys.shape).astype(np.uint64)


def _keep_batch(
    patterns: NDArray[np.int8], norms: NDArray[np.int64], limits: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Do `keep_patterns` for groups whose patterns are sorted, largest norm first.

    One after the other is slow in numpy; the same answer in a few rounds: a pattern with no open
    earlier neighbour is kept, a neighbour of a kept earlier one is out.
    """
    distances = _distances(patterns)
    outputs = patterns.shape[1]
    earlier = np.tri(outputs, k=-1, dtype=np.bool_)
    near = (distances <= limits[:, None, None]) & earlier
    undecided = norms > limits[:, None]  # the others are near enough to zero
    undecided[:, 0] = norms[:, 0] > 0  # the largest is always kept, unless it is zero
    kept = np.zeros_like(undecided)
    while undecided.any():
        waits = (near & undecided[:, None, :]).any(axis=2)
        kept |= undecided & ~waits
        covered = (near & kept[:, None, :]).any(axis=2)
        undecided &= ~kept & ~covered
    nearest = np.where(kept[:, None, :] & earlier, distances, np.iinfo(np.int16).max).min(axis=2)
    moved = np.where(kept, 0, np.minimum(nearest, norms)).sum(axis=1, dtype=np.int64)
    return kept.sum(axis=1, dtype=np.int64), moved


def _distances(patterns: NDArray[np.int8]) -> NDArray[np.int16]:
    """Return L1 distances [groups, O, O] of patterns [groups, O, height], height at most 128."""
    groups, outputs, height = patterns.shape
    total = np.zeros((groups, outputs, outputs), np.int16)
    for position in range(height):
        values = patterns[..., position].astype(np.int16)
        total += np.abs(values[:, :, None] - values[:, None, :])
    return total
