"""The event simulation once more with SimPy: processes instead of tables, hazards by brute force.

Only the durations of instructions, and what skips spare, are shared with `runtime.timing`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from isa.catalog import Load, Mvm, Recv, Send, Store
from isa.instruction import Instruction
from isa.operands import Region
from isa.program import Program, unroll
from isa.target import Target
from runtime.core_view import Catalogue, CoreView, global_transfer_cycles
from runtime.durations import duration
from runtime.skips import Skips

Process = Generator[simpy.Event, Any, None]


@dataclass(eq=False)
class Instance:
    """One executed instruction. reads, writes: (buffer, slot) of the core's buffers."""

    instruction: Instruction
    unit: str
    issue: int
    reads: set[tuple[str, int]]
    writes: set[tuple[str, int]]
    done: simpy.Event
    end: int = 0
    spared: int = 0  # cycles, of an mvm that skips fires


@dataclass(eq=False)
class Arbiter:
    """Links that serve by (cycle of the request, core, unit of the core).

    All requests of a cycle are in half a cycle later; then it decides.
    """

    env: simpy.Environment
    count: int
    free: list[int] = field(default_factory=list)
    queue: list[tuple[int, int, int, int, simpy.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = [0] * self.count

    def take(self, core: int, cycles: int, unit: int = 0) -> Generator[simpy.Event, Any, int]:
        """Wait for a link; the cycle at which it is granted."""
        granted = self.env.event()
        self.queue.append((int(self.env.now), core, unit, cycles, granted))
        if len(self.queue) == 1:
            self.env.process(self._decide())
        start: int = yield granted
        return start

    def _decide(self) -> Process:
        yield self.env.timeout(0.5)
        for asked, _, _, cycles, granted in sorted(self.queue, key=lambda request: request[:3]):
            link = self.free.index(min(self.free))
            start = max(asked, self.free[link])
            self.free[link] = start + cycles
            granted.succeed(start)
        self.queue.clear()


class Oracle:
    """Runs a program once; ``ends`` maps (core, unit) to the cycles at which it ended each step."""

    def __init__(
        self, program: Program, target: Target, images: int, skips: Skips | None = None
    ) -> None:
        self.env = simpy.Environment()
        self.target, self.skips = target, skips
        self.channels = {channel.name: channel for channel in program.channels}
        self.memory = Arbiter(self.env, target.global_memory.links)
        self.links: dict[object, Arbiter] = defaultdict(lambda: Arbiter(self.env, 1))
        self.arrived: dict[str, dict[int, simpy.Event]] = defaultdict(
            lambda: defaultdict(self.env.event)
        )
        self.credit: dict[str, dict[int, simpy.Event]] = defaultdict(
            lambda: defaultdict(self.env.event)
        )
        self.ends: dict[tuple[int, str], list[int]] = defaultdict(list)
        catalogue = Catalogue.of(program)
        for core in program.cores:
            view = CoreView(core, catalogue, target)
            instances = list(self._instances(view, images))
            units = list(dict.fromkeys(instance.unit for instance in instances))
            for rank, unit in enumerate(units):
                self.env.process(self._unit(view, unit, rank, instances))
        self.env.run()

    def _instances(self, view: CoreView, images: int) -> Iterator[Instance]:
        issue = 0
        for image in range(images):
            windows: dict[str, int] = defaultdict(int)
            for i, env in unroll(view.core.body):
                unit = {"network": "receive" if isinstance(i, Recv) else "send"}.get(i.unit, i.unit)
                reads = self._slots(view, i.read_regions(), env)
                writes = self._slots(view, i.written_regions(), env)
                spared = 0
                if isinstance(i, Mvm) and self.skips is not None:
                    by_image = self.skips.spared_cycles(view, i, windows[i.matrix])
                    spared = by_image[image % self.skips.images]
                    windows[i.matrix] += view.shape(i.into)[1]
                yield Instance(i, unit, issue, reads, writes, self.env.event(), 0, spared)
                issue += self.target.events.instruction_fetch.cycles

    def _slots(self, view: CoreView, regions: tuple[Region, ...], env: dict[str, int]) -> set[Any]:
        buffers = {buffer.name: buffer for buffer in view.core.buffers}
        found = set()
        for region in regions:
            if region.name in buffers:
                depth = buffers[region.name].shape[0]
                rows = range(depth) if region.rows is None else region.rows.at(env)
                found |= {(region.name, row % depth) for row in rows}
        return found

    def _unit(self, view: CoreView, unit: str, rank: int, instances: list[Instance]) -> Process:
        numbers: dict[str, int] = defaultdict(int)
        for index, instance in enumerate(instances):
            if instance.unit != unit:
                continue
            before = instances[:index]
            conflicts = [
                other.done
                for other in before
                if other.writes & (instance.reads | instance.writes)
                or other.reads & instance.writes
            ]
            yield self.env.all_of(conflicts)
            yield from self._until(instance.issue)
            yield from self._execute(view, instance, rank, numbers)
            self.ends[view.core.index, unit].append(instance.end)

    def _until(self, cycle: int) -> Process:
        if cycle > self.env.now:
            yield self.env.timeout(cycle - self.env.now)

    def _execute(
        self, view: CoreView, instance: Instance, rank: int, numbers: dict[str, int]
    ) -> Process:
        i, lasts, core = instance.instruction, duration(view, instance.instruction), view.core.index
        channel = self.channels.get(getattr(i, "channel", ""))
        number = 0
        if channel is not None:
            number = numbers[channel.name]
            numbers[channel.name] += 1
            if isinstance(i, Recv):
                yield self.arrived[channel.name][number]
            elif number >= channel.depth:
                yield self.credit[channel.name][number - channel.depth]
        start = int(self.env.now)
        if isinstance(i, Load | Store) or (channel is not None and channel.address is None):
            region = (*i.read_regions(), *i.written_regions())[0]
            transfer = global_transfer_cycles(self.target, view.bytes(region))
            start = yield from self.memory.take(core, transfer, rank)
        elif isinstance(i, Send):
            self.env.process(self._message(core, channel, number, lasts.occupancy))
        instance.end = start + lasts.latency - instance.spared
        self.env.process(self._finish(instance, channel, number))
        yield from self._until(start + lasts.occupancy - instance.spared)

    def _finish(self, instance: Instance, channel: Any, number: int) -> Process:
        yield from self._until(instance.end)
        instance.done.succeed()
        if isinstance(instance.instruction, Recv):
            self.credit[channel.name][number].succeed()
        elif isinstance(instance.instruction, Send) and channel.address is None:
            self.arrived[channel.name][number].succeed()

    def _message(self, core: int, channel: Any, number: int, flits: int) -> Process:
        (x, y), (x1, y1) = (self.target.router_of(c) for c in (channel.source, channel.target))
        hop = self.target.network.router_cycles + self.target.network.link_cycles
        links: list[tuple[object, int]] = []
        while x != x1:
            step = 1 if x1 > x else -1
            links.append((("x", x, y, step), hop))
            x += step
        while y != y1:
            step = 1 if y1 > y else -1
            links.append((("y", x, y, step), hop))
            y += step
        links.append((("into", channel.target), 0 if links else hop))
        for link, onward in links:
            start = yield from self.links[link].take(core, flits)
            yield from self._until(start + onward)
        yield from self._until(start + onward + flits)
        self.arrived[channel.name][number].succeed()
