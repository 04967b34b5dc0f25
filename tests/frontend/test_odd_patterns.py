"""Odd networks of what quantizers, optimizers and exporters write, found by drawing random ones."""

from __future__ import annotations

import numpy as np
from frontend.makers import make
from frontend.test_odd_graphs import check


def test_quantized_weights_that_are_only_joined_are_constants() -> None:
    model = make(
        "(float[N,4] x) => (float[A,B] y)",
        "w = DequantizeLinear<axis=1>(q, s, z) w2 = Concat<axis=1>(w, w) y = MatMul(x, w2)",
        q=np.arange(-12, 8, dtype=np.int8).reshape(4, 5),
        s=np.linspace(0.01, 0.02, 5, dtype=np.float32),
        z=np.zeros(5, np.int8),
    )
    check(model)
