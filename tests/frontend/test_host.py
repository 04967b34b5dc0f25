"""Host partitions: what the chip cannot do runs through onnxruntime, inside of the program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from frontend.makers import make, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import pimc
from isa.diagnostics import PimError
from isa.printer import print_program
from isa.program import Program, walk
from pimc.cli import main
from pimc.frontend.net import Op, build_net
from pimc.frontend.partitions import partitioned

IMAGE = "(float[N,3,8,8] x) => (float[N,C,H,W] y)"


def compiled(model: onnx.ModelProto) -> pimc.CompiledProgram:
    """The program of a model; it must equal onnxruntime."""
    program = pimc.compile(model)
    found = program.verify()
    assert found["equal"], found
    return program


def hosts(program: Program) -> list[str]:
    return [i.mnemonic for core in program.cores for i in walk(core.body) if i.mnemonic == "host"]


def on_host(program: pimc.CompiledProgram) -> set[str]:
    return {entry["node"] for entry in program.report["placement"]["on_host"]}


CONV = {"w": weights(4, 3, 3, 3), "v": weights(2, 4, 3, 3)}


@pytest.mark.parametrize(
    ("body", "expected", "crossed"),
    [
        ("a = Conv(x, w) b = Hardmax<axis=2>(a) y = Conv(b, v)", {"Hardmax_1"}, 1),
        ("b = Hardmax<axis=2>(x) y = Conv(b, w)", {"Hardmax_0"}, 1),
        ("a = Conv(x, w) y = Hardmax<axis=2>(a)", {"Hardmax_1"}, 1),
        ("a = Conv(x, w) b = Hardmax<axis=2>(a) c = Hardmax<axis=2>(b) y = Conv(c, v)",
         {"Hardmax_1", "Hardmax_2"}, 1),
        ("a = Conv(x, w) b = Hardmax<axis=2>(a) c = Relu(b) d = Hardmax<axis=2>(c) y = Add(b, d)",
         {"Hardmax_1", "Hardmax_3"}, 2),
        ("y = Hardmax<axis=2>(x)", {"Hardmax_0"}, 1),
    ],
)  # fmt: skip
def test_an_operator_of_the_host_may_stand_anywhere(
    body: str, expected: set[str], crossed: int
) -> None:
    program = compiled(make(IMAGE, body, **CONV))
    assert on_host(program) == expected
    assert len(program.program.partitions) == len(hosts(program.program)) == crossed


def test_two_partitions_that_would_wait_for_each_other_stay_apart() -> None:
    body = (
        "a = Hardmax<axis=2>(x) b = Conv(a, w) c = Hardmax<axis=2>(b) d = Hardmax<axis=2>(a) "
        "y = Concat<axis=1>(c, d)"
    )
    program = compiled(make(IMAGE, body, **{**CONV, "w": weights(4, 3, 1, 1)}))
    assert len(program.program.partitions) == 2


def test_numbers_that_a_sort_makes_are_an_output_as_they_are() -> None:
    model = make(
        "(float[N,3,8,8] x) => (float[N,C,H,W] y, int64[N,C,H,W] at)",
        "a = Conv(x, w) y, at = TopK(a, k)",
        w=CONV["w"],
        k=np.array([2], np.int64),
    )
    program = compiled(model)
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    found = program.run({"x": x})
    assert found["at"].shape == (3, 4, 6, 2)
    assert found["y"].dtype == np.float32


def test_a_shape_that_depends_on_data_stays_inside_of_a_partition() -> None:
    model = make(
        "(float[N,3,8,8] x) => (float y)",
        "a = Conv(x, w) n = NonZero(a) f = Cast<to=1>(n) y = ReduceSum<keepdims=0>(f)",
        w=CONV["w"],
    )
    assert on_host(compiled(model)) == {"NonZero_1", "Cast_2", "ReduceSum_3"}


def test_a_shape_that_depends_on_data_is_no_output() -> None:
    model = make("(float[N,3,8,8] x) => (int64[4,K] y)", "a = Conv(x, w) y = NonZero(a)", **CONV)
    with pytest.raises(PimError, match=r"F205.*output `y`.*depends on data"):
        pimc.compile(model)


@pytest.mark.parametrize("taken", ["one", "two", "wide", "zoomed"])
def test_a_branch_runs_on_the_host_with_what_it_takes_from_around(taken: str) -> None:
    """Also a constant, or what an operator makes, that nobody but the branches reads."""
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["a", taken], [op])], op, [],
            [value(op, TensorProto.FLOAT, [1, 4, 6, 6])],
        )
        for op in ("Add", "Mul")
    ]  # fmt: skip
    body = """a = Conv(x, w) s = ReduceSum<keepdims=0>(a) c = Greater(s, one)
              wide = Tile(two, four) zoomed = Sigmoid(a)"""
    model = make(IMAGE, body, w=CONV["w"], v=CONV["v"], one=np.float32(1), two=np.float32([2]),
                 four=np.array([6]))  # fmt: skip
    model.graph.node.append(
        helper.make_node("If", ["c"], ["b"], "choice",
                         then_branch=branches[0], else_branch=branches[1])
    )  # fmt: skip
    model.graph.node.append(helper.make_node("Conv", ["b", "v"], ["y"], "last"))
    assert "choice" in on_host(compiled(model))


def test_an_operator_that_nobody_knows_is_named() -> None:
    model = make(IMAGE, "a = Conv(x, w) y = Relu(a)", w=CONV["w"])
    model.graph.node[1].domain = "my.company"
    model.opset_import.append(helper.make_opsetid("my.company", 1))
    with pytest.raises(PimError, match=r"F212.*my.company.Relu `Relu_1`") as caught:
        pimc.compile(model)
    assert len(caught.value.diagnostics) == 1


def test_without_the_host_every_reason_is_an_error() -> None:
    body = "a = Conv(x, w) b = Hardmax<axis=2>(a) c = Hardmax<axis=2>(b) y = Conv(c, v)"
    with pytest.raises(PimError) as caught:
        pimc.compile(make(IMAGE, body, **CONV), host=False)
    assert [finding.code for finding in caught.value.diagnostics] == ["F210", "F210"]


def test_the_summary_is_loud_and_the_folder_holds_the_partition(tmp_path: Path) -> None:
    model = make(IMAGE, "a = Conv(x, w) b = Hardmax<axis=2>(a) y = Conv(b, v)", **CONV)
    onnx.save(model, tmp_path / "m.onnx")
    folder = tmp_path / "m.pim"
    result = CliRunner().invoke(main, ["compile", str(tmp_path / "m.onnx"), "-o", str(folder)])
    assert result.exit_code == 0, result.stderr
    assert "ON THE HOST: 1 operators in 1 partitions" in result.stdout
    assert "Hardmax `Hardmax_1`: this operator is not supported" in result.stdout
    report = json.loads((folder / "report.json").read_text())["placement"]
    assert report["mac_share"]["crossbars"] == 1.0
    assert (folder / "host" / "host0.onnx").is_file()
    assert CliRunner().invoke(main, ["verify", str(folder)]).exit_code == 0
    assert CliRunner().invoke(main, ["simulate", str(folder)]).exit_code == 0
    refused = CliRunner().invoke(main, ["compile", str(tmp_path / "m.onnx"), "--no-host"])
    assert refused.exit_code == 3


@pytest.mark.parametrize("harm", ["changed", "missing", "link", "path"])
def test_a_partition_file_that_is_not_the_right_one_is_refused(harm: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "m.pim", tmp_path / "m.pim" / "host" / "host0.onnx"
    pimc.compile(make(IMAGE, "y = Hardmax<axis=2>(x)")).save(folder)
    if harm == "changed":
        file.write_bytes(file.read_bytes() + b"\0")
    elif harm == "path":
        text = (folder / "program.pim").read_text()
        (folder / "program.pim").write_text(text.replace(" host0", ' "../host0"'))
    else:
        moved = file.rename(tmp_path / "elsewhere.onnx")
        if harm == "link":
            file.symlink_to(moved)
    with pytest.raises(PimError, match="C512"):
        pimc.load(folder)


def test_a_program_with_partitions_reads_back_from_its_text() -> None:
    program = compiled(make(IMAGE, "a = Conv(x, w) y = Hardmax<axis=2>(a)", **CONV))
    text = print_program(program.program)
    part = program.program.partitions[0]
    assert f".partition host0 {part.inputs[0]}" in text.replace('"', "")
    assert part.sha256 in text


# ------------------------------------------------------------------ any graph
@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, ...]], set[int]]:
    """Operators with their inputs (numbers of earlier ones, -1 the graph's), and those hosted."""
    size = draw(st.integers(1, 14))
    ways = [
        tuple(draw(st.lists(st.integers(-1, at - 1), min_size=1, max_size=3))) for at in range(size)
    ]
    return size, ways, draw(st.sets(st.integers(0, size - 1)))


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_partitions_are_connected_convex_and_in_order(
    graph: tuple[int, list[tuple[int, ...]], set[int]],
) -> None:
    size, ways, chosen = graph
    names = [f"t{at}" for at in range(size)]
    ops = [
        Op(f"op{at}", "Any", tuple("x" if w < 0 else names[w] for w in ways[at]), (names[at],))
        for at in range(size)
    ]
    net = build_net(make("(float[1] x) => (float[1] y)", "y = Relu(x)"), ["y"], frozenset())
    net.ops = ops
    net.outputs = [type(net.outputs[0])(name, name) for name in names]
    found = partitioned(net, ops, {id(ops[at]) for at in chosen})
    seen = {"x"}
    for op in found:  # an order in which everything is made before it is read: no cycle
        assert set(op.inputs) <= seen
        seen.update(op.outputs)
    bodies = [op.attributes["body"] for op in found if op.op_type == "Host"]
    assert sorted(op.name for body in bodies for op in body) == sorted(f"op{at}" for at in chosen)
    for body in bodies:
        joined = {body[0].name}
        for _ in body:
            for one in body:
                for other in body:
                    linked = set(one.outputs) & set(other.inputs)
                    if linked and joined & {one.name, other.name}:
                        joined |= {one.name, other.name}
        assert joined == {op.name for op in body}


@given(st.data())
@settings(max_examples=6, deadline=None)
def test_a_random_network_with_operators_of_the_host_equals_onnxruntime(
    data: st.DataObject,
) -> None:
    shape, known, lines = [3], ["x"], []
    constants: dict[str, np.ndarray] = {}
    del shape
    for at in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["Conv", "Hardmax", "Add", "Relu", "Shrink"]))
        first, second = (data.draw(st.sampled_from(known)) for _ in range(2))
        if kind == "Conv":
            constants[f"w{at}"] = weights(3, 3, 3, 3, seed=at)
            lines.append(f"t{at} = Conv<pads=[1,1,1,1]>({first}, w{at})")
        elif kind == "Hardmax":
            lines.append(f"t{at} = Hardmax<axis=2>({first})")
        elif kind == "Add":
            lines.append(f"t{at} = Add({first}, {second})")
        else:
            lines.append(f"t{at} = {kind}({first})")
        known.append(f"t{at}")
    lines.append(f"y = Add({known[-1]}, {data.draw(st.sampled_from(known[1:]))})")
    compiled(make(IMAGE, " ".join(lines), **constants))
