"""What a simulation gives: when every instruction ran, how busy each unit was, why it waited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from isa.instruction import Instruction
from runtime.links import Link
from runtime.stream_table import CoreTable

# why a unit stands idle before an instruction: another unit of the core must finish first, the
# message or the credit is not there, the core has not handed the instruction out, contention
REASONS = (
    "matrix",
    "vector",
    "memory",
    "receive",
    "send",
    "channel empty",
    "channel full",
    "issue",
    "global memory",
)


@dataclass(frozen=True, eq=False)
class UnitTime:
    """One unit of one core over the whole simulation; all times in cycles.

    kind: "matrix", "vector", "memory", "receive" or "send". busy: cycles in which it could not
    start anything else. stalls: idle cycles before its instructions, by reason; idle time after
    the last one is in neither. starts, ends: of its instructions in order.
    """

    core: int
    layer: str
    kind: str
    name: str
    busy: int
    stalls: dict[str, int]
    starts: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Executed:
    """One executed instruction on a unit; times in cycles."""

    instruction: Instruction
    layer: str
    image: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Timeline:
    """The times of ``images`` images, in cycles of ``cycle_ns``; latency and so on in cycles too.

    tables: the streams that ran, one per core; ``units[core]`` has those of ``tables[core]``.
    links: of the mesh, then of the global memory.
    """

    images: int
    cycle_ns: float
    tables: list[CoreTable]
    units: list[list[UnitTime]]
    links: list[Link]
    global_links: list[Link]

    @cached_property
    def image_ends(self) -> list[int]:
        """Cycle at which everything that belongs to an image is over, per image."""
        ends = [0] * self.images
        for unit in self.all_units():
            count = len(unit.ends) // self.images
            for image in range(self.images):
                ends[image] = max(ends[image], unit.ends[(image + 1) * count - 1])
        return ends

    @property
    def makespan(self) -> int:
        """Cycles until everything is over."""
        return max(self.image_ends)

    @property
    def latency(self) -> int:
        """Cycles of the first image, from an idle chip."""
        return self.image_ends[0]

    @cached_property
    def interval(self) -> float:
        """Cycles between images in the steady state; the latency when there is just one image.

        Over the later half of the images, of the unit that needs longest: no unit can be slower
        for ever than its neighbours, so this is the pace of all, and never below the bound.
        """
        if self.images == 1:
            return float(self.latency)
        first, last = (self.images - 1) // 2, self.images - 1
        longest = 0
        for unit in self.all_units():
            count = len(unit.ends) // self.images
            longest = max(longest, unit.ends[-1] - unit.ends[(first + 1) * count - 1])
        return max(longest / (last - first), self.bound[0])

    @cached_property
    def bound(self) -> tuple[float, str]:
        """Cycles per image that the busiest unit or link works, and its name."""
        found = [(unit.busy, f"core {unit.core} {unit.name} ({unit.layer})")
                 for unit in self.all_units()]  # fmt: skip
        found += [(link.busy, f"link {link.name}") for link in self.links]
        shared = sum(link.busy for link in self.global_links) / max(1, len(self.global_links))
        busy, name = max([*found, (shared, "global memory")], key=lambda item: item[0])
        return busy / self.images, name

    def all_units(self) -> Iterator[UnitTime]:
        for units in self.units:
            yield from units

    def executed(self, core: int, unit: int) -> Iterator[Executed]:
        """What a unit executed, in order; ``core`` and ``unit`` index ``units``."""
        table, time = self.tables[core], self.units[core][unit]
        steps = table.units[unit].steps
        for number, (start, end) in enumerate(zip(time.starts, time.ends, strict=True)):
            image, place = divmod(number, len(steps))
            static = table.static[steps[place]]
            yield Executed(static.instruction, static.layer, image, start, end)

    def layer_times(self) -> dict[str, LayerTime]:
        """Busy cycles, stalls and span of each layer, in the order of the cores."""
        found: dict[str, LayerTime] = {}
        for unit in self.all_units():
            layer = found.setdefault(unit.layer, LayerTime(unit.layer))
            layer.add(unit, self.images)
        return found


@dataclass(eq=False)
class LayerTime:
    """The cores of one layer together; cycles per image unless said otherwise.

    interval: of its busiest unit. first, last: cycles at which the first image's first
    instruction starts and its last one ends. busy: by kind of unit, summed over cores.
    stalls: of the matrix units (of all units where there is none), by reason, summed over cores.
    """

    name: str
    cores: int = 0
    interval: float = 0.0
    first: int | None = None
    last: int = 0

    def __post_init__(self) -> None:
        self.busy: Counter[str] = Counter()
        self._stalls: dict[str, Counter[str]] = {}
        self._cores: set[int] = set()
        self._images = 1

    def add(self, unit: UnitTime, images: int) -> None:
        """Count one unit."""
        self._images = images
        self._cores.add(unit.core)
        self.cores = len(self._cores)
        self.busy[unit.kind] += unit.busy
        self.interval = max(self.interval, unit.busy / images)
        self._stalls.setdefault(unit.kind, Counter()).update(unit.stalls)
        start = unit.starts[0]
        self.first = start if self.first is None else min(self.first, start)
        self.last = max(self.last, unit.ends[len(unit.ends) // images - 1])

    @property
    def stalls(self) -> dict[str, float]:
        """Idle cycles by reason, per image."""
        chosen = self._stalls.get("matrix")
        total = chosen or sum(self._stalls.values(), Counter())
        return {reason: cycles / self._images for reason, cycles in total.items() if cycles}
