"""LSTM, GRU and RNN: the same integers as onnxruntime, gates on crossbars, one loop per cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from frontend.makers import make, weights
from frontend.oracle import differences
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from support.recurrent import RESULTS, Layer

import pimc
from isa.catalog import Mvm
from isa.diagnostics import PimError
from isa.program import Loop, Program, walk
from isa.target import load_target
from passes.graph import CellNode
from passes.stages import fuse, may_replicate
from pimc.frontend.build import FrontendOptions, import_model


@st.composite
def layers(draw: Any) -> Layer:
    kind = draw(st.sampled_from(sorted(RESULTS)))
    attributes = {}
    if kind == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    return Layer(
        kind,
        steps=draw(st.integers(1, 7)),
        batch=draw(st.integers(1, 3)),
        inputs=draw(st.integers(1, 6)),
        units=draw(st.integers(1, 6)),
        direction=draw(st.sampled_from(["forward", "reverse", "bidirectional"])),
        bias=draw(st.booleans()),
        state=draw(st.sampled_from(["", "constant", "input"])),
        outputs=draw(st.lists(st.sampled_from(RESULTS[kind]), unique=True)),
        seed=draw(st.integers(0, 1000)),
        attributes=attributes,
    )


def signal_to_noise(found: dict[str, Any]) -> float:
    """The worst of all outputs, dB; outputs that are exact count as very good ones."""
    return min(output["sqnr_db"] or 99.0 for output in found["float_outputs"])


@settings(max_examples=12)
@given(layers())
def test_any_layer_is_the_integers_of_onnxruntime_and_near_the_float_layer(layer: Layer) -> None:
    samples = layer.samples()
    program = pimc.compile(layer.model(), calibration=samples, host=False)
    found = program.verify(samples)
    assert found["equal"], found
    assert len(found["layers"]) >= 3 * layer.directions + len(layer.outputs or RESULTS[layer.kind])
    assert signal_to_noise(found) > 20, (layer, found["float_outputs"])


@pytest.mark.parametrize(
    "layer",
    [
        Layer("LSTM", batch=2, state="constant"),
        Layer("GRU", direction="bidirectional"),
        Layer("GRU", attributes={"linear_before_reset": 1}, state="constant"),
        Layer("RNN", direction="reverse"),
    ],
    ids=lambda layer: layer.kind,
)
def test_every_node_of_the_graph_computes_what_onnxruntime_computes(layer: Layer) -> None:
    samples = layer.samples()
    imported = import_model(layer.model(), samples)
    found = differences(imported, {"x": samples["x"][0]})
    assert {difference.largest for difference in found.values()} == {0}
    assert sum(isinstance(node, CellNode) for node in imported.graph.nodes) == layer.directions


@pytest.mark.parametrize("kind", sorted(RESULTS))
def test_onnxruntime_computes_the_reference_alike_at_every_level(kind: str) -> None:
    layer = Layer(kind, direction="bidirectional", state="constant")
    samples = layer.samples(1)
    reference = import_model(layer.model(), samples).reference
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(reference.SerializeToString(), options)
        results.append(session.run(None, {"x": samples["x"][0]}))
    for others in results[1:]:
        for ours, theirs in zip(results[0], others, strict=True):
            assert np.array_equal(ours, theirs)


def test_the_reference_is_read_back_as_the_graph_that_it_was_made_for() -> None:
    layer = Layer("GRU", direction="bidirectional")
    first = import_model(layer.model(), layer.samples())
    again = import_model(first.reference, options=FrontendOptions(is_reference=True))
    assert [node.name for node in again.graph.nodes] == [node.name for node in first.graph.nodes]
    assert again.graph.values == first.graph.values
    with pytest.raises(PimError, match="not a reference model"):
        import_model(layer.model(), options=FrontendOptions(is_reference=True))


def compiled(layer: Layer, **options: Any) -> pimc.api.CompiledProgram:
    samples = layer.samples()
    program = pimc.compile(layer.model(), calibration=samples, host=False, **options)
    assert program.verify(samples)["equal"]
    return program


def test_a_longer_sequence_takes_the_same_crossbars_and_the_same_text() -> None:
    short, long = (compiled(Layer("LSTM", steps=steps)) for steps in (5, 50))
    assert len(short.text().splitlines()) == len(long.text().splitlines())
    assert short.report["crossbars"] == long.report["crossbars"]
    assert sum(isinstance(i, Mvm) for core in long.program.cores for i in walk(core.body)) == 2


def test_a_cell_is_one_loop_over_the_sequence() -> None:
    program = compiled(Layer("GRU", steps=9)).program
    cell = next(core for core in program.cores if core.layer == "gru/direction0")
    loops = [statement for statement in cell.body if isinstance(statement, Loop)]
    assert [len(range(loop.start, loop.stop, loop.step)) for loop in loops] == [9]


def test_a_state_too_large_for_a_core_is_divided_over_several() -> None:
    target = load_target("ou9x8").with_overrides({"hierarchy.crossbars_per_pe": "1"})
    program = compiled(Layer("LSTM", units=96, steps=3), target=target, tiles="auto").program
    parts = [core for core in program.cores if core.layer == "lstm/direction0/h"]
    assert len(parts) > 1


@pytest.mark.parametrize("state", ["constant", "input"])
def test_a_cell_too_large_for_the_memory_of_a_core_is_divided_by_units(state: str) -> None:
    layer = Layer("LSTM", units=40, batch=2, steps=3, state=state)
    target = load_target("ou9x8").with_overrides({"memory.core_bytes": "3072"})
    program = compiled(layer, target=target, tiles="auto").program
    cells = [core for core in program.cores if core.layer == "lstm/direction0"]
    assert len(cells) > 1


def cores_with_matrices(program: Program) -> int:
    return sum(bool(core.matrices) for core in program.cores)


def test_phases_do_not_cut_through_a_layer() -> None:
    layer = Layer("LSTM", direction="bidirectional", outputs=("Y",))
    whole = compiled(layer)
    parts = compiled(layer, tiles=3, phases="auto")
    assert len(parts.whole.programs) > 1
    together = sum(cores_with_matrices(program) for program in parts.whole.programs)
    assert together == cores_with_matrices(whole.program)


def test_what_waits_for_its_own_results_has_no_copies() -> None:
    graph = import_model(Layer("LSTM").model(), Layer("LSTM").samples()).graph
    able = {head.name for head, _ in fuse(graph) if may_replicate(graph, head)}
    assert "lstm/direction0/x" in able
    assert not able & {"lstm/direction0/h", "lstm/direction0"}


def test_a_layer_between_others_reads_and_makes_ordinary_values() -> None:
    model = make(
        "(float[N,3,8] x) => (float[N,2,8] y)",
        """a = Conv(x, w) t = Transpose<perm=[2, 0, 1]>(a) h = GRU<hidden_size=4>(t, gw, gr)
           s = Squeeze(h, one) u = Transpose<perm=[1, 2, 0]>(s) y = Conv(u, v)""",
        w=weights(5, 3, 1),
        v=weights(2, 4, 1),
        gw=weights(1, 12, 5),
        gr=weights(1, 12, 4),
        one=np.array([1], np.int64),
    )
    program = pimc.compile(model, host=False)
    assert program.verify()["equal"]


def test_a_layer_between_operators_of_the_host_that_cannot_be_parted_goes_with_them() -> None:
    model = make(
        "(float[4,1,3] x) => (float y)",
        """s = CumSum(x, zero) h = RNN<hidden_size=3>(s, w, r) n = NonZero(s)
           flat = Reshape(h, row) at = Reshape(n, row) g = Gather(flat, at)
           y = ReduceSum<keepdims=0>(g)""",
        zero=np.array(0, np.int64),
        row=np.array([-1], np.int64),
        w=weights(1, 3, 3),
        r=weights(1, 3, 3),
    )
    program = pimc.compile(model)
    stays = {stay["op_type"] for stay in program.report["placement"]["on_host"]}
    assert {"CumSum", "RNN", "NonZero", "Gather"} <= stays
    assert program.verify()["equal"]


LENGTHS = {"sequence_lens": np.array([4], np.int32)}


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs", "reason"),
    [
        ("LSTM", {"clip": 1.5}, {}, "clip=1.5 limits its sums"),
        ("LSTM", {"input_forget": 1}, {}, "input_forget=1 couples two of its gates"),
        ("RNN", {"activations": ["Relu"]}, {}, "its activations are Relu"),
        ("GRU", {}, LENGTHS, "sequence_lens cuts its sequences of 6 elements"),
        ("LSTM", {}, {"P": np.ones((1, 15), np.float32)}, "it has peepholes"),
    ],
)  # fmt: skip
def test_what_a_cell_cannot_do_stays_on_the_host_and_says_why(
    kind: str, attributes: dict[str, Any], inputs: dict[str, Any], reason: str
) -> None:
    layer = Layer(kind, attributes=attributes, outputs=("Y",), state="constant")
    model = layer.model()
    given = model.graph.node[0].input
    given.extend([""] * (8 - len(given)))
    for at, name in ((4, "sequence_lens"), (7, "P")):
        if name in inputs:
            given[at] = name
            model.graph.initializer.append(numpy_helper.from_array(inputs[name], name))
    while not given[-1]:
        given.pop()
    program = pimc.compile(model, calibration=layer.samples())
    (stay,) = program.report["placement"]["on_host"]
    assert reason in stay["reason"]
    assert stay["macs"] == 6 * (4 + 5) * 5 * {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    assert program.verify(layer.samples())["equal"]


@pytest.mark.parametrize("attributes", [{}, {"clip": 1.0}], ids=["chip", "host"])
def test_a_sequence_of_open_length_is_no_batch(attributes: dict[str, Any]) -> None:
    layer = Layer("LSTM", outputs=("Y",), attributes=attributes)
    model = layer.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    with pytest.raises(PimError, match=r"F205.*sequence(.|\n)*--input-shape x="):
        pimc.compile(model)
    program = pimc.compile(model, input_shapes={"x": (6, 1, 4)})
    assert program.outputs == {"Y": (6, 1, 1, 5)}
    assert program.verify(layer.samples())["equal"]


def test_sequences_of_several_lengths_share_the_crossbars() -> None:
    model = Layer("GRU", outputs=("Y",)).model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    held = pimc.compile_shapes(model, [{"x": (4, 1, 4)}, {"x": (9, 1, 4)}])
    assert held.report["shared"]["same_cells"]
    assert all(program.verify()["equal"] for program in held.programs)


def test_lengths_and_peepholes_that_change_nothing_are_no_reason() -> None:
    layer = Layer("LSTM", state="constant", outputs=("Y",))
    model = layer.model()
    node = model.graph.node[0]
    node.input[4] = "full"
    node.input.append("P")
    full, none = np.array([6], np.int32), np.zeros((1, 15), np.float32)
    for name, array in (("full", full), ("P", none)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    assert pimc.compile(model, host=False).verify()["equal"]


def test_a_layer_whose_weights_are_inputs_stays_on_the_host() -> None:
    model = Layer("RNN", outputs=("Y",)).model()
    tensor = model.graph.initializer.pop(0)
    port = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    model.graph.input.append(port)
    (stay,) = pimc.compile(model).report["placement"]["on_host"]
    assert f"its weights are input `{tensor.name}`; bound by `--bind`" in stay["reason"]


def test_a_state_can_be_handed_from_one_run_to_the_next() -> None:
    layer = Layer("LSTM", state="input", steps=4)
    program, samples = compiled(layer), layer.samples()
    first = program.run(samples)
    shape = samples["initial_h"].shape
    states = {"initial_h": first["Y_h"].reshape(shape), "initial_c": first["Y_c"].reshape(shape)}
    again = program.run(samples | states)
    assert not np.array_equal(first["Y"], again["Y"])


def test_with_the_batch_before_the_sequence_the_integers_are_the_same() -> None:
    first = Layer("LSTM", batch=2, direction="bidirectional", outputs=("Y", "Y_h"))
    turned = first.model()
    turned.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    (port,), samples = turned.graph.input, first.samples()
    port.CopyFrom(helper.make_tensor_value_info("x", 1, [first.batch, first.steps, first.inputs]))
    for output, sizes in zip(turned.graph.output, ([2, 6, 2, 5], [2, 2, 5]), strict=True):
        output.CopyFrom(helper.make_tensor_value_info(output.name, 1, sizes))
    data = {"x": samples["x"].swapaxes(1, 2)}
    program = pimc.compile(turned, calibration=data, host=False)
    assert program.verify(data)["equal"]
    expected, found = compiled(first).run(samples), program.run(data)
    assert np.array_equal(found["Y"], expected["Y"].transpose(0, 3, 1, 2, 4))
    assert np.array_equal(found["Y_h"], expected["Y_h"].swapaxes(1, 2))
