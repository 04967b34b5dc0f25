"""The onnx backend interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import pimc.backend
from isa.diagnostics import PimError

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data"


def stored(case: str) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    """A case of onnx's test data: model, inputs, outputs."""
    folder = FOLDER / case
    inputs, outputs = (
        [
            numpy_helper.to_array(onnx.load_tensor(str(file)))
            for file in sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))
        ]
        for kind in ("input", "output")
    )
    return onnx.load(folder / "model.onnx"), inputs, outputs


@pytest.mark.parametrize(
    "case",
    [
        "pytorch-converted/test_Conv2d_groups",
        "pytorch-converted/test_Linear",
        "pytorch-converted/test_ConvTranspose2d",
        "pytorch-converted/test_Embedding",
        "pytorch-operator/test_operator_reduced_sum",
    ],
)
def test_stored_outputs_are_met_within_four_steps(case: str) -> None:
    model, inputs, outputs = stored(case)
    rep = pimc.backend.prepare(model)
    results = rep.run(inputs)
    assert rep.program is not None
    for tensor, ours, theirs in zip(rep.program.output_tensors, results, outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 4 * (tensor.scale or 0)


def test_weights_that_are_inputs_are_bound_when_the_model_runs() -> None:
    rng = np.random.default_rng(0)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 3, 5, 5), (4, 3, 3, 3))]
    (y,) = pimc.backend.run_node(node, arrays)
    windows = np.lib.stride_tricks.sliding_window_view(arrays[0], (3, 3), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, arrays[1])
    assert np.abs(y - expected).max() < 0.05 * np.abs(expected).max()


def test_other_weights_are_programmed_anew_and_the_same_are_not() -> None:
    rng = np.random.default_rng(0)
    x, w, other = (rng.normal(size=(3, 3)).astype(np.float32) for _ in range(3))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [3, 3]) for n in "xwy"]
    graph = helper.make_graph([node], "product", ports[:2], ports[2:])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    assert pimc.backend.is_compatible(model)
    rep = pimc.backend.prepare(model)
    for weights, compiles in ((w, 1), (w, 1), (other, 2), (w, 3)):
        (y,) = rep.run([x, weights])
        assert np.abs(y - x @ weights).max() < 0.05 * np.abs(x @ weights).max()
        assert (rep.weights, list(rep.bound), rep.compiles) == (["w"], ["w"], compiles)
        assert rep.program is not None
        assert any(core.matrices for core in rep.program.program.cores)


def test_a_second_run_uses_the_compiled_program() -> None:
    model, inputs, _ = stored("pytorch-converted/test_Linear")
    rep = pimc.backend.prepare(model)
    first = rep.run(inputs)
    program = rep.program
    again = rep.run({model.graph.input[0].name: inputs[0]})
    assert rep.program is program
    assert (first[0] == again[0]).all()


def test_what_is_refused_is_incompatible_and_says_why() -> None:
    model, inputs, _ = stored("pytorch-converted/test_MaxPool2d")
    model.graph.node[0].op_type = "LpPool"
    assert not pimc.backend.is_compatible(model)
    with pytest.raises(PimError, match=r"LpPool `.*this operator is not supported"):
        pimc.backend.run_model(model, inputs)


def test_only_the_cpu_is_a_device() -> None:
    assert pimc.backend.supports_device("CPU")
    assert not pimc.backend.supports_device("CUDA")


def test_results_come_in_the_order_of_the_model() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[3,4] x) => (float[3,4] late, float[3,4] early)
        { early = Relu(x) a = Neg(x) b = Exp(a) late = Tanh(b) }"""
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    late, early = pimc.backend.run_model(onnx.parser.parse_model(text), [x])
    assert np.abs(early - np.maximum(x, 0)).max() < 0.02
    assert np.abs(late - np.tanh(np.exp(-x))).max() < 0.02
