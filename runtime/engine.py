"""The C engine: all streams of a machine as operations that C executes, or calls back for.

It does what `streams.PythonEngine` does, in the same order, on the same memory. Where an operation
refuses, or all streams wait, Python's own streams are brought to where C stands, so that errors are
worded in one place (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isa.catalog import CATALOG, Recv, Send
from isa.operands import Affine
from runtime import lowering_float, lowering_normalize
from runtime.binding import Binder, Queue
from runtime.kernel import Kernel
from runtime.lowering import LOWERINGS, Constants, Operation
from runtime.regions import Box
from runtime.streams import Bound, BoundLoop, Stream

LOWERING_MODULES = (lowering_float, lowering_normalize)  # importing them fills LOWERINGS
NO_REGION = -1
REGIONS, NUMBERS, BOX_FIELDS = 4, 8, 14  # of an operation: regions, arguments; of a region
ENDED, STUCK = -1, -2  # where a run stops; else the stream whose operation C refuses
LARGEST = 1 << 30  # of what is written in a program: no index of C overflows
LARGEST_TERMS = 4  # of a start


def in_c() -> list[str]:
    """Mnemonics of the instructions that C executes where it is built."""
    return [cls.mnemonic for cls in CATALOG.values() if cls in LOWERINGS]


class NotInC(Exception):
    """What the engine does not do, and Python cannot do for it; says why."""


@dataclass(frozen=True)
class _Place:
    """Where an operation stands: the instruction, if it is one, and the loops around it."""

    item: Bound | None
    variables: tuple[str, ...]


@dataclass(eq=False)
class _Code:
    """The operations of all streams, as they are put together."""

    kinds: dict[str, int]
    constants: Constants = field(default_factory=Constants)
    boxes: list[tuple[int, ...]] = field(default_factory=list)
    terms: list[tuple[int, int]] = field(default_factory=list)
    operations: list[list[int]] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)
    calls: list[Callable[..., object]] = field(default_factory=list)
    first_variable: int = 0  # of the stream at hand: its loops' variables, the outermost first
    variables: int = 0

    def add_body(
        self, binder: Binder, body: Sequence[Bound | BoundLoop], scope: tuple[str, ...]
    ) -> None:
        """Add the instructions of a stream or loop. scope: variables of the loops around it."""
        for item in body:
            if isinstance(item, Bound):
                self._add_instruction(binder, item, scope)
                continue
            begin = len(self.operations)
            self.variables = max(self.variables, self.first_variable + len(scope) + 1)
            bounds = (item.values.start, item.values.stop, item.values.step)
            if max(map(abs, bounds)) > LARGEST:
                raise NotInC(f"loop over {item.variable}: bounds beyond {LARGEST}")
            loop = Operation("loop", numbers=(self.first_variable + len(scope), *bounds, 0))
            self._add(loop, _Place(None, scope))
            self.add_body(binder, item.body, (*scope, item.variable))
            self.operations[begin][-NUMBERS + 4] = len(self.operations)
            self._add(Operation("end", numbers=(begin,)), _Place(None, scope))

    def _add_instruction(self, binder: Binder, item: Bound, scope: tuple[str, ...]) -> None:
        lower = LOWERINGS.get(type(item.instruction))
        place = _Place(item, scope)
        operation = None if lower is None else lower(binder, item.instruction, self.constants)
        if operation is not None and self._add(operation, place):
            return
        if isinstance(item.instruction, Send | Recv):
            raise NotInC(f"`{item.instruction.mnemonic}` is not in C, but queues are")
        numbers = (len(self.calls), self.first_variable, len(scope))
        self.calls.append(_call(binder, item, scope))
        self._add(Operation("call", numbers=numbers), place)

    def _add(self, operation: Operation, place: _Place) -> bool:
        """Add an operation; False where a region starts where C could not compute it."""
        regions = []
        for box in (operation.into, operation.a, operation.b, operation.c):
            number = NO_REGION if box is None else self._box(box, place.variables)
            if number is None:
                return False
            regions.append(number)
        numbers = operation.numbers + (0,) * (NUMBERS - len(operation.numbers))
        self.operations.append([self.kinds[operation.kind], *regions, *numbers])
        self.places.append(place)
        return True

    def _box(self, box: Box, scope: tuple[str, ...]) -> int | None:
        array = box.storage.array
        starts: list[int] = []
        for span in box.spans:
            start = span.start
            if not _computable(start, scope):
                return None
            starts += (start.constant, len(self.terms), len(start.terms))
            for name, factor in start.terms:
                depth = len(scope) - 1 - scope[::-1].index(name)  # the innermost of that name
                self.terms.append((self.first_variable + depth, factor))
        number = self.constants.storages.number(id(array), lambda: array)
        self.boxes.append((number, box.storage.ring, *box.shape, *starts))
        return len(self.boxes) - 1


def _computable(start: Affine, scope: tuple[str, ...]) -> bool:
    numbers = (start.constant, *(factor for _, factor in start.terms))
    known = all(name in scope for name, _ in start.terms)
    return known and len(start.terms) <= LARGEST_TERMS and max(map(abs, numbers)) <= LARGEST


def _call(binder: Binder, item: Bound, scope: tuple[str, ...]) -> Callable[..., object]:
    """What C calls for an instruction that it does not do."""
    env, action = binder.env, item.action

    def call(*values: int) -> object:
        env.clear()
        env.update(zip(scope, values, strict=True))
        return action()

    return call


class Engine:
    """The streams of a machine in C, made once for many runs.

    queues: by channel name. Raises NotInC for a program that C does not take.
    """

    def __init__(
        self, streams: Sequence[Stream], queues: Mapping[str, Queue], kernel: Kernel
    ) -> None:
        if kernel.extension is None or kernel.streams == "python" or not streams:
            raise NotInC("there is no C kernel, PIMC_STREAMS=python, or no core")
        self._streams, self._queues = streams, list(queues.values())
        code = _Code({name: number for number, name in enumerate(kernel.extension.kinds())})
        for name, queue in queues.items():
            code.constants.queues.number(name, partial(getattr, queue, "slots"))
        offsets, self._first_variables = [0], []
        for stream in streams:
            code.first_variable = code.variables
            self._first_variables.append(code.first_variable)
            code.add_body(stream.binder, stream.body, ())
            offsets.append(len(code.operations))
        self._ends = offsets[1:]
        self._places, self._calls = code.places, code.calls
        self._matrices = list(code.constants.matrices.numbers)
        self._run = kernel.extension.run
        self._engine = _make(streams[0].binder, kernel, code, offsets)

    @property
    def calls(self) -> int:
        """Instructions of the text that are called back in Python."""
        return len(self._calls)

    def run(self) -> list[Stream]:
        """Run every stream to its end; return those that wait for ever.

        Raises PimError as Python's executors do.
        """
        records = [_recorder(queue) for queue in self._queues]
        traced = any(record is not None for record in records)
        found = self._run(self._engine, self._calls, records if traced else None)
        stopped, saturated, positions, variables, *queues = found
        binders = {stream.core.index: stream.binder for stream in self._streams}
        for (core, name), count in zip(self._matrices, saturated, strict=True):
            binders[core].saturations[name] += count
        if stopped == ENDED:
            return []
        for queue, sent, taken, oldest in zip(self._queues, *queues, strict=True):
            queue.sent, queue.taken, queue.sizes[:] = sent, taken, [oldest] * (sent - taken)
        running = [
            self._bring(number, at, variables)
            for number, at in enumerate(positions)
            if at < self._ends[number]
        ]
        if stopped == STUCK:
            return running
        item = self._places[positions[stopped]].item
        assert item is not None
        item.action()
        raise AssertionError(f"C refuses `{item.instruction}`, which Python takes")

    def _bring(self, number: int, at: int, variables: Sequence[int]) -> Stream:
        """Bring a Python stream to where it stands in C."""
        stream, place = self._streams[number], self._places[at]
        first = self._first_variables[number]
        stream.binder.env.clear()
        stream.binder.env.update(zip(place.variables, variables[first:], strict=False))
        if place.item is not None and isinstance(place.item.instruction, Send | Recv):
            stream.waits_at = place.item.instruction
        return stream


def _make(binder: Binder, kernel: Kernel, code: _Code, offsets: list[int]) -> object:
    """The engine of C. Raises NotInC where its checks find what Python's executors shall judge."""
    assert kernel.extension is not None
    constants = code.constants
    try:
        return kernel.extension.engine(
            binder.images,
            constants.storages.values,
            constants.queues.values,
            constants.tables.values,
            constants.matrices.values,
            _table(code.boxes, BOX_FIELDS),
            _table(code.terms, 2),
            _table(code.operations, 1 + REGIONS + NUMBERS),
            _table([(offset,) for offset in offsets], 1),
            code.variables,
            len(binder.scratch),
            kernel.level,
        )
    except (ValueError, OverflowError) as error:
        raise NotInC(str(error)) from error


def _table(rows: Sequence[Sequence[int]], fields: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(len(rows), fields)


def _recorder(queue: Queue) -> Callable[[int, int], None] | None:
    """What keeps a copy of each message of a queue that is recorded."""
    record = queue.record
    if record is None:
        return None
    return lambda slot, elements: record.append(queue.slots[slot][:, :elements].copy())
