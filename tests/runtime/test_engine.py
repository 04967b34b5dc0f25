"""The C engine against Python's executors: the same memory, counts and errors for every program."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs import two_cores

from isa.catalog import (
    Accumulate,
    Add,
    Const,
    Copy,
    Elementwise,
    Fill,
    Gather,
    LayerNorm,
    Load,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Mvm,
    Recv,
    Requant,
    Send,
    Softmax,
    Store,
    Sub,
    SumPool,
)
from isa.diagnostics import PimError
from isa.matrix import BlockMatrix
from isa.operands import Affine, Region, Span
from isa.program import DTYPES, Buffer, Channel, Core, Loop, Matrix, Program, Table, Tensor
from isa.target import Target, load_target
from runtime.engine import Engine
from runtime.kernel import Kernel, choose_kernel, load_extension
from runtime.lowering import LOWERINGS
from runtime.machine import Machine, RunResult
from runtime.streams import PythonEngine

Blocks = Callable[..., BlockMatrix]
EXTENSION = load_extension()
pytestmark = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
TURNS = 4
cases = given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    level=st.integers(0, EXTENSION.best_level() if EXTENSION else 0),
)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("ou9x8", {"adc.bits": "2"})


@dataclass
class Draft:
    """One core whose loop over ``y`` is under test; its buffers are loaded before, stored after."""

    rng: np.random.Generator
    images: int
    values: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    body: list[Any] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)

    def integers(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def region(self, dtype: Any, shape: tuple[int, int, int]) -> Region:
        """A region of ``shape`` that moves with y through a buffer of its own, often a ring."""
        name, dtype = f"b{len(self.buffers)}", np.dtype(dtype)
        spans, sizes = [], []
        ring = bool(self.pick(True, False))
        for axis, count in enumerate(shape):
            factor = self.pick(0, 1, 2) if axis == 0 or self.pick(True, False) else 0
            start, size = int(self.rng.integers(3)), count + int(self.rng.integers(2))
            if ring and axis == 0:
                start, factor = start - 5, self.pick(-1, factor)
            else:
                size += start + factor * (TURNS - 1)
            terms = (("y", factor),) if factor else ()
            spans.append(Span(Affine(start, terms), count))
            sizes.append(size)
        rows, columns, channels = sizes
        self.values[name] = self.integers(dtype, (self.images, rows, columns, channels))
        self.buffers.append(Buffer(name, NAMES[dtype], (rows, columns, channels), 0, ring=ring))
        whole = sizes[1] == shape[1] and sizes[2] == shape[2] and self.pick(True, False)
        return Region(name, spans[0], *([] if whole else spans[1:]))

    def table(self, values: np.ndarray) -> str:
        self.tables[f"t{len(self.tables)}"] = values
        return f"t{len(self.tables) - 1}"

    def program(self) -> Program:
        tensors, loads, stores = [], [], []
        for b in self.buffers:
            order = (b.shape, b.name, b.shape, (0, 1, 2))
            tensors.append(Tensor("input", f"in_{b.name}", b.dtype, *order))
            tensors.append(Tensor("output", f"out_{b.name}", b.dtype, *order))
            loads.append(Load(Region(b.name), Region(f"in_{b.name}")))
            stores.append(Store(Region(f"out_{b.name}"), Region(b.name)))
        body = (*loads, Loop("y", 0, TURNS, tuple(self.body)), *stores)
        core = Core(0, "", tuple(self.matrices), tuple(self.buffers), body)
        tables = tuple(Table(n, NAMES[v.dtype], v) for n, v in self.tables.items())
        return Program("ou9x8", "", tuple(tensors), tables, tuple(self.channels), (core,))

    def check(self, target: Target, level: int, calls: int = 0) -> None:
        """All buffers and counts are those of Python's executors; C calls back so often."""
        feeds = {f"in_{name}": values for name, values in self.values.items()}
        expected, engine = run(self.program(), target, feeds, "numpy")
        assert isinstance(engine, PythonEngine)
        found, engine = run(self.program(), target, feeds, "c", level)
        assert isinstance(engine, Engine)
        assert engine.calls == calls
        for name, values in expected.outputs.items():
            assert np.array_equal(found.outputs[name], values), name
        assert found.counters == expected.counters  # saturations among them


def run(
    program: Program, target: Target, feeds: Any, kernel: str, level: int | str = "auto", **how: Any
) -> tuple[RunResult, object]:
    machine = machine_of(program, target, kernel, level)
    return machine.run(feeds, **how), machine._state and machine._state.engine


def machine_of(program: Program, target: Target, kernel: str, level: int | str = "auto") -> Machine:
    chosen = "auto" if kernel == "numpy" else str(level)
    with mock.patch.dict(os.environ, PIMC_KERNEL=kernel, PIMC_LEVEL=chosen):
        return Machine(program, target)


def draft(seed: int, images: int) -> Draft:
    return Draft(np.random.default_rng(seed), images)


def sizes(d: Draft) -> tuple[int, int, int]:
    rows, columns = int(d.rng.integers(1, 4)), int(d.rng.integers(1, 6))
    return rows, columns, int(d.pick(1, 2, 3, 5, 16, 33, 600))


@cases
def test_requant_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    _, columns, channels = shape = sizes(d)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    tables = ((channels,), (1,), (1, channels), (columns, channels), (columns, 1), ())
    bias = d.table(d.integers(np.int32, d.pick(*tables)) >> d.pick(0, 8, 24))
    scale = d.rng.normal(0, 10.0 ** d.rng.integers(-9, 3), d.pick(*tables)).astype(np.float32)
    if d.pick(True, False):
        scale[...] = 0.5  # half the products are ties
    source, into = d.region(np.int32, shape), d.region(dtype, shape)
    d.values[source.name] >>= d.pick(0, 8, 16, 24)
    if dtype is np.int32 and d.pick(True, False):
        into = source
    zero = int(d.integers(dtype, ())) >> d.pick(0, 16)
    d.body.append(Requant(into, source, bias, d.table(scale), zero))
    d.check(target, level, calls=int(into is source or not -(1 << 15) <= zero < 1 << 15))


@pytest.mark.parametrize("cls", [Add, Sub, Mul, Max, Min])
@cases
def test_arithmetic_equals_python(
    target: Target, cls: type[Elementwise], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    rows, columns, channels = shape = sizes(d)
    types = [d.pick(np.int8, np.uint8, np.int32) for _ in "ab"]
    dtype = d.pick(np.int8, np.uint8, np.int32)
    shift = d.pick(16, 16, 0)
    zeros = [int(d.integers(t, ())) >> shift * (t is np.int32) for t in (*types, dtype)]
    scales = [float(np.float32(s)) for s in 10.0 ** d.rng.uniform(-4, 1, 3)]
    into, a = d.region(dtype, shape), d.region(types[0], shape)
    if types[0] is dtype and d.pick(True, False):
        a = into  # in place
    b = d.region(types[1], (rows, d.pick(1, columns), d.pick(1, channels)))
    numbers = (scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2])
    d.body.append(cls(into, a, b, *numbers))
    d.check(target, level, calls=int(any(not -(1 << 15) <= zero < 1 << 15 for zero in zeros)))


@cases
def test_lut_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    table = d.table(d.integers(types[1], d.pick((256,), (shape[2], 256))))
    source, into = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    d.body.append(Lut(into, source, table))
    d.check(target, level)


@cases
def test_accumulate_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    d.body.append(Accumulate(d.region(np.int32, shape), d.region(np.int32, shape)))
    d.check(target, level)


@cases
def test_fill_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    d.body.append(Fill(d.region(dtype, sizes(d)), int(d.integers(dtype, ()))))
    d.check(target, level)


@cases
def test_gather_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    source, into = sizes(d), sizes(d)
    index = d.rng.integers(-1, np.prod(source), np.prod(into)).astype(np.int32)
    regions = d.region(dtype, into), d.region(dtype, source)
    d.body.append(Gather(*regions, d.table(index), int(d.integers(dtype, ()))))
    d.check(target, level)


@cases
def test_softmax_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    steps = np.arange(-255, 1) * d.rng.uniform(0.01, 0.5)
    powers = d.table(np.rint(np.exp(steps) * 2**20).astype(np.int32))
    into, source = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    d.body.append(Softmax(into, source, powers, 1 / 256, int(d.integers(types[0], ()))))
    d.check(target, level)


@cases
def test_layernorm_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    gain, offset = (d.table(d.rng.normal(size=shape[2]).astype(np.float32)) for _ in "go")
    into, source = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    numbers = (float(np.float32(d.rng.uniform(0.1, 100))), 0.03, int(d.integers(types[0], ())))
    d.body.append(LayerNorm(into, source, gain, offset, *numbers))
    d.check(target, level)


@cases
def test_matmul_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    rows, columns, inputs = sizes(d)
    outputs = int(d.pick(1, 5, 16, 40))
    into, a, b = (d.pick(np.int8, np.uint8) for _ in "iab")
    zeros = [int(d.integers(t, ())) for t in (a, b, into)]
    regions = (
        d.region(into, (rows, columns, outputs)),
        d.region(a, (rows, columns, inputs)),
        d.region(b, (rows, inputs, outputs)),
    )
    scale = float(np.float32(10.0 ** d.rng.uniform(-6, -2)))
    d.body.append(MatMul(*regions, zeros[0], zeros[1], scale, zeros[2]))
    d.check(target, level)


def two_shapes(d: Draft) -> list[tuple[int, int, int]]:
    """Two shapes of as many elements."""
    rows, columns, channels = shape = sizes(d)
    others = (shape, (columns, rows, channels), (1, 1, rows * columns * channels))
    return [shape, d.pick(*others)]


@pytest.mark.parametrize("cls", [Copy, Load, Store])
@cases
def test_copies_equal_python(
    target: Target, cls: type[Copy | Load | Store], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    into, source = (d.region(dtype, shape) for shape in two_shapes(d))
    d.body.append(cls(into, source))
    d.check(target, level)


@cases
def test_messages_equal_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    shapes = two_shapes(d)
    source, into = (d.region(dtype, shape) for shape in shapes)
    room = (int(d.rng.integers(1, 3)), int(np.prod(shapes[0])))
    depth = int(d.rng.integers(1, 4))
    d.channels.append(Channel("c", 0, 0, NAMES[np.dtype(dtype)], room, depth, 0))
    d.body += [Send("c", source)] * depth + [Recv(into, "c")] * depth
    d.check(target, level)


def windows(d: Draft) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
    """Shape of a source, its windows, and their geometry."""
    kernel, dilation = (d.pick(1, 2, 3), d.pick(1, 2, 3)), (d.pick(1, 2), d.pick(1, 2))
    stride, count = d.pick(1, 2, 3), int(d.rng.integers(1, 12))
    rows = (kernel[0] - 1) * dilation[0] + 1
    columns = (count - 1) * stride + (kernel[1] - 1) * dilation[1] + 1 + int(d.rng.integers(2))
    channels = int(d.pick(1, 2, 3, 16, 21))
    geometry = {"kernel": kernel, "dilation": dilation, "stride": stride}
    return (rows, columns, channels), count, geometry


@pytest.mark.parametrize("cls", [MaxPool, SumPool])
@cases
def test_pools_equal_python(
    target: Target, cls: type[MaxPool | SumPool], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    shape, count, geometry = windows(d)
    dtype = d.pick(np.int8, np.uint8)
    into = d.region(np.int32 if cls is SumPool else dtype, (1, count, shape[2]))
    d.body.append(cls(into, d.region(dtype, shape), **geometry))
    d.check(target, level)


@pytest.mark.parametrize("path", ["auto", "table", "popcount"])
@cases
def test_products_equal_python(
    target: Target, dense_blocks: Blocks, path: str, seed: int, images: int, level: int
) -> None:
    """The ADC of 2 bits clips; at level 0 the linear product is Python's."""
    d = draft(seed, images)
    shape, count, geometry = windows(d)
    inputs = geometry["kernel"][0] * geometry["kernel"][1] * shape[2]
    weights = d.integers(np.int8, (inputs, int(d.pick(1, 5, 16, 40))))
    weights[:, 0] = d.pick(0, -1)  # nothing clips there, or often
    blocks = dense_blocks(weights.astype(np.int32), 9)
    d.matrices.append(Matrix("m", "m", (0, shape[2]), (0, blocks.outputs), blocks))
    into = d.region(np.int32, (1, count, blocks.outputs))
    source = d.region(d.pick(np.int8, np.uint8), shape)
    d.body.append(Mvm(into, "m", source, **geometry))
    with mock.patch.dict(os.environ, PIMC_PATH=path):
        d.check(target, level, calls=int(path == "auto" and level == 0))


def test_each_lowered_instruction_is_compared_here() -> None:
    compared = {Requant, Add, Sub, Mul, Max, Min, Lut, Accumulate, Fill, Copy, Load, Store}
    compared |= {Send, Recv, MaxPool, SumPool, Mvm, Gather, MatMul, Softmax, LayerNorm}
    assert set(LOWERINGS) == compared


def test_what_c_does_not_do_is_called_back_with_the_loop_variables(target: Target) -> None:
    d = draft(0, 2)
    d.body.append(Const(d.region(np.int8, (1, 1, 3)), d.table(np.arange(3, dtype=np.int8))))
    whole = d.region(np.int8, (4, 2, 2))
    within = replace(whole, rows=Span(Affine(0, (("y", 1),)), 1))
    d.body.append(Copy(within, replace(whole, rows=Span(Affine(1), 1))))  # may overlap
    d.check(target, 0, calls=2)


def test_nested_loops_of_any_step_run_as_in_python(target: Target) -> None:
    d = draft(1, 1)
    region = d.region(np.int8, (1, 1, 1))
    ring = Region(region.name, Span(Affine(0, (("x", 3), ("y", 1))), 1), *[Span(Affine(), 1)] * 2)
    d.buffers[0] = replace(d.buffers[0], ring=True)
    empty = Loop("x", 2, 2, (Fill(ring, 9),))
    d.body += [Loop("x", -3, 8, (Fill(ring, 5), Loop("z", 0, 2, (Fill(ring, 6),))), 4), empty]
    d.check(target, 0)


def test_streams_can_be_forced_into_python(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    d = draft(0, 1)
    d.body.append(Fill(d.region(np.int8, (1, 2, 3)), 7))
    monkeypatch.setenv("PIMC_STREAMS", "python")
    feeds = {f"in_{name}": values for name, values in d.values.items()}
    assert isinstance(run(d.program(), target, feeds, "c")[1], PythonEngine)


# ------------------------------------------------------------------ errors


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
