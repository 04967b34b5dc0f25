"""How long each instruction keeps its unit, and when its result is there; in cycles.

One function per instruction class, as with the executors; all numbers are the target's. Waiting
for data, messages, credit, links and the global memory is not part of a duration: that is what
the event simulation adds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Const, Copy, Fill, Gather, Host, Load, Mvm, Recv, Send, Store
from isa.instruction import Instruction
from isa.matrix import Int64
from isa.operands import Region
from runtime.array_work import drain_cycles
from runtime.core_view import (
    CoreView,
    global_latency_cycles,
    global_transfer_cycles,
    granule_bits,
)
from runtime.lanes import VECTOR_CLASSES, lane_elements, lane_steps

Kind = TypeVar("Kind", bound=Instruction)


@dataclass(frozen=True)
class Duration:
    """occupancy: cycles until the unit can start its next instruction. latency: cycles until the
    result can be read and the sources overwritten; at least the occupancy."""

    occupancy: int
    latency: int


DURATIONS: dict[type[Instruction], Callable[[CoreView, Any], Duration]] = {}


def lasts(
    cls: type[Kind],
) -> Callable[[Callable[[CoreView, Kind], Duration]], Callable[[CoreView, Kind], Duration]]:
    """Register the duration of one instruction class."""

    def register(
        function: Callable[[CoreView, Kind], Duration],
    ) -> Callable[[CoreView, Kind], Duration]:
        DURATIONS[cls] = function
        return function

    return register


def duration(view: CoreView, instruction: Instruction) -> Duration:
    """The duration of one instruction on its core."""
    found = DURATIONS[type(instruction)](view, instruction)
    size = outside_bytes(view, instruction)
    if not size:
        return found
    way = _over_global_link(view, size).latency
    return Duration(found.occupancy + way, found.latency + way)


def outside_bytes(view: CoreView, instruction: Instruction) -> int:
    """Bytes of operands in the core's buffers in global memory, which cross a link of it."""
    if not view.outside:
        return 0
    size = 0
    for region in (*instruction.read_regions(), *instruction.written_regions()):
        if region.name not in view.outside:
            continue
        if isinstance(instruction, Gather) and region == instruction.source:
            word = granule_bits(view.target.events.memory_access) // 8
            size += word * gathered_words(view, region, instruction.index)
        else:
            size += view.bytes(region)
    return size


def moving_cycles(view: CoreView, size: int) -> int:
    """Cycles to move ``size`` bytes within a core: the memory's latency, then a beat each."""
    events = view.target.events
    return events.memory_access.cycles + view.bus_beats(size) * events.bus_transfer.cycles


def _exclusive(cycles: int) -> Duration:
    return Duration(cycles, cycles)


def _over_global_link(view: CoreView, size: int) -> Duration:
    """A transfer from or to the global memory; its link is busy for the transfer alone."""
    transfer = global_transfer_cycles(view.target, size)
    return _exclusive(global_latency_cycles(view.target) + transfer)


@lasts(Load)
def load(view: CoreView, i: Load) -> Duration:
    return _over_global_link(view, view.bytes(i.source))


@lasts(Store)
def store(view: CoreView, i: Store) -> Duration:
    return _over_global_link(view, view.bytes(i.into))


@lasts(Host)
def host(view: CoreView, i: Host) -> Duration:
    """Only its tensors are moved in time: no target says how long the host computes."""
    return _over_global_link(view, view.partition_bytes(i.partition))


@lasts(Send)
def send(view: CoreView, i: Send) -> Duration:
    """Until the last flit has left the port; a queue in global memory: until it stands there."""
    size = view.bytes(i.source)
    if view.catalogue.channels[i.channel].address is None:
        return _over_global_link(view, size)
    return _exclusive(view.flits(size) * view.target.events.flit_hop.cycles)


@lasts(Recv)
def recv(view: CoreView, i: Recv) -> Duration:
    """From the queue, which stands in the core's memory or in the global one, to the buffer."""
    size = view.bytes(i.into)
    if view.catalogue.channels[i.channel].address is None:
        return _over_global_link(view, size)
    return _exclusive(moving_cycles(view, size))


@lasts(Fill)
def fill(view: CoreView, i: Fill) -> Duration:
    return _exclusive(moving_cycles(view, view.bytes(i.into)))


@lasts(Const)
def const(view: CoreView, i: Const) -> Duration:
    """From the index memory, which holds the tables; reading and writing overlap."""
    read = view.target.events.index_read
    reading = view.index_beats(view.table_bits(i.table)) * read.cycles
    return _exclusive(max(reading, moving_cycles(view, view.bytes(i.into))))


@lasts(Copy)
def copy(view: CoreView, i: Copy) -> Duration:
    return _exclusive(moving_cycles(view, view.bytes(i.into)))


@lasts(Gather)
def gather(view: CoreView, i: Gather) -> Duration:
    """Every change from one memory word to another takes a beat, as does every word written."""
    events = view.target.events
    size = max(gathered_words(view, i.source, i.index), view.memory_beats(view.bytes(i.into)))
    return _exclusive(events.memory_access.cycles + size * events.bus_transfer.cycles)


def gathered_words(view: CoreView, source: Region, index: str) -> int:
    """Memory words that a gather reads, in the order of its index; neighbours share a word."""
    values = view.catalogue.tables[index].values.ravel().astype(np.int64)
    word = granule_bits(view.target.events.memory_access) // 8
    per_word = max(1, word // view.itemsize(source))
    words = values[values >= 0] // per_word
    return int(np.count_nonzero(np.diff(words))) + (1 if len(words) else 0)


@lasts(Mvm)
def mvm(view: CoreView, i: Mvm) -> Duration:
    """All windows through the busiest crossbar, or through the bus where that is slower.

    The inputs of a window are fetched while the one before is computed; only the first fetch
    and the last fire's way out come on top. No fire is skipped; see ``spared_cycles``.
    """
    events = view.target.events
    occupancy = view.shape(i.into)[1] * max(view.work(i.matrix).window_cycles, _pace(view, i))
    first = events.memory_access.cycles + _fetches(view, i) * events.bus_transfer.cycles
    return Duration(occupancy, first + occupancy + drain_cycles(view.target))


def spared_cycles(view: CoreView, i: Mvm, window_cycles: NDArray[np.integer]) -> Int64:
    """By how many cycles an mvm is shorter, int64 [images], in occupancy as in latency.

    window_cycles: of the busiest crossbar without the fires that are skipped, [images, windows].
    """
    pace = _pace(view, i)
    full = window_cycles.shape[1] * max(view.work(i.matrix).window_cycles, pace)
    shorter: Int64 = full - np.maximum(window_cycles, pace).sum(axis=1, dtype=np.int64)
    return shorter


def _pace(view: CoreView, i: Mvm) -> int:
    """Cycles below which no window gets: inputs and sums on the bus, which groups fire."""
    events, windows = view.target.events, view.shape(i.into)[1]
    written = view.bus_beats(view.bytes(i.into) // max(1, windows))
    moved = (_fetches(view, i) + written) * events.bus_transfer.cycles
    mask = view.index_beats(view.work(i.matrix).mask_bits) * events.index_read.cycles
    return max(moved, mask)


def _fetches(view: CoreView, i: Mvm) -> int:
    """Transfers of a window's inputs on the bus."""
    sizes = view.work(i.matrix).input_bytes_by_pe
    return sum(view.bus_beats(int(size)) for size in sizes)


def lane_cycles(view: CoreView, i: Instruction) -> Duration:
    """Elements over lanes, at the pace of the slowest step; the other steps come on top."""
    events = view.target.events
    steps = [count * max(1, getattr(events, name).cycles) for name, count in lane_steps(view, i)]
    rounds = -(-lane_elements(view, i) // view.target.vector.lanes)
    slowest = max(steps)
    return _exclusive(rounds * slowest + sum(steps) - slowest)


for _cls in VECTOR_CLASSES:
    DURATIONS[_cls] = lane_cycles
