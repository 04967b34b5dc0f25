"""What the C engine does of an instruction: one function per class that has an operation there.

An operation is a kind of `_crossbar_kinds.c`, up to four regions, and integers. An instruction
without a function here, or with operands that its function declines (None), is done by its
executor in Python, which also is the oracle of the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from isa.catalog import (
    Accumulate,
    Add,
    Copy,
    Div,
    Elementwise,
    Fill,
    Gather,
    Load,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Mvm,
    Pow,
    Recv,
    Requant,
    Select,
    Send,
    Store,
    Sub,
    SumPool,
)
from isa.instruction import Instruction
from isa.numerics import limits
from runtime.binding import Binder
from runtime.paths import Crossbars
from runtime.regions import Array, Box

SPREAD_ELEMENTS = 256  # a table per channel is repeated up to here: longer inner loops
LARGEST_ZERO = 1 << 15  # zero points of s32 may be larger; the C engine takes none of them

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(eq=False)
class Numbered(Generic[Key, Value]):
    """Values that operations refer to by number, each kept once under its key."""

    values: list[Value] = field(default_factory=list)
    numbers: dict[Key, int] = field(default_factory=dict)

    def number(self, key: Key, make: Callable[[], Value]) -> int:
        """The number of ``key``, whose value is made when it is first asked for."""
        if key not in self.numbers:
            self.numbers[key] = len(self.values)
            self.values.append(make())
        return self.numbers[key]


MatrixInC = tuple[int, int, object, object, str]


@dataclass(eq=False)
class Constants:
    """All that operations refer to by number.

    matrices: by (core, name): inputs, outputs, packed weights, plan, method. queues: slots, by
    name of the channel. storages: by the id of their array.
    """

    storages: Numbered[int, Array] = field(default_factory=Numbered)
    queues: Numbered[str, Array] = field(default_factory=Numbered)
    tables: Numbered[Hashable, Array] = field(default_factory=Numbered)
    matrices: Numbered[tuple[int, str], MatrixInC] = field(default_factory=Numbered)


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the engine; ``numbers`` are its arguments, as its kind reads them."""

    kind: str
    into: Box | None = None
    a: Box | None = None
    b: Box | None = None
    numbers: tuple[int, ...] = ()
    c: Box | None = None


Lowering = Callable[[Binder, Any, Constants], Operation | None]
LOWERINGS: dict[type[Instruction], Lowering] = {}


def lowers(*classes: type[Instruction]) -> Callable[[Lowering], Lowering]:
    """Register what makes operations of some instruction classes."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(classes, function))
        return function

    return register


def apart(into: Box, source: Box) -> bool:
    """Whether elements may be written before all are read: other memory, or the very same."""
    return into.storage is not source.storage or into.region == source.region


def reals(constants: Constants, *values: float) -> int:
    """The number of a table of real operands."""
    return constants.tables.number(values, lambda: np.array(values, np.float32))


def small(*zeros: int) -> bool:
    return all(-LARGEST_ZERO <= zero < LARGEST_ZERO for zero in zeros)


@lowers(Load, Store, Copy)
def move(bind: Binder, i: Load | Store | Copy, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    if into.dtype != source.dtype or into.storage is source.storage:
        return None
    return Operation("move", into, source)


@lowers(Send)
def send(bind: Binder, i: Send, constants: Constants) -> Operation | None:
    source = bind.box(i.source)
    if bind.queues[i.channel].slots.dtype != source.dtype:
        return None
    return Operation("send", a=source, numbers=(constants.queues.numbers[i.channel],))


@lowers(Recv)
def recv(bind: Binder, i: Recv, constants: Constants) -> Operation | None:
    into = bind.box(i.into)
    if bind.queues[i.channel].slots.dtype != into.dtype:
        return None
    return Operation("recv", into, numbers=(constants.queues.numbers[i.channel],))


@lowers(Fill)
def fill(bind: Binder, i: Fill, constants: Constants) -> Operation | None:
    into = bind.box(i.into)
    return Operation("fill", into, numbers=(i.value,))


@lowers(Gather)
def gather(bind: Binder, i: Gather, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    index = constants.tables.number(i.index, lambda: bind.tables[i.index])
    return Operation("gather", into, source, numbers=(index, i.value))


@lowers(Requant)
def requant(bind: Binder, i: Requant, constants: Constants) -> Operation | None:
    into = bind.box(i.into)
    if into.storage is bind.storages[i.source.name] or not small(i.zero):
        return None
    tables = spread_tables(bind, constants, into, i.bias, i.scale)
    return Operation("requant", into, bind.box(i.source), numbers=(*tables, i.zero))


def spread_tables(bind: Binder, constants: Constants, into: Box, *names: str) -> list[int]:
    """The numbers of tables that broadcast to the columns and channels of a region."""
    tables = [bind.tables[name] for name in names]
    _, columns, channels = into.shape
    if any(len(table) > 1 for table in tables if table.ndim == 2):
        repeats = columns
    else:
        repeats = min(columns, -(-SPREAD_ELEMENTS // channels))
    shape = (repeats, channels)
    return [
        constants.tables.number((name, shape), partial(_spread, table, shape))
        for name, table in zip(names, tables, strict=True)
    ]


def _spread(table: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.broadcast_to(table, shape))


_OPERATIONS = (Add, Sub, Mul, Max, Min, Div, Pow)  # in the order of COMBINATIONS of C


@lowers(*_OPERATIONS)
def combine(bind: Binder, i: Elementwise, constants: Constants) -> Operation | None:
    into, a, b = bind.box(i.into), bind.box(i.a), bind.box(i.b)
    if not (apart(into, a) and apart(into, b)) or not small(i.zero_a, i.zero_b, i.zero):
        return None
    scales = reals(constants, i.scale_a, i.scale_b, i.scale)
    numbers = (_OPERATIONS.index(type(i)), i.zero_a, i.zero_b, i.zero, scales)
    return Operation("combine", into, a, b, numbers)


@lowers(Select)
def select(bind: Binder, i: Select, constants: Constants) -> Operation | None:
    into, mask, a, b = (bind.box(region) for region in (i.into, i.mask, i.a, i.b))
    if not all(apart(into, operand) for operand in (mask, a, b)):
        return None
    scales = reals(constants, i.scale_a, i.scale_b, i.scale)
    return Operation("select", into, mask, a, (i.zero_a, i.zero_b, i.zero, scales), b)


@lowers(Lut)
def lut(bind: Binder, i: Lut, constants: Constants) -> Operation | None:
    into, source, values = bind.box(i.into), bind.box(i.source), bind.tables[i.table]
    if not apart(into, source) or values.dtype != into.dtype:
        return None
    first = limits(source.dtype)[0]  # the byte pattern itself is the index
    table = constants.tables.number((i.table, first), lambda: np.roll(values, first, axis=-1))
    return Operation("lut", into, source, numbers=(table,))


@lowers(Accumulate)
def accumulate(bind: Binder, i: Accumulate, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    return Operation("accumulate", into, source) if apart(into, source) else None


@lowers(Mvm)
def mvm(bind: Binder, i: Mvm, constants: Constants) -> Operation | None:
    """A matrix with imperfections, or one that observes its inputs, has no form in C."""
    crossbars = bind.matrices[i.matrix]
    if not isinstance(crossbars, Crossbars) or crossbars.in_c is None:
        return None
    blocks, in_c = crossbars.blocks, crossbars.in_c
    matrix = (blocks.inputs, blocks.outputs, in_c.weights, in_c.plan, in_c.method)
    number = constants.matrices.number((bind.core, i.matrix), lambda: matrix)
    geometry = (*i.kernel, i.stride, *i.dilation)
    return Operation("mvm", bind.box(i.into), bind.box(i.source), numbers=(number, *geometry))


@lowers(MatMul)
def matmul(bind: Binder, i: MatMul, constants: Constants) -> Operation | None:
    into, a, b = bind.box(i.into), bind.box(i.a), bind.box(i.b)
    if into.storage in (a.storage, b.storage):
        return None
    numbers = (i.zero_a, i.zero_b, i.zero, reals(constants, i.scale))
    return Operation("matmul", into, a, b, numbers)


@lowers(MaxPool, SumPool)
def pool(bind: Binder, i: MaxPool | SumPool, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    if into.storage is source.storage:
        return None
    numbers = (int(isinstance(i, SumPool)), *i.kernel, i.stride, *i.dilation)
    return Operation("pool", into, source, numbers=numbers)
