"""What onnxruntime saves with channels in blocks is read in their usual order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model, run_onnx

from pimc.frontend.build import import_model
from pimc.frontend.load import load_model
from pimc.frontend.net import LAYOUT
from pimc.frontend.normalize import normalize

F = np.float32
CONSTANTS = {
    "few": weights(6, 3, 3, 3),
    "bias": weights(6),
    "big": weights(20, 16, 3, 3),
    "more": weights(20),
    "odd": weights(20, 24, 1, 1),
    "last": weights(5, 20, 1, 1),
    "deep": weights(32, 1, 3, 3),
    "wide": weights(32, 16, 3, 3),
    "joint": weights(4, 32, 1, 1),
    "left": weights(16, 16, 1, 1),
    "right": weights(16, 16, 1, 1, seed=1),
    "ones": weights(20, 1, 1, 1),
    "low": F(-0.5),
    "high": F(0.5),
    "none": np.zeros(0, F),
    "twice": np.array([1, 1, 2, 2], F),
}
LAYERS = {
    "few channels": ("c = Conv<pads=[1,1,1,1]>(x, few, bias) y = Relu(c)", 3),
    "blocks": ("c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, big, more) y = Relu(c)", 16),
    "blocks that are filled up": ("c = Conv(x, odd) r = Sigmoid(c) y = Conv(r, last)", 24),
    "depthwise": ("c = Conv<group=32, pads=[1,1,1,1]>(x, deep) y = Clip(c, low, high)", 32),
    "groups": ("y = Conv<group=2>(x, wide)", 32),
    "pools": (
        """c = Conv<pads=[1,1,1,1]>(x, big) m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
           k = Conv(m, last) y = GlobalAveragePool(k)""",
        16,
    ),
    "a sum": ("c = Conv(x, left) d = Conv(x, right) s = Add(c, d) y = Relu(s)", 16),
    "joined": ("c = Conv(x, left) d = Conv(x, right) j = Concat<axis=1>(c, d) y = Conv(j, joint)",
               16),
}  # fmt: skip


def _models(body: str, channels: int, folder: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model, and what onnxruntime makes of it for the processor of this machine."""
    signature = f"(float[1,{channels},8,8] x) => (float[1,C,H,W] y)"
    used = {name: values for name, values in CONSTANTS.items() if name in body}
    model = make(signature, body, opset=17, **used)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "saved.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    saved = load_model(folder / "saved.onnx")
    assert LAYOUT in {node.domain for node in saved.graph.node}
    return model, saved


@pytest.mark.parametrize("case", LAYERS)
def test_channels_in_blocks_are_put_in_order(case: str, tmp_path: Path) -> None:
    model, saved = _models(*LAYERS[case], tmp_path)
    written = normalize(saved).model
    assert {node.domain for node in written.graph.node} <= {"", "ai.onnx"}
    channels = LAYERS[case][1]
    feeds = {"x": weights(1, channels, 8, 8, scale=1.0)}
    expected, found = run_onnx(model, feeds)["y"], run_onnx(written, feeds)["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    imported = check_model(saved, feeds={"x": weights(4, channels, 8, 8, scale=1.0)})
    assert imported.on_host == ()


def test_blocks_that_an_unknown_operator_reads_stay_blocks(tmp_path: Path) -> None:
    body = """c = Conv(x, left)
              y = Resize<mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric">(c, none, twice)"""
    _, saved = _models(body, 16, tmp_path)
    kinds = {node.op_type for node in saved.graph.node if node.domain == LAYOUT}
    assert "Upsample" in kinds
    found = import_model(saved, {"x": weights(4, 16, 8, 8, scale=1.0)})
    assert {stay.op_type.rpartition(".")[2] for stay in found.on_host} == kinds
    assert {stay.reason for stay in found.on_host} == {
        "its operands are laid out for one processor"
    }
