"""Route tables: the forms in which a chip can hold the routes of a mapping, each counted in bits.

`scatter`   per unit, its outputs: output, shift, sign, and a bit that marks the last
`delta`     the same with sorted outputs, as gaps; a gap too wide takes dummy entries (as SRE's)
`lookup`    per output, one unit index for every (shift, sign) in use, 0 for none; position tells
            the output, shift and sign. Sums wait in the side buffer
`narrow`    per output, the number of planes it needs and a unit index for each: two's complement
            of just that width, its top plane negative. Sums wait in the side buffer
`shared`    as `lookup`, but outputs of a group that combine the same units the same way (repeated
            filters) share one combination, which lists its outputs

A regular list (output i takes unit i, as in a dense layer) needs no table: a counter makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from isa.matrix import Int64, Routes
from passes.route_units import RouteUnits, route_units

CHUNK_ROUTES = 1 << 22  # routes looked at together


@dataclass
class RouteTable:
    """One form of the routes of a layer, for one window.

    stored_bits: size of the tables. read_bits, entries, local_adds, accumulates: what a window
    reads, steps through (one cycle each), adds in registers and adds to outputs' accumulators.
    buffer_writes, buffer_reads: sums, through the side buffer. cycles: int64 [groups], entries.
    """

    form: str
    stored_bits: int = 0
    read_bits: int = 0
    local_adds: int = 0
    accumulates: int = 0
    buffer_writes: int = 0
    buffer_reads: int = 0
    is_possible: bool = True
    cycles: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Fields:
    """Field widths of the tables of a layer, bits.

    kinds: how many (shift, sign) pairs occur. last and sign take one bit each where needed.
    """

    output: int
    shift: int
    sign: int
    kinds: int

    @property
    def entry(self) -> int:
        """A scatter entry without its output: shift, sign and the mark of the last."""
        return self.shift + self.sign + 1


def route_tables(routes: Routes, routing: Int64, outputs: int) -> list[RouteTable]:
    """All forms that can hold the routes of a layer; ``routing``: the list of each group."""
    lists = len(routes.column_start) - 1
    uses = np.bincount(routing, minlength=lists)
    tally: dict[str, list[RouteTable]] = {}
    fields = _fields(routes, outputs)
    for low, high in _chunks(routes):
        units = route_units(routes, low, high)
        for table in _forms(units, uses[low:high], fields, outputs):
            tally.setdefault(table.form, []).append(table)
    lists_of = {form: sum(len(part.cycles) for part in parts) for form, parts in tally.items()}
    joined = [_joined(parts, routing) for form, parts in tally.items() if lists_of[form] == lists]
    return [table for table in joined if table.is_possible] or [RouteTable("counter")]


def _chunks(routes: Routes) -> Iterator[tuple[int, int]]:
    """Runs of whole lists of about ``CHUNK_ROUTES`` routes."""
    ends = routes.start[routes.column_start]
    low = 0
    while low < len(ends) - 1:
        high = int(np.searchsorted(ends, ends[low] + CHUNK_ROUTES, side="right")) - 1
        high = max(low + 1, high)
        yield low, high
        low = high


def _fields(routes: Routes, outputs: int) -> Fields:
    kinds = np.flatnonzero(np.bincount(routes.shift * np.uint8(2) + (routes.sign < 0), minlength=2))
    shifts = np.unique(kinds >> 1)
    return Fields(
        output=bits_for(outputs),
        shift=bits_for(len(shifts)),
        sign=int(len(shifts) < len(kinds)),
        kinds=len(kinds),
    )


def bits_for(choices: int) -> int:
    """Bits that tell ``choices`` things apart; 0 for one."""
    return max(0, int(choices) - 1).bit_length()


def _forms(u: RouteUnits, uses: Int64, fields: Fields, outputs: int) -> Iterator[RouteTable]:
    """Every form of the tables of some lists, each of which ``uses`` groups use."""
    per_list = np.bincount(u.list_of_unit(), u.routes, len(u.units)).astype(np.int64)
    fused = int(((u.columns - u.units) * uses).sum())
    shape = u.units * bits_for(u.formats) * ~u.is_regular

    def table(form: str, bits: Int64, cycles: Int64) -> RouteTable:
        bits = (bits + shape) * ~u.is_regular
        accumulates = int((per_list * uses).sum())
        return RouteTable(
            form, int(bits.sum()), int((bits * uses).sum()), fused, accumulates, cycles=cycles
        )

    yield table("scatter", per_list * (fields.output + fields.entry), per_list)
    entries, gap_bits = _best_gap(u, fields)
    delta = table("delta", entries * (gap_bits + fields.entry), entries)
    delta.is_possible = gap_bits > 0
    yield delta
    if u.is_regular.all():
        return
    yield from _lookups(u, uses, fields, outputs, (per_list, fused, shape))


def _best_gap(u: RouteUnits, fields: Fields) -> tuple[Int64, int]:
    """Entries per list, dummies included, and the gap width that takes the fewest bits; 0: none."""
    lists = len(u.units)
    plain = np.bincount(u.list_of_unit(), u.routes, lists).astype(np.int64)
    begins = np.cumsum(u.routes) - u.routes
    begins = begins[u.routes > 0]
    gap = np.diff(u.output, prepend=np.int32(0))
    gap[begins] = u.output[begins]
    if (gap < 0).any():
        return plain, 0
    owner, best = u.list_of_route(), (plain, 0)
    fewest = np.inf
    for width in range(1, fields.output + 1):
        long = gap >> width > 0
        gap, owner = gap[long], owner[long]  # the others need no dummies from here on
        entries = plain + np.bincount(owner, gap >> width, lists).astype(np.int64)
        bits = int(entries.sum()) * (width + fields.entry)
        if bits < fewest:
            fewest, best = bits, (entries, width)
    return best


def _lookups(
    u: RouteUnits,
    uses: Int64,
    fields: Fields,
    outputs: int,
    known: tuple[Int64, int, Int64],
) -> Iterator[RouteTable]:
    """The forms that read sums by output: ``lookup``, ``narrow`` and ``shared``."""
    per_list, fused, shape = known
    lists = len(u.units)
    key = u.list_of_route() * outputs + u.output
    taken = np.bincount(key, minlength=lists * outputs).reshape(lists, outputs)
    pairs = (taken > 0).sum(axis=1)
    index = np.array([bits_for(count + 1) for count in u.units])
    reads = int((per_list * uses).sum())

    def table(form: str, bits: Int64, cycles: Int64, read: int = reads) -> RouteTable:
        bits = bits + shape
        return RouteTable(
            form,
            int(bits.sum()),
            int((bits * uses).sum()),
            fused + read,
            int((pairs * uses).sum()),
            int((u.units * uses).sum()),
            read,
            not u.is_regular.any(),
            cycles,
        )

    if _kinds_repeat(u, key, taken.size):
        return  # two units of one kind for one output: a position cannot tell them apart
    outputs_of_list = _extent(taken)
    yield table("lookup", outputs_of_list * fields.kinds * index, np.maximum(per_list, pairs))
    planes = _planes(u, key, taken)
    if planes is not None:
        header = bits_for(int(planes.max(initial=0)) + 1)
        bits = planes.sum(axis=1) * index + outputs_of_list * header
        yield table("narrow", bits, np.maximum(per_list, pairs))
    combinations, combined = _combinations(u, key, taken)
    bits = combined * (index + bits_for(fields.kinds) + 1) + pairs * (fields.output + 1)
    shared = table("shared", bits, combined + pairs, int((combined * uses).sum()))
    shared.is_possible &= bool((combinations < pairs).any())
    yield shared


def _kinds_repeat(u: RouteUnits, key: Int64, pairs: int) -> bool:
    """Whether some output of a list takes two units with the same shift and sign."""
    kinds = np.bincount(u.kind, minlength=1) > 0
    place = (np.cumsum(kinds) - 1)[u.kind]
    seen = np.zeros((pairs, int(kinds.sum())), np.bool_)
    seen[key, place] = True
    return int(np.count_nonzero(seen)) < len(key)


def _extent(taken: Int64) -> Int64:
    """Outputs from the first to the last that a list serves, int64 [lists]."""
    served = taken > 0
    first, last = served.argmax(axis=1), taken.shape[1] - served[:, ::-1].argmax(axis=1)
    extent: Int64 = np.where(served.any(axis=1), last - first, 0)
    return extent


def _planes(u: RouteUnits, key: Int64, taken: Int64) -> Int64 | None:
    """Two's-complement planes that each (list, output) needs; None when it has another encoding.

    All planes count positively but the top one, which is negative; a positive top plane stands
    below an empty negative one.
    """
    top = np.full(taken.size, -1, np.int64)
    np.maximum.at(top, key, u.kind.astype(np.int64))
    negatives = np.bincount(key[(u.kind & 1) == 1], minlength=taken.size)
    if (negatives > 1).any() or ((negatives == 1) & (top & 1 == 0)).any():
        return None
    planes: Int64 = np.where(top < 0, 0, (top >> 1) + 2 - (top & 1))
    return planes.reshape(taken.shape)


def _combinations(u: RouteUnits, key: Int64, taken: Int64) -> tuple[Int64, Int64]:
    """Different combinations of units per list, and the units in all of them, int64 [lists]."""
    place = np.arange(len(u.routes)) - np.repeat(np.cumsum(u.units) - u.units, u.units)
    term = np.repeat(place, u.routes).astype(np.uint64) * np.uint64(256) + u.kind
    term = (term + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    term ^= term >> np.uint64(29)
    term *= np.uint64(0xBF58476D1CE4E5B9)
    total = np.zeros(taken.size, np.uint64)
    np.add.at(total, key, term)
    present = np.flatnonzero(taken)
    owner = present // taken.shape[1]
    order = np.lexsort((total[present], owner))
    owner, value = owner[order], total[present][order]
    is_first = np.append(True, (owner[1:] != owner[:-1]) | (value[1:] != value[:-1]))[: len(owner)]
    units = taken.ravel()[present[order]]
    lists = len(taken)
    combined = np.bincount(owner[is_first], units[is_first], lists).astype(np.int64)
    return np.bincount(owner[is_first], minlength=lists), combined


def _joined(parts: list[RouteTable], routing: Int64) -> RouteTable:
    """One table from those of runs of lists."""
    total = RouteTable(parts[0].form)
    for part in parts:
        total.stored_bits += part.stored_bits
        total.read_bits += part.read_bits
        total.local_adds += part.local_adds
        total.accumulates += part.accumulates
        total.buffer_writes += part.buffer_writes
        total.buffer_reads += part.buffer_reads
        total.is_possible &= part.is_possible
    total.cycles = np.concatenate([part.cycles for part in parts])[routing]
    return total
