"""Random networks: each compiles and equals onnxruntime, or is refused with a code."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fuzz.random_draws import DRAWS
from fuzz.random_graphs import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

import pimc
from isa.diagnostics import PimError
from isa.program import DTYPES, Tensor

SAMPLES = 5
SEEDS, SIZES = st.integers(0, 2**32 - 1), st.integers(1, 8)
# what a drawn network may be refused for: ports of other types or without a size (F205, F211,
# F214), what the host does not run either (F204, F206, F210), an overflow (F222), and numbers
# that fit no type or table (R715)
REFUSALS = {"F204", "F205", "F206", "F210", "F211", "F214", "F222", "R715"}


def samples(tensor: Tensor) -> np.ndarray:
    shape, numbers = (SAMPLES, *tensor.onnx_shape), np.random.default_rng(0)
    if tensor.scale is not None or tensor.dtype == "f32":
        return numbers.normal(0, 1, shape).astype(np.float32)
    return numbers.integers(0, 2, shape).astype(DTYPES[tensor.dtype])


def judge(seed: int, size: int) -> None:
    model = random_model(random.Random(seed), DRAWS, size)
    try:
        program = pimc.compile(model, tiles="auto")
        found = program.verify({t.onnx_name: samples(t) for t in program.input_tensors})
    except PimError as error:
        if {finding.code for finding in error.diagnostics} <= REFUSALS:
            return
        raise
    assert found["equal"], found
    # a Reshape to a written batch runs on no other number of images
    assert "gives output" not in found.get("float_error", ""), found["float_error"]


@given(SEEDS, SIZES)
def test_a_random_network_equals_onnxruntime_or_is_refused(seed: int, size: int) -> None:
    judge(seed, size)


@pytest.mark.long
@settings(max_examples=2000)
@given(SEEDS, SIZES)
def test_many_random_networks_equal_onnxruntime_or_are_refused(seed: int, size: int) -> None:
    judge(seed, size)
