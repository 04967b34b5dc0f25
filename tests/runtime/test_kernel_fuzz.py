"""The C entry points with arrays of any shape, type and stride: an answer or one clear error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.matrix import BlockMatrix
from runtime.kernel import load_extension
from runtime.paths import make_plan

Blocks = Callable[..., BlockMatrix]
EXTENSION = load_extension()
pytestmark = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")
LEVELS = st.integers(-1, 3)
METHODS = st.sampled_from(["table", "popcount", "excess", "sliced", "auto", "fast", ""])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any array: 0 to 4 axes of small sizes, any type, perhaps strided, read-only or empty."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 16]), max_size=4)))
    kind = draw(st.sampled_from("?bBhHiIlLqQfdD"))
    array = np.ones(shape, np.dtype(kind))
    form = draw(st.sampled_from(["plain", "transposed", "strided", "reversed", "read-only"]))
    if form == "transposed":
        array = array.T
    elif form == "strided" and array.ndim:
        array = array[::2]
    elif form == "reversed" and array.ndim:
        array = array[::-1]
    array.flags.writeable = form != "read-only"
    return array


def answers_or_refuses(call: Callable[[], object]) -> None:
    """Anything but an answer or one of these errors fails the test."""
    with suppress(ValueError, TypeError, BufferError, OverflowError):
        call()


def is_matrix(array: np.ndarray, kind: str, axes: int) -> bool:
    return array.ndim == axes and array.flags.c_contiguous and array.dtype == np.dtype(kind)


@given(u=arrays(), weights=arrays(), out=arrays(), level=LEVELS)
def test_gemm_takes_only_arrays_that_fit(
    u: np.ndarray, weights: np.ndarray, out: np.ndarray, level: int
) -> None:
    assert EXTENSION is not None
    fits = is_matrix(u, "B", 2) and is_matrix(weights, "b", 4) and is_matrix(out, "i", 2)
    if fits:
        answers_or_refuses(lambda: EXTENSION.gemm(u, weights, out, level))
    else:
        with pytest.raises((ValueError, TypeError, BufferError)):
            EXTENSION.gemm(u, weights, out, level)


@given(u=arrays(), out=arrays(), method=METHODS, level=LEVELS)
def test_serial_takes_only_arrays_that_fit(
    dense_blocks: Blocks, u: np.ndarray, out: np.ndarray, method: str, level: int
) -> None:
    assert EXTENSION is not None
    plan = make_plan(EXTENSION, dense_blocks(np.ones((4, 3), np.int64), 4), 1)
    fits = is_matrix(u, "B", 2) and is_matrix(out, "i", 2) and out.flags.writeable
    if fits and u.shape[1:] == (4,) and out.shape == (len(u), 3):
        answers_or_refuses(lambda: EXTENSION.serial(plan, u, out, method, level))
    else:
        with pytest.raises((ValueError, TypeError, BufferError)):
            EXTENSION.serial(plan, u, out, method, level)


@given(data=st.data(), positions=st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True))
def test_a_plan_of_any_arrays_is_refused_or_can_be_executed(
    dense_blocks: Blocks, data: st.DataObject, positions: list[int]
) -> None:
    """Numbers and arrays of a good plan replaced by others: whatever is taken must be safe."""
    assert EXTENSION is not None

    class Spy:
        @staticmethod
        def plan(*args: object) -> list[object]:
            return list(args)

    args = make_plan(Spy, dense_blocks(np.ones((4, 3), np.int64), 4), 1)  # type: ignore[arg-type]
    assert isinstance(args, list)
    for position in positions:
        if position < 3:
            args[position] = data.draw(st.sampled_from([-(2**40), -1, 0, 1, 3, 70000, 2**40]))
        elif data.draw(st.booleans()):
            args[position] = data.draw(arrays())
        else:
            args[position] = array = args[position].copy()
            index = data.draw(st.integers(0, array.size - 1))
            high = min(np.iinfo(array.dtype).max, 2**40)
            low = max(np.iinfo(array.dtype).min, -(2**40))
            array.flat[index] = data.draw(st.sampled_from([low, 0, 1, 2, 5, high]))

    def make_and_execute() -> None:
        plan = EXTENSION.plan(*args)
        inputs, outputs = args[0], args[1]
        for level in range(EXTENSION.best_level() + 1):
            for method in ("popcount", "excess", "sliced", "auto"):
                u = np.full((9, inputs), 255, np.uint8)
                EXTENSION.serial(plan, u, np.zeros((9, outputs), np.int32), method, level)

    answers_or_refuses(make_and_execute)


def test_something_else_than_a_plan_is_refused() -> None:
    assert EXTENSION is not None
    u, out = np.zeros((1, 4), np.uint8), np.zeros((1, 3), np.int32)
    for other in (None, 7, object(), EXTENSION):
        with pytest.raises((ValueError, TypeError)):
            EXTENSION.serial(other, u, out, "auto", 0)
        with pytest.raises((ValueError, TypeError)):
            EXTENSION.can(other, "table")
