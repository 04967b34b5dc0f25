"""Programs of one core for tests of the C engine: drafted at random, run by both engines."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np

from isa.catalog import Load, Store
from isa.instruction import Instruction
from isa.operands import Affine, Region, Span
from isa.program import DTYPES, Buffer, Channel, Core, Loop, Matrix, Program, Table, Tensor
from isa.target import Target
from runtime.engine import Engine
from runtime.machine import Machine, RunResult
from runtime.streams import PythonEngine

NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
TURNS = 4
ODD = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38)


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
        """Any values of a type; of float32 small and large ones, zeros and infinities."""
        if np.dtype(dtype).kind == "f":
            values = self.rng.normal(0, 10.0 ** self.rng.integers(-3, 3), shape)
            odd = self.rng.choice(ODD, shape)
            return np.where(self.rng.random(shape) < 0.02, odd, values).astype(np.float32)
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)

    def zero(self, dtype: Any, shift: int = 0) -> int:
        """A zero point; ``shift``: bits by which one of s32 is made smaller."""
        if np.dtype(dtype).kind == "f":
            return 0
        return int(self.integers(dtype, ())) >> shift * (np.dtype(dtype).itemsize > 1)

    def scale(self, dtype: Any) -> float:
        """A scale that float32 holds; numbers of float32 have none."""
        drawn = float(np.float32(10.0 ** self.rng.uniform(-4, 1)))
        return 1.0 if np.dtype(dtype).kind == "f" else drawn

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
            equal_nan = values.dtype.kind == "f"
            assert np.array_equal(found.outputs[name], values, equal_nan=equal_nan), name
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


def run_one(
    target: Target,
    instruction: Instruction,
    inputs: dict[str, np.ndarray],
    into: np.ndarray,
    tables: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Load ``inputs`` [images, rows, columns, channels] and ``into``, execute, return ``into``."""
    everything = {**inputs, "into": into}
    tensors, buffers, loads = [], [], []
    for name, values in everything.items():
        shape, dtype = values.shape[1:], NAMES[values.dtype]
        tensors.append(Tensor("input", f"in_{name}", dtype, shape, name, shape, (0, 1, 2)))
        buffers.append(Buffer(name, dtype, shape, 0))
        loads.append(Load(Region(name), Region(f"in_{name}")))
    out = replace(tensors[-1], role="output", name="out")
    program = Program(
        "tiny",
        "",
        (*tensors, out),
        tuple(Table(n, NAMES[v.dtype], v) for n, v in (tables or {}).items()),
        (),
        (
            Core(
                0,
                "",
                (),
                tuple(buffers),
                (*loads, instruction, Store(Region("out"), Region("into"))),
            ),
        ),
    )
    feeds = {f"in_{name}": values for name, values in everything.items()}
    return Machine(program, target).run(feeds).outputs["out"]
