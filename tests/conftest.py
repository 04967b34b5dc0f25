"""Settings that all tests share: how many examples hypothesis draws, how long tests may take."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from isa.matrix import BlockMatrix, Routes, Spans, pack_cells

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=20, **_COMMON)  # type: ignore[arg-type]
settings.register_profile(  # the same examples on every machine, so that red means red everywhere
    "ci",
    max_examples=50,
    derandomize=True,
    print_blob=True,
    **_COMMON,  # type: ignore[arg-type]
)
settings.register_profile("nightly", max_examples=5000, **_COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


LONG_TIMEOUT_S = 3600  # of a long test on a machine with other work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))


@pytest.fixture(scope="session")
def random_blocks() -> Callable[..., BlockMatrix]:
    """A maker of random block matrices: ragged selectors, empty groups, many routes or none."""
    return _random_blocks


@pytest.fixture(scope="session")
def dense_blocks() -> Callable[..., BlockMatrix]:
    """A maker of the plain tiling of a weight matrix: two's complement in 1-bit cells."""
    return _dense_blocks


def _random_blocks(
    seed: int, groups: int = 5, lines: int = 9, cell_bits: int = 1, shared: bool = False
) -> BlockMatrix:
    """Draw a matrix; ``shared``: groups use one of two route lists instead of each its own."""
    rng = np.random.default_rng(seed)
    inputs, outputs = int(rng.integers(lines, 3 * lines + 1)), int(rng.integers(1, 40))
    lists = 2 if shared else groups
    sizes = rng.integers(0, 90, lists)
    routing = (rng.integers(0, lists, groups) if shared else rng.permutation(groups)).astype(
        np.int32
    )
    rows = np.full((groups, lines), -1, np.int32)
    for selector in rows:
        used = rng.integers(1, lines + 1)
        selector[:used] = rng.permutation(inputs)[:used]
    columns = sizes[routing]
    cells = rng.integers(0, 1 << cell_bits, (columns.sum(), lines), dtype=np.uint8)
    cells[np.repeat(rows, columns, axis=0) < 0] = 0  # an unused word line holds nothing
    count = rng.integers(0, 4, sizes.sum())
    total = int(count.sum())
    routes = Routes(
        column_start=np.concatenate([[0], np.cumsum(sizes)]),
        start=np.concatenate([[0], np.cumsum(count)]),
        output=rng.integers(0, outputs, total).astype(np.int32),
        shift=rng.integers(0, 8, total).astype(np.uint8),
        sign=rng.choice(np.array([-1, 1], np.int8), total),
    )
    starts = np.concatenate([[0], np.cumsum(columns)])
    packed = pack_cells(cells, cell_bits)
    return BlockMatrix(
        inputs, outputs, cell_bits, rows, packed, starts, routing, routes, Spans.empty()
    )


def _dense_blocks(weights: np.ndarray[Any, Any], lines: int) -> BlockMatrix:
    """Tile ``weights`` (-128..127) [inputs, outputs]: 8 stored columns an output, one list."""
    inputs, outputs = weights.shape
    groups, columns = -(-inputs // lines), outputs * 8
    rows = np.full((groups, lines), -1, np.int32)
    rows.flat[:inputs] = np.arange(inputs)
    padded = np.zeros((groups * lines, outputs), np.int64)
    padded[:inputs] = weights
    bits = (padded.reshape(groups, lines, outputs, 1) >> np.arange(8)) & 1
    cells = bits.transpose(0, 2, 3, 1).reshape(groups * columns, lines).astype(np.uint8)
    routes = Routes(
        column_start=np.array([0, columns]),
        start=np.arange(columns + 1),
        output=np.repeat(np.arange(outputs), 8).astype(np.int32),
        shift=np.tile(np.arange(8), outputs).astype(np.uint8),
        sign=np.tile(np.array([1] * 7 + [-1], np.int8), outputs),
    )
    starts = np.arange(groups + 1) * columns
    packed = pack_cells(cells, 1)
    return BlockMatrix(
        inputs, outputs, 1, rows, packed, starts, np.zeros(groups, np.int32), routes, Spans.empty()
    )
