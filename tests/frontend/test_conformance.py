"""The converted models of the onnx package: all on the chip, and exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.makers import weights
from frontend.oracle import differences, random_feeds, run_onnx

from passes.graph import LrnNode
from pimc.frontend.build import FrontendOptions, import_model

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-converted"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/model.onnx"))
CHIP_ALONE = FrontendOptions(use_host=False)


@pytest.mark.parametrize("case", CASES)
def test_converted_models_are_exact(case: str) -> None:
    model = onnx.load(FOLDER / case / "model.onnx")
    feeds = random_feeds(model, 3, 0)
    found = import_model(model, None, CHIP_ALONE)
    values = found.graph.values
    for name in found.graph.inputs:
        if not values[name].batched:
            feeds[name] = weights(*values[name].onnx_shape)
    makers = found.graph.producers()
    for name, difference in differences(found, feeds).items():
        is_loose = isinstance(makers[name], LrnNode)
        assert difference.largest <= int(is_loose), name


@pytest.mark.parametrize("case", [case for case in CASES if "PReLU" in case])
def test_old_slopes_go_by_channel(case: str) -> None:
    model = onnx.load(FOLDER / case / "model.onnx")
    data = FOLDER / case / "test_data_set_0"
    tensors = []
    for name in ("input_0.pb", "output_0.pb"):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((data / name).read_bytes())
        tensors.append(onnx.numpy_helper.to_array(tensor))
    port = model.graph.input[0].name
    found = import_model(model, {port: tensors[0]}, CHIP_ALONE)
    result = run_onnx(found.reference, {port: tensors[0]})[found.graph.outputs[0]]
    step = found.graph.values[found.graph.outputs[0]].scale
    assert step is not None
    assert np.abs(result - tensors[1]).max() <= 2 * step
