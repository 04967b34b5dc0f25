"""What goes wrong in the C engine is worded as in Python, and nothing runs beyond its arrays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine import draft, machine_of, run
from support.programs import two_cores

from isa.catalog import (
    Accumulate,
    Const,
    Fill,
    Gather,
    Recv,
    Requant,
    Send,
)
from isa.diagnostics import PimError
from isa.matrix import BlockMatrix
from isa.operands import Affine, Region, Span
from isa.program import DTYPES, Buffer, Channel, Loop, Program, Table
from isa.target import Target, load_target
from runtime.engine import Engine
from runtime.kernel import Kernel, choose_kernel, load_extension

Blocks = Callable[..., BlockMatrix]
EXTENSION = load_extension()
pytestmark = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")
cases = given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    level=st.integers(0, EXTENSION.best_level() if EXTENSION else 0),
)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("ou9x8", {"adc.bits": "2"})


def failing(program: Program, target: Target, feeds: Any) -> list[str]:
    """The message that a run ends with, by kernel; the machine runs twice."""
    messages = []
    for kernel in ("numpy", "c"):
        machine = machine_of(program, target, kernel)
        for _ in range(2):
            with pytest.raises(PimError) as caught:
                machine.run(feeds)
            messages.append(str(caught.value))
        assert isinstance(machine._state and machine._state.engine, Engine) == (kernel == "c")
    return messages


def wrong_program(*body: Any, depth: int = 2) -> tuple[Program, dict[str, np.ndarray]]:
    d = draft(0, 1)
    d.values["b"] = np.zeros((1, 5, 2, 3), np.int8)
    d.buffers.append(Buffer("b", "s8", (5, 2, 3), 0))
    d.channels.append(Channel("c", 0, 0, "s8", (2, 6), depth, 0))
    d.body += body
    return d.program(), {"in_b": d.values["b"]}


def row(factor: int, rows: int = 1) -> Region:
    return Region("b", Span(Affine(0, (("y", factor),)), rows))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((Fill(row(2)),), r"R710.*rows 6\.\.7 are outside 0\.\.5 of `b`"),
        ((Fill(row(1 << 40)),), r"R710.*rows 1099511627776\.\."),  # beyond what C computes
        ((Fill(row(-1)),), r"R710.*rows -1\.\.0 are outside"),
        ((Send("c", row(2)), Recv(row(1), "c")), r"R710.*rows 6\.\.7"),
        ((Send("c", row(1)), Recv(row(2), "c")), r"R710.*rows 6\.\.7"),
        ((Send("c", row(1)), Recv(row(0, 2), "c")), r"R712.*expects 12 elements, message 0 has 6"),
        ((Send("c", row(1)),), r"R711.*waits at `send` on channel `c` \(2 of 2.*with y = 2"),
        ((Recv(row(1), "c"),), r"R711.*waits at `recv` on channel `c` \(0 of 2.*with y = 0"),
        ((Gather(row(0), row(2), "t0"),), r"R710.*rows 6\.\.7"),
        ((Const(row(2), "t1"),), r"R710.*rows 6\.\.7"),
    ],
)
def test_an_error_is_worded_as_in_python(
    target: Target, body: tuple[Any, ...], message: str
) -> None:
    program, feeds = wrong_program(*body)
    values = np.arange(6)
    tables = (
        Table("t0", "s32", values.astype(np.int32)),
        Table("t1", "s8", values.astype(np.int8)),
    )
    found = failing(replace(program, tables=tables), target, feeds)
    assert len(set(found)) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[0])


def test_an_undeclared_name_is_worded_as_in_python(target: Target) -> None:
    program, feeds = wrong_program(Requant(row(1), row(1), "no", "such"))
    for kernel in ("numpy", "c"):
        with pytest.raises(PimError, match=r"R713.*`requant`: `no` is not declared"):
            run(program, target, feeds, kernel)


@pytest.mark.parametrize(
    "body",
    [
        (Send("c", row(0)), Recv(replace(row(0), name="wide"), "c")),  # another type
        (Accumulate(row(0), row(0)),),  # bytes
    ],
)
def test_a_program_that_c_does_not_take_runs_in_python(
    target: Target, body: tuple[Any, ...]
) -> None:
    program, feeds = wrong_program(*body)
    wide = Buffer("wide", "s32", (5, 2, 3), 0)
    core = replace(program.cores[0], buffers=(*program.cores[0].buffers, wide))
    results = []
    for kernel in ("numpy", "c"):
        machine = machine_of(replace(program, cores=(core,)), target, kernel)
        try:
            results.append(str(machine.run(feeds).outputs))
        except PimError as error:
            results.append(str(error))
    assert results[0] == results[1]
    with (
        mock.patch.dict(os.environ, PIMC_STREAMS="c"),
        pytest.raises(PimError, match=r"R720.*C does not take the program: "),
    ):
        machine_of(replace(program, cores=(core,)), target, "c").run(feeds)


# ------------------------------------------------------------------ the C entry points


def engine_arguments(program: Program, target: Target, images: int) -> list[Any]:
    """What a machine gives to `_crossbar.engine`."""
    assert EXTENSION is not None
    seen: list[Any] = []

    def engine(*arguments: Any) -> object:
        seen.append(list(arguments))
        assert EXTENSION is not None
        return EXTENSION.engine(*arguments)

    spy = SimpleNamespace(kinds=EXTENSION.kinds, engine=engine, run=EXTENSION.run)
    machine = machine_of(program, target, "c")
    kernel = choose_kernel({})
    machine._kernel = Kernel(spy, kernel.level, "auto")  # type: ignore[arg-type]
    values = {
        t.name: np.zeros((images, *t.shape), DTYPES[t.dtype])
        for t in program.tensors
        if t.role == "input"
    }
    machine.run(values)
    return seen[0]


@given(data=st.data())
def test_any_numbers_are_run_or_refused(data: st.DataObject) -> None:
    """Under the sanitizers of the long tier: no number makes C leave its memory."""
    assert EXTENSION is not None
    arguments = engine_arguments(two_cores(), load_target("tiny"), 2)
    calls = [lambda *values: None] * 4
    kinds = EXTENSION.kinds()
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.sampled_from([5, 6, 7]))
        array = arguments[which].copy()
        if array.size == 0:
            continue
        line = data.draw(st.integers(0, len(array) - 1))
        if which == 7 and kinds[array[line, 0]] in ("loop", "end"):
            continue  # they might count to 2^30
        column = data.draw(st.integers(1 if which == 7 else 0, array.shape[1] - 1))
        near = st.integers(-3, 9)
        array[line, column] = data.draw(st.one_of(near, st.integers(-(2**63), 2**63 - 1)))
        arguments[which] = array
    with suppress(ValueError):
        EXTENSION.run(EXTENSION.engine(*arguments), calls, None)


@pytest.mark.parametrize("which", range(12))
@pytest.mark.parametrize("value", [None, -1, 0, [], [None], np.zeros((1, 1)), 1 << 70])
def test_wrong_arguments_are_refused(which: int, value: Any) -> None:
    assert EXTENSION is not None
    arguments = engine_arguments(two_cores(), load_target("tiny"), 2)
    arguments[which] = value
    with suppress(ValueError, TypeError, OverflowError, BufferError):
        EXTENSION.engine(*arguments)
        assert value == 0
        assert which in (9, 11)  # no variables or level 0: only what names one is refused


def test_an_engine_does_not_run_within_itself(target: Target) -> None:
    assert EXTENSION is not None
    d = draft(0, 1)
    d.body.append(Const(d.region(np.int8, (1, 1, 1)), d.table(np.zeros(1, np.int8))))
    engine = EXTENSION.engine(*engine_arguments(d.program(), target, 1))
    calls: list[Callable[..., object]] = [lambda *_: EXTENSION.run(engine, calls, None)]
    with pytest.raises(RuntimeError, match="runs already"):
        EXTENSION.run(engine, calls, None)
    calls[0] = lambda *_: None
    assert EXTENSION.run(engine, calls, None)[0] == -1
    with pytest.raises(IndexError):
        EXTENSION.run(engine, [], None)


def test_a_run_in_c_can_be_interrupted(target: Target) -> None:
    program, feeds = wrong_program(*[Loop("x", 0, 1 << 30, (Fill(row(1)),))])

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    machine = machine_of(program, target, "c")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            machine.run(feeds)
    finally:
        signal.signal(signal.SIGALRM, before)
