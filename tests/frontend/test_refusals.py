"""Refusals: one clear message for every broken file, all unsupported nodes at once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.oracle import random_feeds
from onnx import TensorProto, helper
from onnxruntime.datasets import get_example

from isa.codes import FRONTEND
from isa.diagnostics import Diagnostic, PimError
from pimc.frontend.build import FrontendOptions, import_model
from pimc.frontend.supported import RULES, supported_ops

MODELS = Path(__file__).resolve().parents[2] / "models"
IMAGE = "(float[N,4,6,8] x) => (float[N,C,H,W] y)"


def refused(
    model: str | Path | bytes | onnx.ModelProto, options: FrontendOptions | None = None
) -> tuple[Diagnostic, ...]:
    """The findings with which a model is refused where nothing may run on the host."""
    options = replace(options or FrontendOptions(), use_host=False)
    with pytest.raises(PimError) as caught:
        import_model(model, None, options)
    assert caught.value.exit_code == 3
    return caught.value.diagnostics


def the_only(findings: tuple[Diagnostic, ...], code: str) -> str:
    assert [finding.code for finding in findings] == [code]
    return findings[0].message


# ------------------------------------------------------------------ files
def test_a_truncated_file() -> None:
    data = (MODELS / "lenet5_fmnist.onnx").read_bytes()
    for size in (len(data) // 2, len(data) - 7, 3000):
        assert "ends in the middle" in the_only(refused(data[:size]), "F201")


@pytest.mark.parametrize("data_type", [-1, 10_000])
def test_weights_of_an_unknown_type_are_refused(data_type: int) -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(5, 4, 3, 3))
    model.graph.initializer[0].data_type = data_type
    assert {finding.code for finding in refused(model)} <= {"F204", "F207"}


@pytest.mark.parametrize("width", [1048576, 512])  # too large to be counted, and to be held
def test_an_input_that_no_memory_holds_is_refused(width: int) -> None:
    """The one who finds out is the host, which is given zeros."""
    model = make(
        f"(float[N,2147483647,1048576,{width}] x) => (float[N] y)",
        "y = ReduceProd<axes=[1,2,3], keepdims=0>(x)",
        opset=13,
    )
    with pytest.raises(PimError, match=r"F210.*(?s:.)*onnxruntime cannot be given zeros"):
        import_model(model)


def test_random_samples_are_fewer_where_one_is_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pimc.frontend.calibrate.RANDOM_ELEMENTS", 2 * 4 * 8 * 8)
    found = import_model(make("(float[N,4,8,8] x) => (float[N,4,8,8] y)", "y = Sigmoid(x)"))
    assert "from 2 samples of random noise" in found.warnings[0].message


@pytest.mark.long
def test_an_image_of_a_million_rows_is_imported_in_seconds() -> None:
    model = make("(float[N,3,1048576,8] x) => (float[N,C,H,W] y)", "y = Conv(x, w)",
                 w=weights(4, 3, 3, 3))  # fmt: skip
    before = time.process_time()
    import_model(model)
    assert time.process_time() - before < 6


def test_weights_with_bytes_left_over_are_refused_by_name() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(5, 4, 3, 3))
    model.graph.initializer[0].raw_data += b"\0\0"
    assert "`w` cannot be read" in the_only(refused(model), "F204")


def test_an_output_of_an_unknown_type_is_refused() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(5, 4, 3, 3))
    model.graph.output[0].type.tensor_type.elem_type = -1
    assert {finding.code for finding in refused(model)} == {"F204"}


def test_every_cut_of_a_file_is_refused_or_harmless() -> None:
    data = (MODELS / "lenet5_fmnist_qdq.onnx").read_bytes()
    for size in range(1, 400, 7):
        assert refused(data[:size])[0].code in ("F201", "F203", "F204")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no file" in the_only(refused(tmp_path / "nothing.onnx"), "F201")
    assert "directory" in the_only(refused(tmp_path), "F201")


def test_an_empty_file_and_other_files(tmp_path: Path) -> None:
    assert "empty" in the_only(refused(b""), "F201")
    for data in (b"\x89PNG\r\n\x1a\n" + bytes(50), b"<html></html>", b"PK\x03\x04" + bytes(99)):
        message = the_only(refused(data), "F201")
        assert "not an ONNX file" in message or "no ONNX graph" in message


def test_another_protobuf() -> None:
    tensor = onnx.numpy_helper.from_array(weights(100))
    assert refused(tensor.SerializeToString())[0].code == "F201"


def test_missing_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    findings = refused(path)
    assert "`w`" in the_only(findings, "F202")
    assert findings[0].at is not None
    assert findings[0].at.file == str(path)


def test_truncated_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").write_bytes(bytes(7))
    the_only(refused(path), "F202")


@pytest.mark.parametrize("location", ["../m.data", "/etc/passwd", "a/../../m.data"])
def test_external_data_outside_of_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "m.data").write_bytes(weights(3, 4, 1, 1).tobytes())
    folder = tmp_path / "inner"
    folder.mkdir()
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    the_only(refused(folder / "m.onnx"), "F202")


def test_external_data_of_a_model_without_a_path() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.data")
    assert "`w`" in the_only(refused(model.SerializeToString()), "F202")


@pytest.mark.parametrize(("opset", "ir"), [(28, 13), (4, 3), (17, 99), (17, 2)])
def test_versions_out_of_range(opset: int, ir: int) -> None:
    model = make(IMAGE, "y = Relu(x)")
    model.opset_import[0].version = opset
    model.ir_version = ir
    message = the_only(refused(model), "F203")
    assert "outside" in message


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23])
def test_versions_in_range(opset: int) -> None:
    model = make(IMAGE, "c = Conv(x, w) r = Relu(c) y = MaxPool<kernel_shape=[2,2]>(r)",
                 opset=opset, w=weights(3, 4, 1, 1))  # fmt: skip
    assert len(import_model(model, random_feeds(model, 2, 0)).graph.nodes) == 2


def test_an_invalid_graph() -> None:
    model = make(IMAGE, "y = Relu(nothing)")
    assert "nothing" in the_only(refused(model), "F204")


def test_shapes_that_do_not_fit() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 5, 1, 1))
    assert "4 channels, its weights 5" in the_only(refused(model), "F211")
    model = make("(float[N,4] x) => (float[N,2] y)", "y = MatMul(x, w)", w=weights(3, 2))
    the_only(refused(model), "F204")


# ------------------------------------------------------------------ numbers and shapes
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    kernel = weights(3, 4, 1, 1)
    kernel[1, 2] = value
    message = the_only(refused(make(IMAGE, "y = Conv(x, w)", w=kernel)), "F206")
    assert "`w`" in message
    assert "Conv `Conv_0`" in message
    assert "1 of 12" in message


def test_infinity_as_a_limit_is_none() -> None:
    body = "c = Conv(x, w) k = Clip(c, zero, high) y = Max(k, low)"
    model = make(IMAGE, body, w=weights(3, 4, 1, 1), zero=np.float32(0), high=np.float32(np.inf),
                 low=np.float32(-np.inf))  # fmt: skip
    assert len(import_model(model).graph.nodes) in (1, 2)


@pytest.mark.parametrize("kind", ["string", "complex64"])
def test_what_is_no_number_is_refused_where_it_enters(kind: str) -> None:
    model = make(f"({kind}[N,4] x) => ({kind}[N,4] y)", "y = Identity(x)")
    findings = refused(model)
    assert [finding.code for finding in findings] == ["F214", "F214"]
    assert "input `x`" in findings[0].message
    assert "output `y`" in findings[1].message


def test_dynamic_height_asks_for_an_input_shape() -> None:
    model = make("(float[N,4,height,8] x) => (float[N,C,H,W] y)", "y = Relu(x)")
    (finding,) = refused(model)
    assert finding.code == "F205"
    assert "`height`" in finding.message
    assert finding.hint is not None
    assert "--input-shape x=1,4,?,8" in finding.hint


def test_an_input_shape_that_does_not_fit() -> None:
    model = make("(float[N,4,H,8] x) => (float[N,C,A,B] y)", "y = Relu(x)")
    for shapes in ({"z": (1, 4, 8, 8)}, {"x": (1, 5, 8, 8)}, {"x": (4, 8, 8)}):
        findings = refused(model, FrontendOptions(input_shapes=shapes))
        assert "F207" in [finding.code for finding in findings]


# ------------------------------------------------------------------ operators
def test_all_unsupported_nodes_in_one_message() -> None:
    body = """a = Conv(x, w) b = Det(a) c = Resize<mode="linear">(a, none, scales)
              d = Hardmax(a) e = ReduceSum(d) y = Add(c, e)"""
    model = make(IMAGE.replace("6,8", "6,6"), body, w=weights(3, 4, 1, 1),
                 none=np.zeros(0, np.float32), scales=np.ones(4, np.float32))  # fmt: skip
    findings = refused(model)
    messages = [finding.message for finding in findings]
    assert len(messages) == 4 - 1  # Det is unused
    for op, name in (
        ("Resize", "Resize_2"),
        ("Hardmax", "Hardmax_3"),
        ("ReduceSum", "ReduceSum_4"),
    ):
        assert any(m.startswith(f"{op} `{name}`: ") for m in messages), messages


REFUSED = {
    "transposed weights at run time": ("y = ConvTranspose(x, x)", "F211"),
    "GRU in another domain": ("y = my.domain.Thing(x)", "F212"),
    "weights at run time": ("y = Conv(x, x)", "F211"),
    "product that broadcasts": (
        "p = ReduceMax(x, one) t = Transpose<perm=[0,1,3,2]>(p) y = MatMul(x, t)", "F211"
    ),
    "constant over tensor": ("y = Div(full, x)", "F211"),
    "cubic resize": ("y = Resize<mode=\"cubic\">(x, none, scales)", "F211"),
    "mean over images": ("y = ReduceMean(x, first)", "F211"),
    "mean of a normalization": ("n, y = LayerNormalization(x, ones)", "F211"),
    "integer result": ("y = ArgMax(x)", "F210"),
    "one of all": ("y = Hardmax(x)", "F210"),
    "dynamic scale": ("s = ReduceMax<keepdims=0>(x) y = QuantizeLinear(x, s)", "F211"),
    "indices at run time": ("i = Cast<to=7>(x) y = Gather(k, i)", "F211"),
    "constant output": ("z = Relu(x) y = Identity(k)", "F211"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_each_unsupported_form_has_its_reason(case: str) -> None:
    body, code = REFUSED[case]
    constants = {
        "w": weights(4, 3, 2, 2), "none": np.zeros(0, np.float32), "k": weights(5, 3),
        "full": weights(4, 6, 8),
        "scales": np.array([1, 1, 2, 2], np.float32), "ones": np.ones(8, np.float32),
        "one": np.array([1]),
        "first": np.array([0]),
    }  # fmt: skip
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: value for name, value in constants.items() if name in words}
    model = make(IMAGE, body, opset=21, ir=10, **used)
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    if case == "integer result":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    findings = refused(model)
    assert code in [finding.code for finding in findings], [f.message for f in findings]
    for finding in findings:
        assert finding.at is not None


def test_control_flow_is_named() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "branch", [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = make("(float[N,4] x, bool c) => (float[N,4] y)", "y = Relu(x)")
    del model.graph.node[:]
    node = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    model.graph.node.append(node)
    codes = {finding.code: finding.message for finding in refused(model)}
    assert "If `choice`" in codes["F213"]
    assert "bool" in codes["F214"]


def test_models_of_other_domains_are_refused_by_operator() -> None:
    findings = refused(get_example("logreg_iris.onnx"))
    assert any("ai.onnx.ml.LinearClassifier" in finding.message for finding in findings)


def test_sums_beyond_32_bits() -> None:
    model = make("(float[N,70000] x) => (float[N,1] y)", "y = MatMul(x, w)", w=weights(70000, 1))
    assert "70000 products" in the_only(refused(model), "F211")


def test_calibration_data_that_does_not_fit() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    for data in (
        {"z": weights(2, 4, 6, 8)},
        {"x": weights(2, 4, 6, 9)},
        {"x": np.zeros((0, 4, 6, 8), np.float32)},
        {"x": np.float32(1)},
        {"x": np.full((2, 4, 6, 8), "a")},
    ):
        with pytest.raises(PimError) as caught:
            import_model(model, data)
        assert {finding.code for finding in caught.value.diagnostics} == {"F220"}


def test_an_overflow_during_calibration_names_the_tensor() -> None:
    model = make(IMAGE, "c = Conv(x, w) e = Exp(c) y = Conv(e, v)", w=weights(3, 4, 1, 1),
                 v=weights(2, 3, 1, 1))  # fmt: skip
    with pytest.raises(PimError) as caught:
        import_model(model, {"x": 1000 * weights(2, 4, 6, 8)})
    assert "`e`" in caught.value.diagnostics[0].message
    assert caught.value.diagnostics[0].code == "F222"


def test_without_calibration_data_there_is_a_warning() -> None:
    model = make(IMAGE, "y = Conv(x, w)", w=weights(3, 4, 1, 1))
    found = import_model(model)
    assert [warning.code for warning in found.warnings] == ["F221"]
    assert [warning.severity for warning in found.warnings] == ["warning"]
    again = import_model(model)
    assert found.reference.SerializeToString() == again.reference.SerializeToString()


# ------------------------------------------------------------------ the table itself
def test_supported_ops_lists_every_rule() -> None:
    table = supported_ops()
    assert set(RULES) <= set(table)
    assert list(table) == sorted(table)
    assert table["Conv"][0] == "crossbar"
    assert "com.microsoft.QLinearAdd" in table
    assert "Det" not in table


def test_every_code_of_the_frontend_is_used() -> None:
    sources = "".join(
        path.read_text() for path in (MODELS.parent / "pimc" / "frontend").rglob("*.py")
    )
    assert [code for code in FRONTEND if f'"{code}"' not in sources] == []


def test_outputs_of_unknown_shape_from_a_fixed_batch_are_refused() -> None:
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 20]>
    strings (string[2,2] x) => (string[2,2,3] parts, int64[2,2] counts) {
      parts, counts = StringSplit <maxsplit = 2> (x)
    }""")
    assert {finding.code for finding in refused(model)} == {"F214", "F210"}
