"""Number formulas: saturation at the limits of every integer type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.numerics import quantize, requantize

reals = st.floats(-(2.0**40), 2.0**40, width=32)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@given(real=reals, zero=st.integers(-100, 100))
def test_no_number_leaves_the_type_that_it_saturates_to(  # type: ignore[no-untyped-def]
    dtype, real: float, zero: int
) -> None:
    info = np.iinfo(dtype)
    zero = max(zero, info.min)
    value = np.array([real], np.float32)
    found = quantize(value.copy(), 1.0, zero, np.dtype(dtype))
    assert info.min <= float(found[0]) <= info.max
    exact = min(max(float(np.rint(value[0])) + zero, info.min), info.max)
    assert abs(float(found[0]) - exact) <= abs(exact) * 2.0**-23


@given(sums=st.integers(-(2**31), 2**31 - 1), scale=reals, zero=st.integers(-(2**31), 2**31 - 1))
def test_a_wide_requantization_stays_within_32_bits(sums: int, scale: float, zero: int) -> None:
    none = np.zeros(1, np.int32)
    factor = np.array([scale], np.float32)
    found = requantize(np.array([sums], np.int32), none, factor, zero, np.dtype(np.int32))
    assert -(2.0**31) <= float(found[0]) < 2.0**31
