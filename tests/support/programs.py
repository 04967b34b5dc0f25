"""Programs for tests: one written by hand, and strategies that derive from the catalog."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isa.assembly import parse_program
from isa.catalog import CATALOG
from isa.instruction import Instruction, operand_fields
from isa.matrix import BlockMatrix, Routes, Spans, pack_cells
from isa.operands import Affine, Region, Span
from isa.program import (
    DTYPES,
    Buffer,
    Channel,
    Core,
    Loop,
    Matrix,
    Program,
    Statement,
    Table,
    Tensor,
)

GOLDEN = Path(__file__).parent.parent / "golden"
TWO_CORES = (GOLDEN / "two_cores.pim").read_text(encoding="utf-8")

Draw = Callable[[st.SearchStrategy[Any]], Any]


def two_cores() -> Program:
    """A small network on two cores of the target `tiny`, complete and sound."""
    return parse_program(TWO_CORES, file="two_cores.pim")


# names that the text form could trip over, besides any other text
AWKWARD = ["loop", "ring", "at", "inf", "a.b", "a..b", "/conv/0", 'q"', ";", "}", "", "a" * 64]
AWKWARD += ["f" * 64, "0b1", "12", "@x", "core", "a b", "back\\slash", "\n", "ä", "x0", "\u2028"]

names = st.one_of(
    st.sampled_from(["acc", "rows", "conv1.bias"]), st.sampled_from(AWKWARD), st.text()
)
variables = st.sampled_from(["x", "y", "z2", "row_1"])
sizes = st.integers(1, 40)
integers = st.integers(-(1 << 31), 1 << 31)
floats = st.floats(width=32, allow_nan=False)
shapes = st.tuples(sizes, sizes, sizes)
dtypes = st.sampled_from(sorted(DTYPES))


@st.composite
def affines(draw: Draw) -> Affine:
    factors = st.integers(-9, 9).filter(bool)
    terms = draw(st.dictionaries(variables, factors, max_size=3))
    return Affine(draw(st.integers(-99, 99)), tuple(sorted(terms.items())))


spans = st.builds(Span, affines(), st.integers(1, 50))
axes = st.one_of(st.none(), spans)
regions = st.builds(Region, names, axes, axes, axes)
_OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "region": regions,
    "matrix": names,
    "channel": names,
    "table": names,
    "partition": names,
    "int": integers,
    "float": floats,
    "pair": st.tuples(integers, integers),
}


def instructions_of(cls: type[Instruction]) -> st.SearchStrategy[Instruction]:
    """Any instruction of one class, sensible or not; defaults come up often."""
    operands = {}
    for field in operand_fields(cls):
        strategy = _OPERANDS[field.kind]
        default = st.just(field.default)
        operands[field.name] = strategy if field.positional else st.one_of(default, strategy)
    return st.builds(cls, **operands)


instructions = st.sampled_from(sorted(CATALOG)).flatmap(lambda m: instructions_of(CATALOG[m]))
_bounds = st.integers(-9, 99)
statements: st.SearchStrategy[Statement] = st.recursive(
    instructions,
    lambda inner: st.builds(
        Loop, variables, _bounds, _bounds, st.lists(inner, max_size=3).map(tuple), st.integers(1, 3)
    ),
    max_leaves=6,
)


@st.composite
def tables(draw: Draw, name: str) -> Table:
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    elements = floats if dtype == "f32" else hnp.from_dtype(DTYPES[dtype])
    values = draw(hnp.arrays(DTYPES[dtype], shape, elements=elements))
    return Table(name, dtype, values, draw(st.booleans()))


@st.composite
def block_matrices(draw: Draw) -> BlockMatrix:
    """Any block matrix: ragged groups, shared and own route lists, places in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    groups, lines = draw(st.integers(0, 4)), draw(st.integers(1, 20))
    cell_bits = draw(st.integers(1, 4))
    inputs, outputs = int(rng.integers(1, 50)), int(rng.integers(1, 20))
    rows = np.full((groups, lines), -1, np.int32)
    for selector in rows:
        used = rng.integers(0, min(lines, inputs) + 1)
        start = rng.integers(0, inputs - used + 1)
        order = np.arange(inputs) if rng.integers(2) else rng.permutation(inputs)
        selector[:used] = order[start : start + used]
    lists = int(rng.integers(1, groups + 1)) if groups else 0
    per_list = rng.integers(0, 6, lists)
    routing = rng.integers(0, max(lists, 1), groups).astype(np.int32)
    columns = per_list[routing] if groups else np.zeros(0, np.int64)
    cells = rng.integers(0, 1 << cell_bits, (columns.sum(), lines), dtype=np.uint8)
    if draw(st.booleans()):
        cells[np.repeat(rows, columns, axis=0) < 0] = 0
    counts = rng.integers(0, 4, per_list.sum())
    total = int(counts.sum())
    routes = Routes(
        column_start=np.concatenate([[0], np.cumsum(per_list)]).astype(np.int64),
        start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        output=rng.integers(0, outputs, total).astype(np.int32),
        shift=rng.integers(0, 31, total).astype(np.uint8),
        sign=rng.choice(np.array([-1, 1], np.int8), total),
    )
    starts = np.concatenate([[0], np.cumsum(columns)]).astype(np.int64)
    packed = pack_cells(cells, cell_bits)
    places = _random_places(rng, columns)
    return BlockMatrix(inputs, outputs, cell_bits, rows, packed, starts, routing, routes, places)


def _random_places(rng: np.random.Generator, columns: np.ndarray[Any, Any]) -> Spans:
    """Some groups tiled from the first column to the last, some placed in any other way."""
    found: list[tuple[int, ...]] = []
    for group, count in enumerate(columns.tolist()):
        if rng.integers(2):
            cuts = sorted({0, count, *rng.integers(0, count + 1, 2).tolist()})
            runs = [(a, b - a) for a, b in pairwise(cuts)]
        else:
            runs = [tuple(rng.integers(0, 9, 2).tolist()) for _ in range(rng.integers(3))]
        found += [(group, *run, *rng.integers(0, 99, 3).tolist()) for run in runs]
    rng.shuffle(found)
    return Spans(*np.array(found, np.int32).reshape(-1, 6).T.copy())


@st.composite
def _tensors(draw: Draw) -> Tensor:
    onnx_shape = tuple(draw(st.lists(sizes, max_size=4)))
    positive = st.floats(width=32, min_value=2**-100, max_value=2**100)
    return Tensor(
        draw(st.sampled_from(["input", "output", "inner"])),
        draw(names),
        draw(dtypes),
        draw(shapes),
        draw(names),
        onnx_shape,
        tuple(draw(st.permutations(range(len(onnx_shape))))),
        draw(st.one_of(st.none(), positive)),
        draw(integers),
        draw(st.booleans()),
    )


_addresses = st.integers(0, 1 << 20)
_ranges = st.tuples(st.integers(0, 99), sizes).map(lambda r: (r[0], r[0] + r[1]))
_channels = st.builds(
    Channel,
    names,
    st.integers(0, 99),
    st.integers(0, 99),
    dtypes,
    st.tuples(sizes, sizes),
    sizes,
    st.one_of(st.none(), _addresses),
    st.one_of(st.none(), st.tuples(names, _ranges).map(lambda c: (c[0], *c[1]))),
)
_buffers = st.builds(
    Buffer,
    names,
    dtypes,
    shapes,
    st.one_of(st.none(), _addresses),
    st.booleans(),
    st.one_of(st.none(), integers),
)


@st.composite
def programs(draw: Draw) -> Program:
    """Any program that has a text, sensible or not; no two of its arrays share a name."""
    own = draw(st.lists(names, min_size=8, max_size=8, unique=True))
    cores = []
    for index in range(draw(st.integers(0, 2))):
        layer = draw(names)
        matrices = [
            Matrix(
                # no name of a matrix, with a part of it, is the name of a table
                "m" + own[4 + 2 * index + n],
                draw(st.one_of(st.just(layer), names)),
                draw(_ranges),
                draw(_ranges),
                draw(block_matrices()),
                draw(st.booleans()),
            )
            for n in range(draw(st.integers(0, 2)))
        ]
        buffers = draw(st.lists(_buffers, max_size=3))
        body = draw(st.lists(statements, max_size=5))
        cores.append(Core(7 * index, layer, tuple(matrices), tuple(buffers), tuple(body)))
    count = draw(st.integers(0, 4))
    return Program(
        draw(names),
        draw(st.sampled_from(["", "0" * 64, "none"])),
        tuple(draw(st.lists(_tensors(), max_size=2))),
        tuple(draw(tables("t" + name)) for name in own[:count]),
        tuple(draw(st.lists(_channels, max_size=2))),
        tuple(cores),
    )
