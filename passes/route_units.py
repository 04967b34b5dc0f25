"""Route units: what the tables of a mapping have to say, once regular parts are left out.

Neighbouring columns of a group that go to the same outputs, each with its own fixed shift and sign
(the digits of one weight), are combined behind the ADC and leave as one sum: a *unit*. A dense
layer has one unit per group and output; de-duplicated bit columns are a unit each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.matrix import Int32, Int64, Routes, ranges

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RouteUnits:
    """Units of some route lists.

    columns: int64 [lists], stored columns. units: int64 [lists]. routes: int64 [units], how many
    outputs take each. output, kind: one per route of a unit; kind is ``shift * 2 + (sign < 0)`` of
    the unit's first column. widest: columns of the largest unit. formats: how many different
    shapes (columns, shifts and signs relative to the first) the units have. is_regular: lists
    whose units go to one output each, in order, all of one kind and shape: a counter makes them.
    """

    columns: Int64
    units: Int64
    routes: Int64
    output: Int32
    kind: NDArray[np.uint8]
    widest: int
    formats: int
    is_regular: Bools

    def list_of_unit(self) -> Int64:
        return np.repeat(np.arange(len(self.units)), self.units)

    def list_of_route(self) -> Int64:
        return np.repeat(self.list_of_unit(), self.routes)


def route_units(routes: Routes, first_list: int, last_list: int) -> RouteUnits:
    """The units of the lists ``first_list..last_list``."""
    low, high = routes.column_start[[first_list, last_list]]
    starts = routes.column_start[first_list : last_list + 1] - low
    counts = np.diff(routes.start[low : high + 1])
    begin = routes.start[low:high]
    kind = _kinds(routes, int(routes.start[low]), int(routes.start[high]))
    fused, step = _fused(routes, starts, counts, begin, kind)
    leads = np.flatnonzero(~fused)
    units = np.diff(np.searchsorted(leads, starts))
    widths = np.diff(np.append(leads, len(fused)))
    shape = _shapes(step, leads)
    taken = ranges(begin[leads], counts[leads])
    output, lead_kind = routes.output[taken], kind[taken - int(routes.start[low])]
    return RouteUnits(
        columns=np.diff(starts),
        units=units,
        routes=counts[leads],
        output=output,
        kind=lead_kind,
        widest=int(widths.max(initial=0)),
        formats=len(np.unique(shape)),
        is_regular=_regular(units, counts[leads], output, lead_kind, shape),
    )


def _kinds(routes: Routes, first: int, last: int) -> NDArray[np.uint8]:
    return routes.shift[first:last] * np.uint8(2) + (routes.sign[first:last] < 0)


def _fused(
    routes: Routes, starts: Int64, counts: Int64, begin: Int64, kind: NDArray[np.uint8]
) -> tuple[Bools, Int64]:
    """Whether each column continues the unit of the one before, and its kind relative to that.

    The step packs the difference of the shifts and whether the signs differ.
    """
    step = np.zeros(len(counts), np.int64)
    fused = np.zeros(len(counts), np.bool_)
    fused[1:] = (counts[1:] == counts[:-1]) & (counts[1:] > 0)
    fused[starts[:-1][starts[:-1] < len(counts)]] = False
    maybe = np.flatnonzero(fused)
    maybe = maybe[routes.output[begin[maybe]] == routes.output[begin[maybe - 1]]]
    size = counts[maybe]
    index = ranges(begin[maybe], size)
    before = index - np.repeat(size, size)
    base = int(begin[0]) if len(begin) else 0
    own, other = kind[index - base].astype(np.int64), kind[before - base].astype(np.int64)
    each = ((own >> 1) - (other >> 1)) * 2 + ((own ^ other) & 1)
    first = np.cumsum(size) - size
    same = (routes.output[index] == routes.output[before]) & (each == np.repeat(each[first], size))
    fused[:] = False
    if len(maybe):
        fused[maybe] = np.logical_and.reduceat(same, first)
        step[maybe] = each[first]
    step[~fused] = 0
    return fused, step


def _shapes(step: Int64, leads: Int64) -> NDArray[np.uint64]:
    """A number for the shape of each unit: equal shapes have equal numbers."""
    if not len(leads):
        return np.zeros(0, np.uint64)
    width = np.diff(np.append(leads, len(step)))
    place = np.arange(len(step)) - np.repeat(leads, width)
    mixed = (step + 64 * place + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.add.reduceat(mixed, leads)


def _regular(
    units: Int64, routes: Int64, output: Int32, kind: NDArray[np.uint8], shape: NDArray[np.uint64]
) -> Bools:
    """Lists that a counter makes; see ``RouteUnits``."""
    regular = np.zeros(len(units), np.bool_)
    if (routes == 1).all():
        owner = np.repeat(np.arange(len(units)), units)
        first = (np.cumsum(units) - units)[owner]
        in_order = output - output[first] == np.arange(len(output)) - first
        alike = in_order & (kind == kind[first]) & (shape == shape[first])
        regular = np.bincount(owner[~alike], minlength=len(units)) == 0
    return regular
