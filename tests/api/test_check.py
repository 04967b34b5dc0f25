"""The check compares with whatever onnxruntime runs, notices every difference, and names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import pimc
from isa.assembly import data_arrays, parse_program
from isa.diagnostics import PimError
from pimc.check import Distance, verify_program
from pimc.oracle import Oracle

TWO_HEADS = """
<ir_version: 8, opset_import: ["": 17]>
net (float[{batch}, 1, 6, 6] x) => (float[{batch}, 2, 4, 4] maps, float[{batch}, 32] flat)
<float[2, 1, 3, 3] w> {{
    conv = Conv (x, w)
    maps = Relu (conv)
    flat = Flatten (conv)
}}"""


def network(batch: int | str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(TWO_HEADS.format(batch=batch))
    weights = np.random.default_rng(1).normal(0, 1, (2, 1, 3, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return model


def samples(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (count, 1, 6, 6)).astype(np.float32)}


Compile = Callable[[int | str], pimc.Program]


@pytest.fixture(scope="module")
def compiled() -> Compile:
    done: dict[int | str, pimc.Program] = {}

    def make(batch: int | str) -> pimc.Program:
        if batch not in done:
            done[batch] = pimc.compile(network(batch), "tiny", samples(32))
        return done[batch]

    return make


@pytest.mark.parametrize("batch", ["N", 1, 4])
@pytest.mark.parametrize("count", [1, 6, 8])
def test_any_number_of_samples_is_compared_whatever_batch_the_model_is_fixed_to(
    compiled: Compile, batch: int | str, count: int
) -> None:
    found = compiled(batch).verify(samples(count, seed=5))
    assert found["equal"] is True
    assert found["samples"] == count
    assert {layer["name"] for layer in found["layers"]} >= {"flat", "maps"}
    free = compiled("N").verify(samples(count, seed=5))
    assert found["float_outputs"] == free["float_outputs"]


def test_samples_beyond_one_batch_are_compared_and_counted(
    compiled: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pimc.check.MAX_BATCH", 3)
    program = compiled("N")
    heard: list[tuple[int, int]] = []
    assert program.reference is not None
    found = verify_program(
        program.program, program.target, program.reference, None, samples(7), True,
        lambda done, total: heard.append((done, total)),
    )  # fmt: skip
    assert heard == [(3, 7), (6, 7), (7, 7)]
    assert found.counters is not None
    assert found.counters.images == 7
    windows = found.counters.total().windows
    assert windows == 7 * 16
    assert found.is_equal


def test_a_batch_of_random_samples_is_checked_when_there_is_no_data(compiled: Compile) -> None:
    found = compiled("N").verify()
    assert found["equal"] is True
    assert found["samples"] == 16


def edited(program: pimc.Program, old: str, new: str) -> pimc.Program:
    """The program of a changed text."""
    text, count = re.subn(old, new, program.text(), count=1)
    assert count == 1
    changed = parse_program(text, data_arrays(program.program))
    return pimc.Program(changed, program.target, program.reference, program.float_model)


def test_a_difference_of_one_step_is_a_difference_and_is_named(compiled: Compile) -> None:
    good = compiled("N")
    zero = int(re.findall(r"requant .*zero=(-?[0-9]+)", good.text())[0])
    bad = edited(good, rf"(requant .*zero=){zero}", rf"\g<1>{zero + 1}")
    found = bad.verify(samples(4))
    assert found["equal"] is False
    steps = {layer["name"]: layer["max_abs_diff_lsb"] for layer in found["layers"]}
    assert steps["conv_quantized"] == 1
    assert found["max_abs_diff_lsb"] == max(steps.values())
    assert bad.verify(samples(4), per_layer=False)["equal"] is False
    assert good.verify(samples(4))["equal"] is True


def test_labels_give_the_accuracy_of_all_three_models(compiled: Compile) -> None:
    program = compiled("N")
    data = samples(20, seed=9)
    top = program.run(data)["maps"].reshape(20, -1).argmax(1)
    labels = top.copy()
    labels[:5] += 1
    found = program.verify(data | {"labels": labels})
    assert found["accuracy"] == found["reference_accuracy"] == 0.75
    assert 0 <= found["float_accuracy"] <= 1
    assert "accuracy" not in program.verify(data)


def test_the_distance_to_the_float_model_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 1, (2, 10, 4))
    distance = Distance()
    distance.add(ours[:3], theirs[:3])
    distance.add(ours[3:], theirs[3:])
    wanted = 10 * np.log10((theirs**2).sum() / ((ours - theirs) ** 2).sum())
    assert distance.sqnr_db == pytest.approx(wanted)
    assert distance.top1_agreement == (ours.argmax(1) == theirs.argmax(1)).mean()


def test_one_number_has_no_top_1() -> None:
    distance = Distance()
    distance.add(np.ones((3, 1)), np.zeros((3, 1)))
    assert distance.top1_agreement is None
    assert distance.sqnr_db is None


def test_a_model_that_onnxruntime_cannot_load_is_refused_with_its_reason() -> None:
    model = network("N")
    model.graph.node[0].op_type = "Konv"
    with pytest.raises(PimError, match="F240"):
        Oracle(model, {"x": True})


def test_a_program_without_reference_says_what_it_can_do(compiled: Compile) -> None:
    good = compiled("N")
    with pytest.raises(PimError, match="can be run, not verified"):
        pimc.Program(good.program, good.target).verify(samples(1))


def test_pimc_verify_takes_programs_folders_and_files(compiled: Compile, tmp_path: Path) -> None:
    program = compiled("N")
    program.save(tmp_path / "p.pim")
    np.savez(tmp_path / "x.npz", **samples(3))  # type: ignore[arg-type]
    found = pimc.verify(tmp_path / "p.pim", tmp_path / "x.npz")
    assert found == pimc.verify(program, samples(3))
    again = pimc.load(tmp_path / "p.pim")
    assert again.report == program.report
    again.save(tmp_path / "again.pim")
    before = {file.name: file.read_bytes() for file in (tmp_path / "p.pim").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "again.pim").iterdir()} == before


def test_an_input_that_is_called_labels_is_an_input() -> None:
    """Language models call the tokens that they are trained to answer so."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N,3,4] labels, float[N,3,4] x) => (float[N,3,2] y)
          <float[4,2] w = {1,0, 0,1, 2,0, 0,2}>
        { s = Add(labels, x) y = MatMul(s, w) }""")
    feeds = {name: np.random.default_rng(1).normal(0, 1, (6, 3, 4)) for name in ("labels", "x")}
    program = pimc.compile(model, calibration=feeds)
    found = program.verify(feeds)
    assert found["equal"]
    assert found["float_sqnr_db"] > 25
    assert "accuracy" not in found
    both = feeds["labels"] + feeds["x"]
    expected = both[..., :2] + 2 * both[..., 2:]
    np.testing.assert_allclose(program.run(feeds)["y"], expected, atol=0.3)
