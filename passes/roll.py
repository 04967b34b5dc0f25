"""Loop rolling: find the loops in a stream that was written out step by step.

Emitters write one list of statements per output row with plain numbers in them. Steps that look
alike, and whose row and column indices grow by constant amounts, become one loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from isa.instruction import Instruction
from isa.operands import Affine, Span
from isa.program import Loop, Statement

Step = Sequence[Statement]
Shape = tuple[object, ...]
PERIODS = (1, 2, 3, 4)  # steps that repeat as one, e.g. two output rows per input row
MAX_PERIOD = 64  # a longer one would not be read as a loop


def roll(steps: Sequence[Step], variable: str, pitch: int = 1) -> tuple[Statement, ...]:
    """One stream with loops over ``variable`` in place of runs of similar steps.

    steps: the statements of step 0, 1, ... Unrolling the result gives them back in order. pitch:
    a number of steps after which they are known to repeat.
    """
    periods = (*PERIODS, pitch) if pitch not in PERIODS and pitch <= MAX_PERIOD else PERIODS
    measured = [_measure(step) for step in steps]
    out: list[Statement] = []
    at = 0
    while at < len(steps):
        period, repeats = max(
            ((p, _repeats(measured, at, p)) for p in periods),
            key=lambda found: (found[0] * found[1] if found[1] > 1 else 1, -found[0]),
        )
        if repeats < 2:
            out += steps[at]
            at += 1
            continue
        first, second = _merged(measured, at, period)[1], _merged(measured, at + period, period)[1]
        growth = [b - a for a, b in zip(first, second, strict=True)]
        body = [statement for step in steps[at : at + period] for statement in step]
        start = at // period if at % period == 0 else 0
        out.append(_loop(body, growth, variable, start, repeats))
        at += period * repeats
    return tuple(out)


def _loop(body: Step, growth: list[int], variable: str, start: int, repeats: int) -> Loop:
    """The loop whose iteration ``start`` is ``body`` and whose indices grow by ``growth``."""
    remaining = iter(growth)

    def lift(affine: Affine) -> Affine:
        step = next(remaining)
        if not step:
            return affine
        terms = tuple(sorted((*affine.terms, (variable, step))))
        return Affine(affine.constant - step * start, terms)

    return Loop(variable, start, start + repeats, tuple(_rewrite(s, lift) for s in body))


def _repeats(measured: list[tuple[Shape, list[int]]], at: int, period: int) -> int:
    """How many times in a row ``period`` steps from ``at`` repeat with constant growth."""
    if at + 2 * period > len(measured):
        return 1
    shape, before = _merged(measured, at, period)
    if not shape:
        return 1
    growth: list[int] | None = None
    count = 1
    while at + (count + 1) * period <= len(measured):
        next_shape, after = _merged(measured, at + count * period, period)
        if next_shape != shape:
            break
        grown = [b - a for a, b in zip(before, after, strict=True)]
        if growth is not None and grown != growth:
            break
        growth, before, count = grown, after, count + 1
    return count


def _merged(
    measured: list[tuple[Shape, list[int]]], at: int, period: int
) -> tuple[Shape, list[int]]:
    if period == 1:
        return measured[at]
    pieces = measured[at : at + period]
    return tuple(s for shape, _ in pieces for s in shape), [n for _, nums in pieces for n in nums]


def _measure(step: Step) -> tuple[Shape, list[int]]:
    """What must be equal between iterations, and the index constants that may grow."""
    numbers: list[int] = []

    def note(affine: Affine) -> Affine:
        numbers.append(affine.constant)
        return Affine(0, affine.terms)

    return tuple(_rewrite(statement, note) for statement in step), numbers


def _rewrite(statement: Statement, change) -> Statement:  # type: ignore[no-untyped-def]
    """``statement`` with every index expression passed through ``change``, in a fixed order."""
    if isinstance(statement, Loop):
        return dataclasses.replace(
            statement, body=tuple(_rewrite(inner, change) for inner in statement.body)
        )
    regions = (*type(statement).reads, *type(statement).writes)
    changed = {}
    for name in dict.fromkeys(regions):
        region = getattr(statement, name)
        axes = {
            axis: Span(change(span.start), span.count)
            for axis in ("rows", "columns", "channels")
            if (span := getattr(region, axis)) is not None
        }
        changed[name] = dataclasses.replace(region, **axes)
    result: Instruction = dataclasses.replace(statement, **changed)
    return result
