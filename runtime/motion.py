"""Units in motion: the tables of all cores, linked for the simulation loop to run through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from isa.catalog import Host, Load, Mvm, Recv, Send, Store
from isa.instruction import Instruction
from isa.program import Channel
from isa.target import Target
from runtime.core_view import CoreView, global_transfer_cycles
from runtime.durations import outside_bytes
from runtime.links import Hop, Mesh
from runtime.skips import Skips
from runtime.stream_table import CoreTable
from runtime.timeline import REASONS

EMPTY, FULL = REASONS.index("channel empty"), REASONS.index("channel full")


@dataclass(eq=False)
class Times:
    """Cycles at which numbered things happen, as far as known, and who waits for more of them.

    reason: index in REASONS of a wait for it. waiters: (number, unit). unit: whose ends they are.
    """

    reason: int
    values: list[int] = field(default_factory=list)
    waiters: list[tuple[int, Unit]] = field(default_factory=list)
    unit: Unit | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """An executed instruction of one image, as the loop needs it.

    waits: (times, number, numbers per image) of all that must have happened. issue: cycle at
    which the core hands it out, from the start of its image. transfer: cycles on a link of the
    global memory, 0 for none. path: links of its message on the mesh, flits: cycles on each.
    done: what its end completes besides: the arrival of a message, or a credit. spared: cycles
    by which occupancy and latency are shorter, by image of a run; image after image, again and
    again.
    """

    waits: tuple[tuple[Times, int, int], ...]
    issue: int
    occupancy: int
    latency: int
    transfer: int = 0
    path: tuple[Hop, ...] | None = None
    done: Times | None = None
    spared: tuple[int, ...] = ()


@dataclass(eq=False)
class Unit:
    """A unit in motion. rank: its place among the units of its core, in text order.

    starts, causes: of its instructions so far; a cause is the main reason of the wait before.
    """

    core: int
    rank: int
    ends: Times
    image_cycles: int  # in which the core can hand out one image
    steps: list[Step] = field(default_factory=list)
    image: int = 0
    at: int = 0
    free: int = 0
    busy: int = 0
    starts: list[int] = field(default_factory=list)
    causes: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=lambda: [0] * len(REASONS))


@dataclass(eq=False)
class Message:
    """A message under way: its sender, links, cycles on each of them, and the next link."""

    core: int
    path: tuple[Hop, ...]
    flits: int
    arrivals: Times
    at: int = 0


class Wiring:
    """Makes the units of all cores; a step refers to what it waits for instead of naming it."""

    def __init__(
        self, target: Target, channels: Mapping[str, Channel], mesh: Mesh, skips: Skips | None
    ) -> None:
        self._target, self._channels, self._skips = target, channels, skips
        self._paths = {
            c.name: mesh.path(c.source, c.target)
            for c in channels.values()
            if c.address is not None
        }
        self._arrivals = {name: Times(EMPTY) for name in channels}
        self._credits = {name: Times(FULL) for name in channels}

    def open_ends(self, cores: Set[int], messages: Mapping[str, int]) -> None:
        """Let messages of cores outside of ``cores`` be there, and all room for those to them."""
        for name, channel in self._channels.items():
            if channel.source not in cores:
                self._arrivals[name].values = [0] * messages[name]
            if channel.target not in cores:
                self._credits[name].values = [0] * messages[name]

    def waiting_channel(self, times: Times) -> str | None:
        """The channel whose messages or credits ``times`` are, None for ends of a unit."""
        for found in (self._arrivals, self._credits):
            for name, candidate in found.items():
                if candidate is times:
                    return name
        return None

    def units(self, table: CoreTable) -> list[Unit]:
        """The units of one core at cycle 0."""
        fetch = self._target.events.instruction_fetch.cycles
        units = []
        for rank, plan in enumerate(table.units):
            ends = Times(REASONS.index(plan.kind))
            ends.unit = Unit(table.core, rank, ends, fetch * table.length)
            units.append(ends.unit)
        for index, unit in enumerate(units):
            self._add_steps(table, index, units, unit, fetch)
        return units

    def _add_steps(
        self, table: CoreTable, index: int, units: list[Unit], unit: Unit, fetch: int
    ) -> None:
        plan, sent, windows = table.units[index], Counter[str](), Counter[str]()
        static = [table.static[step] for step in plan.steps]
        totals = Counter(s.instruction.channel for s in static
                         if isinstance(s.instruction, Send | Recv))  # fmt: skip
        counts = [len(other.steps) for other in table.units]
        for step, dependencies, place in zip(static, plan.dependencies, plan.places, strict=True):
            i, lasts = step.instruction, step.duration
            waits = [(units[other].ends, number, counts[other]) for other, number in dependencies]
            done = path = None
            if isinstance(i, Send | Recv):
                waits.append((*self._wait(i, sent[i.channel]), totals[i.channel]))
                sent[i.channel] += 1
                done = (self._arrivals if isinstance(i, Send) else self._credits)[i.channel]
                path = self._paths.get(i.channel) if isinstance(i, Send) else None
            spared: tuple[int, ...] = ()
            if isinstance(i, Mvm) and self._skips is not None:
                spared = self._skips.spared_cycles(table.view, i, windows[i.matrix])
                windows[i.matrix] += table.view.shape(i.into)[1]
            times = (lasts.occupancy, lasts.latency, self._transfer(table.view, i))
            unit.steps.append(Step(tuple(waits), place * fetch, *times, path, done, spared))

    def _wait(self, i: Send | Recv, number: int) -> tuple[Times, int]:
        """What the message ``number`` of an image waits for besides hazards."""
        if isinstance(i, Recv):
            return self._arrivals[i.channel], number
        return self._credits[i.channel], number - self._channels[i.channel].depth

    def _transfer(self, view: CoreView, i: Instruction) -> int:
        """Cycles that an instruction needs a link of the global memory."""
        size = outside_bytes(view, i)
        if isinstance(i, Send | Recv):
            if i.channel not in self._paths:
                size += view.bytes(i.source if isinstance(i, Send) else i.into)
        elif isinstance(i, Load | Store):
            size += view.bytes(i.source if isinstance(i, Load) else i.into)
        elif isinstance(i, Host):
            size += view.partition_bytes(i.partition)
        return global_transfer_cycles(self._target, size) if size else 0
