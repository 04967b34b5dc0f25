"""What the C engine does of the instructions that normalize (`_crossbar_{normalize,groups}.c`)."""

from __future__ import annotations

from functools import partial

from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Moments, Softmax
from runtime.binding import Binder
from runtime.lowering import Constants, Operation, apart, lowers, reals, spread_tables


@lowers(Softmax)
def softmax(bind: Binder, i: Softmax, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    powers = constants.tables.number(i.powers, lambda: bind.tables[i.powers])
    numbers = (i.zero, reals(constants, i.scale, 0.0), powers)
    return Operation("softmax", into, source, numbers=numbers) if apart(into, source) else None


@lowers(LogSoftmax)
def logsoftmax(bind: Binder, i: LogSoftmax, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    powers = constants.tables.number(i.powers, lambda: bind.tables[i.powers])
    numbers = (i.zero, reals(constants, i.scale, i.scale_a), powers)
    return Operation("logsoftmax", into, source, numbers=numbers) if apart(into, source) else None


@lowers(LayerNorm)
def layernorm(bind: Binder, i: LayerNorm, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    gain, offset = (
        constants.tables.number(name, partial(bind.tables.__getitem__, name))
        for name in (i.gain, i.offset)
    )
    numbers = (i.zero, reals(constants, i.scale, i.epsilon), gain, offset)
    return Operation("layernorm", into, source, numbers=numbers) if apart(into, source) else None


@lowers(Moments)
def moments(bind: Binder, i: Moments, constants: Constants) -> Operation | None:
    into, source = bind.box(i.into), bind.box(i.source)
    return Operation("moments", into, source)


@lowers(GroupNorm)
def groupnorm(bind: Binder, i: GroupNorm, constants: Constants) -> Operation | None:
    into, source, held = bind.box(i.into), bind.box(i.source), bind.box(i.moments)
    if not apart(into, source):
        return None
    tables = spread_tables(bind, constants, into, i.gain, i.offset)
    numbers = (i.zero, reals(constants, i.scale, i.epsilon), *tables, i.count)
    return Operation("groupnorm", into, source, held, numbers)
