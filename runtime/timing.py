"""Event simulation of an executed program, in integer cycles.

Each core hands its instructions in order to its units, one per fetch; a unit starts the next one
when it is free, its hazards are over, and its message or credit is there. Images follow each
other without a barrier: a core goes on to the next image when its stream has ended, and the
hazards keep the two apart. Only links and the global memory are shared between cores, so only
they need events in time order; all else follows as a recurrence of maxima.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from isa.diagnostics import Diagnostic, PimError
from isa.program import Program
from isa.target import Target
from runtime.core_view import Catalogue, CoreView
from runtime.links import GlobalMemory, Mesh
from runtime.motion import Message, Step, Times, Unit, Wiring
from runtime.skips import Skips
from runtime.stream_table import CoreTable, core_table
from runtime.timeline import REASONS, Timeline, UnitTime

_ISSUE, _GLOBAL = REASONS.index("issue"), REASONS.index("global memory")


def simulate(
    program: Program, target: Target, images: int = 1, skips: Skips | None = None
) -> Timeline:
    """Run ``images`` images through the program's pipeline; values are not computed.

    target: as large as the program needs (``Target.with_mesh``). images: at least 1.
    skips: what a run has skipped; image k takes the times of the run's image k modulo their
    number. Without it every operation unit fires.
    Raises PimError R711 when cores wait for each other for ever.
    """
    return simulate_tables(program, target, core_tables(program, target), images, skips)


def core_tables(program: Program, target: Target) -> list[CoreTable]:
    """The streams of all cores as tables; of use for any number of simulations."""
    catalogue = Catalogue.of(program)
    return [core_table(CoreView(core, catalogue, target)) for core in program.cores]


def simulate_tables(
    program: Program,
    target: Target,
    tables: list[CoreTable],
    images: int,
    skips: Skips | None = None,
) -> Timeline:
    """As ``simulate``, with tables that are already there."""
    if images < 1:
        raise ValueError(f"a simulation takes at least one image, not {images}")
    return _Simulation(program, target, tables, images, skips).run()


def simulate_alone(
    program: Program,
    target: Target,
    tables: list[CoreTable],
    messages: Mapping[str, int],
    skips: Skips | None = None,
) -> Timeline:
    """One image through some cores of a program, as if the others had done all they can.

    messages: per image, by channel.
    """
    alone = _Simulation(program, target, tables, 1, skips)
    alone.wiring.open_ends({table.core for table in tables}, messages)
    return alone.run()


class _Simulation:
    """The state of one simulation."""

    def __init__(
        self,
        program: Program,
        target: Target,
        tables: list[CoreTable],
        images: int,
        skips: Skips | None,
    ) -> None:
        self.target, self.tables, self.images = target, tables, images
        self.mesh, self.memory = Mesh(target), GlobalMemory(target)
        channels = {channel.name: channel for channel in program.channels}
        self.wiring = Wiring(target, channels, self.mesh, skips)
        self.units = [self.wiring.units(table) for table in tables]
        self.heap: list[tuple[int, int, int, int, Message | Unit]] = []
        self.events = 0

    def run(self) -> Timeline:
        """Advance every unit as far as it goes, then event by event."""
        for units in self.units:
            for unit in units:
                self._advance([unit])
        heap = self.heap
        while heap:
            time, *_, item = heapq.heappop(heap)
            if isinstance(item, Message):
                self._move(item, time)
            else:
                self._transfer(item, time)
        self._check_ended()
        return self._timeline()

    def _push(self, time: int, core: int, item: Message | Unit) -> None:
        """Ask for a link at ``time``; who ask in the same cycle go by core, then by unit.

        Two messages of one core never ask for the same link in the same cycle.
        """
        self.events += 1
        rank = item.rank if isinstance(item, Unit) else 0
        heapq.heappush(self.heap, (time, core, rank, self.events, item))

    def _advance(self, ready: list[Unit]) -> None:
        """Run the units of ``ready``, and all that they wake, until each of them waits."""
        images = self.images
        while ready:
            unit = ready.pop()
            steps, length = unit.steps, len(unit.steps)
            while unit.image < images:
                step = steps[unit.at]
                found = _start(unit, step)
                if found is None:
                    break
                start, cause = found
                unit.at += 1
                if unit.at == length:
                    unit.at = 0
                    unit.image += 1
                unit.starts.append(start)
                unit.causes.append(cause)
                if step.transfer:
                    self._push(start, unit.core, unit)
                    break
                self._end(unit, step, start, ready)

    def _end(self, unit: Unit, step: Step, start: int, ready: list[Unit]) -> None:
        """Note the end of an instruction that started at ``start`` and wake who waits for it."""
        occupancy, latency = step.occupancy, step.latency
        if step.spared:
            image = (len(unit.starts) - 1) // len(unit.steps)
            less = step.spared[image % len(step.spared)]
            occupancy, latency = occupancy - less, latency - less
        unit.busy += occupancy
        unit.free = start + occupancy
        end = start + latency
        _note(unit.ends, end, ready)
        if step.path is not None:
            assert step.done is not None, "a message arrives somewhere"
            self._push(start, unit.core, Message(unit.core, step.path, step.occupancy, step.done))
        elif step.done is not None:
            _note(step.done, end, ready)

    def _move(self, message: Message, time: int) -> None:
        """Let the head of a message take its next link."""
        index, onward = message.path[message.at]
        start = self.mesh.links[index].serve(time, message.flits)
        message.at += 1
        if message.at < len(message.path):
            self._push(start + onward, message.core, message)
        else:
            ready: list[Unit] = []
            _note(message.arrivals, start + onward + message.flits, ready)
            self._advance(ready)

    def _transfer(self, unit: Unit, time: int) -> None:
        """Let a unit that asked for it at ``time`` use the global memory."""
        step = unit.steps[unit.at - 1]
        start = self.memory.serve(time, step.transfer)
        unit.starts[-1] = start
        unit.stalls[_GLOBAL] += start - time
        ready = [unit]
        self._end(unit, step, start, ready)
        self._advance(ready)

    def _check_ended(self) -> None:
        stuck = [unit for units in self.units for unit in units if unit.image < self.images]
        findings = []
        for unit in stuck:
            for times, number, per_image in unit.steps[unit.at].waits:
                channel = self.wiring.waiting_channel(times)
                if channel is not None and number + unit.image * per_image >= len(times.values):
                    findings.append(
                        Diagnostic(
                            "R711",
                            f"deadlock: core {unit.core} waits on channel `{channel}` "
                            f"({REASONS[times.reason]}) in image {unit.image}",
                        )
                    )
        if stuck:
            raise PimError(findings or [Diagnostic("I999", "units wait, but not on a channel")])

    def _timeline(self) -> Timeline:
        units = [
            [_unit_time(table, index, unit) for index, unit in enumerate(units)]
            for table, units in zip(self.tables, self.units, strict=True)
        ]
        return Timeline(
            self.images,
            self.target.cycle_ns,
            self.tables,
            units,
            self.mesh.links,
            self.memory.links,
        )


def _start(unit: Unit, step: Step) -> tuple[int, int] | None:
    """When a unit can start a step, and why not before; None while that is not known.

    Whoever is not known to have happened gets the unit on its list.
    """
    image = unit.image
    issue = image * unit.image_cycles + step.issue
    time, binding, number = unit.free, None, 0
    for times, base, per_image in step.waits:
        index = base + image * per_image
        if index >= 0:
            if index >= len(times.values):
                times.waiters.append((index, unit))
                return None
            if times.values[index] > time:
                time, binding, number = times.values[index], times, index
    if issue > time:
        unit.stalls[_ISSUE] += issue - unit.free
        return issue, _ISSUE
    if binding is None:
        return time, unit.ends.reason  # its own work
    return time, _blame(unit, time, binding, number)


def _blame(unit: Unit, time: int, binding: Times, number: int) -> int:
    """Book the wait of a unit until ``time`` for what ended it; the main reason.

    While the other unit worked it is to blame; while it stood idle, what it waited for is.
    """
    other, low = binding.unit, unit.free
    if other is None:
        unit.stalls[binding.reason] += time - low
        return binding.reason
    shares = dict[int, int]()
    ends = other.ends.values
    while time > low:
        begun = max(low, other.starts[number])
        before = max(low, min(begun, ends[number - 1] if number else 0))
        cause = other.causes[number]
        shares[binding.reason] = shares.get(binding.reason, 0) + time - begun
        shares[cause] = shares.get(cause, 0) + begun - before
        time, number = before, number - 1
    for reason, cycles in shares.items():
        unit.stalls[reason] += cycles
    return max(shares, key=lambda reason: shares[reason])


def _note(times: Times, cycle: int, ready: list[Unit]) -> None:
    """Note that the next thing happens at ``cycle``; who waits for it is ready."""
    times.values.append(cycle)
    if times.waiters:
        known = len(times.values)
        ready += [unit for number, unit in times.waiters if number < known]
        times.waiters = [waiter for waiter in times.waiters if waiter[0] >= known]


def _unit_time(table: CoreTable, index: int, unit: Unit) -> UnitTime:
    plan = table.units[index]
    layer = table.static[plan.steps[0]].layer
    stalls = {reason: cycles for reason, cycles in zip(REASONS, unit.stalls, strict=True) if cycles}
    return UnitTime(
        unit.core, layer, plan.kind, plan.name, unit.busy, stalls, unit.starts, unit.ends.values
    )
