"""One image of a core's stream as a table: every executed instruction, its unit, its hazards.

Control flow never depends on data and every image takes the same steps, so the table is made
once and the simulation only looks things up. A unit works through its instructions in order.
What an instruction must wait for is then, for every other unit, at most one instruction: the
latest one that it conflicts with, given by its number on that unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from isa.catalog import Mvm, Recv, Send
from isa.instruction import Instruction
from isa.operands import Region
from isa.program import Buffer, unroll, walk
from runtime.core_view import CoreView
from runtime.durations import Duration, duration

MATRIX, VECTOR, MEMORY, RECEIVE, SEND = "matrix", "vector", "memory", "receive", "send"

Dependency = tuple[int, int]  # (unit of the core, number on it; negative: in the image before)


@dataclass(eq=False)
class StaticStep:
    """What is the same each time an instruction of the text is executed.

    reads, writes: (first slot of the buffer, slots, constant, terms, rows) per region.
    """

    instruction: Instruction
    unit: int
    duration: Duration
    layer: str
    reads: tuple[_Rows, ...]
    writes: tuple[_Rows, ...]


_Rows = tuple[int, int, int, tuple[tuple[str, int], ...], int]


@dataclass(eq=False)
class UnitTable:
    """One unit of a core. kind: "matrix", "vector", "memory", "receive" or "send".

    steps, dependencies, places: per instruction of one image, in order: which static step, what
    it waits for, and its place in the whole stream of the core.
    """

    kind: str
    name: str
    steps: list[int] = field(default_factory=list)
    dependencies: list[tuple[Dependency, ...]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass(eq=False)
class CoreTable:
    """The table of one core. length: instructions that one image executes."""

    view: CoreView
    units: list[UnitTable]
    static: list[StaticStep]
    length: int = 0

    @property
    def core(self) -> int:
        return self.view.core.index


def core_table(view: CoreView) -> CoreTable:
    """The table of one core; hazards are those between rows of its buffers."""
    return _Maker(view).make()


class _Maker:
    """Walks two images of a stream: the second shows what an image waits for in the one before."""

    def __init__(self, view: CoreView) -> None:
        self.view = view
        self.slots: dict[str, tuple[int, Buffer]] = {}
        count = 0
        for buffer in view.core.buffers:
            self.slots[buffer.name] = (count, buffer)
            count += buffer.shape[0]
        self.unit_of_matrix = _matrix_units(view)
        self.units: list[UnitTable] = []
        self.unit_index: dict[str, int] = {}
        self.static: list[StaticStep] = []
        self.static_index: dict[int, int] = {}
        for instruction in walk(view.core.body):
            self._add_static(instruction)
        self.hazards = _Hazards(count, len(self.units), [u.kind == MATRIX for u in self.units])

    def make(self) -> CoreTable:
        static, find, hazards = self.static, self.static_index, self.hazards
        length = 0
        for instruction, env in unroll(self.view.core.body):
            hazards.add(static[find[id(instruction)]], env)
            length += 1
        per_image = tuple(hazards.numbers)
        for place, (instruction, env) in enumerate(unroll(self.view.core.body)):
            index = find[id(instruction)]
            step = static[index]
            waits = hazards.add(step, env)
            unit = self.units[step.unit]
            unit.steps.append(index)
            unit.places.append(place)
            unit.dependencies.append(tuple((u, number - per_image[u]) for u, number in waits))
        return CoreTable(self.view, self.units, static, length)

    def _add_static(self, instruction: Instruction) -> None:
        if id(instruction) in self.static_index:
            return
        self.static_index[id(instruction)] = len(self.static)
        kind, name = self._unit_name(instruction)
        if name not in self.unit_index:
            self.unit_index[name] = len(self.units)
            self.units.append(UnitTable(kind, name))
        self.static.append(
            StaticStep(
                instruction,
                self.unit_index[name],
                duration(self.view, instruction),
                self.view.layer_of(instruction),
                self._rows(instruction.read_regions()),
                self._rows(instruction.written_regions()),
            )
        )

    def _unit_name(self, instruction: Instruction) -> tuple[str, str]:
        """Kind and name of the unit that executes an instruction.

        Matrices in crossbars of their own work side by side; a port receives while it sends.
        """
        if isinstance(instruction, Mvm):
            return MATRIX, self.unit_of_matrix[instruction.matrix]
        if isinstance(instruction, Recv | Send):
            kind = RECEIVE if isinstance(instruction, Recv) else SEND
            return kind, kind
        return instruction.unit, instruction.unit

    def _rows(self, regions: Iterable[Region]) -> tuple[_Rows, ...]:
        found: list[_Rows] = []
        for region in regions:
            if region.name not in self.slots:
                continue  # a tensor in global memory: inputs are there, outputs nobody reads
            first, buffer = self.slots[region.name]
            if region.rows is None:
                found.append((first, buffer.shape[0], 0, (), buffer.shape[0]))
            else:
                start, count = region.rows.start, region.rows.count
                found.append((first, buffer.shape[0], start.constant, start.terms, count))
        return tuple(found)


class _Hazards:
    """Who wrote each row of the buffers last, and who has read it since."""

    def __init__(self, slots: int, units: int, overlaps: list[bool]) -> None:
        self.numbers = [0] * units
        self._overlaps = overlaps  # units whose instructions overlap also wait for themselves
        self._writer: list[Dependency | None] = [None] * slots
        self._readers: list[dict[int, int]] = [{} for _ in range(slots)]
        self._enforced = [dict[int, int]() for _ in range(units)]

    def add(self, step: StaticStep, env: dict[str, int]) -> list[Dependency]:
        """Execute one instruction; what it waits for and its unit has not yet waited for."""
        unit, waits = step.unit, dict[int, int]()
        read = [slot for rows in step.reads for slot in _slots(rows, env)]
        written = [slot for rows in step.writes for slot in _slots(rows, env)]
        for slot in read:
            self._wait_for_writer(slot, waits)
        for slot in written:
            self._wait_for_writer(slot, waits)
            for reader, number in self._readers[slot].items():
                if number > waits.get(reader, -1):
                    waits[reader] = number
        number = self.numbers[unit]
        self.numbers[unit] = number + 1
        for slot in read:
            self._readers[slot][unit] = number
        for slot in written:
            self._writer[slot] = (unit, number)
            self._readers[slot].clear()
        return self._new(unit, waits)

    def _wait_for_writer(self, slot: int, waits: dict[int, int]) -> None:
        writer = self._writer[slot]
        if writer is not None and writer[1] > waits.get(writer[0], -1):
            waits[writer[0]] = writer[1]

    def _new(self, unit: int, waits: dict[int, int]) -> list[Dependency]:
        """Leave out what an earlier instruction of the same unit has waited for already."""
        enforced, found = self._enforced[unit], []
        for other, number in waits.items():
            if other == unit and not self._overlaps[unit]:
                continue
            if number > enforced.get(other, -1):
                enforced[other] = number
                found.append((other, number))
        return found


def _slots(rows: _Rows, env: dict[str, int]) -> list[int]:
    first, depth, start, terms, count = rows
    for name, factor in terms:
        start += factor * env[name]
    if count == 1:
        return [first + start % depth]
    return [first + row % depth for row in range(start, start + count)]


def _matrix_units(view: CoreView) -> dict[str, str]:
    """Unit of each matrix; matrices that share a crossbar share the unit."""
    groups: list[tuple[set[int], list[str]]] = []
    for name in view.matrices:
        crossbars, names = set(view.work(name).crossbars.tolist()), [name]
        apart = []
        for other in groups:
            if other[0] & crossbars:
                crossbars, names = other[0] | crossbars, other[1] + names
            else:
                apart.append(other)
        groups = [*apart, (crossbars, names)]
    if len(groups) == 1:
        return dict.fromkeys(groups[0][1], MATRIX)
    return {name: f"{MATRIX} {names[0]}" for _, names in groups for name in names}
