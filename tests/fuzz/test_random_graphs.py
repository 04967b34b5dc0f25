"""Random networks: each compiles and equals onnxruntime, or is refused with a code."""

from __future__ import annotations

import pytest
from fuzz.judge import judge
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS, SIZES = st.integers(0, 2**32 - 1), st.integers(1, 8)


@given(SEEDS, SIZES)
def test_a_random_network_equals_onnxruntime_or_is_refused(seed: int, size: int) -> None:
    judge(seed, size)


@pytest.mark.long
@settings(max_examples=2000)
@given(SEEDS, SIZES)
def test_many_random_networks_equal_onnxruntime_or_are_refused(seed: int, size: int) -> None:
    judge(seed, size)
