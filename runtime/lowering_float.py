"""What the C engine does of the instructions on float32 rows (`_crossbar_real.c`)."""

from __future__ import annotations

from functools import partial

from isa.catalog_float import (
    FUNCTIONS,
    REDUCTIONS,
    FloatLayerNorm,
    FloatSoftmax,
    Function,
    Real,
    Reduction,
)
from runtime.binding import Binder
from runtime.lowering import Constants, Operation, apart, lowers, reals, small


@lowers(*FUNCTIONS)
def function(bind: Binder, i: Function, constants: Constants) -> Operation | None:
    return _real(bind, i, constants, "function", FUNCTIONS.index(type(i)))


@lowers(*REDUCTIONS)
def reduction(bind: Binder, i: Reduction, constants: Constants) -> Operation | None:
    return _real(bind, i, constants, "reduce", REDUCTIONS.index(type(i)))


@lowers(FloatSoftmax)
def float_softmax(bind: Binder, i: FloatSoftmax, constants: Constants) -> Operation | None:
    return _real(bind, i, constants, "fsoftmax")


@lowers(FloatLayerNorm)
def float_layer_norm(bind: Binder, i: FloatLayerNorm, constants: Constants) -> Operation | None:
    tables = [
        constants.tables.number(name, partial(bind.tables.__getitem__, name))
        for name in (i.gain, i.offset)
    ]
    return _real(bind, i, constants, "flayernorm", 0, i.epsilon, *tables)


def _real(
    bind: Binder,
    i: Real | FloatLayerNorm,
    constants: Constants,
    kind: str,
    which: int = 0,
    epsilon: float = 0.0,
    *tables: int,
) -> Operation | None:
    """An operation of _crossbar_real.c; ``which`` of its kind, in the order of the catalog."""
    into, source = bind.box(i.into), bind.box(i.source)
    if not apart(into, source) or not small(i.zero_a, i.zero):
        return None
    scales = reals(constants, i.scale_a, i.scale, epsilon)
    return Operation(kind, into, source, numbers=(which, i.zero_a, i.zero, scales, *tables))
