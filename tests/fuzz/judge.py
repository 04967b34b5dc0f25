"""Judge: one random network is compiled and compared, or refused for a reason it may have."""

from __future__ import annotations

import random

import numpy as np
from fuzz.random_draws import DRAWS
from fuzz.random_graphs import random_model
from fuzz.random_patterns import PATTERNS

import pimc
from isa.diagnostics import PimError
from isa.program import DTYPES, Tensor

SAMPLES = 5
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
    """Draw the network of a seed with up to ``size`` operators or patterns.

    Raises AssertionError where the program differs from onnxruntime or the refusal is no reason.
    """
    rng = random.Random(seed)
    model = random_model(rng, DRAWS if rng.random() < 0.4 else (*DRAWS, *PATTERNS), size)
    try:
        program = pimc.compile(model, tiles="auto")
        found = program.verify({t.onnx_name: samples(t) for t in program.input_tensors})
    except PimError as error:
        if {finding.code for finding in error.diagnostics} <= REFUSALS:
            return
        raise AssertionError(error.render()) from error
    assert found["equal"], found
    # a Reshape to a written batch runs on no other number of images
    assert "gives output" not in found.get("float_error", ""), found["float_error"]
