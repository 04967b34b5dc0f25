"""Programs with host partitions, crossed with the options and commands that change how they run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from frontend.makers import make, weights

from pimc.cli import main

BODY = """
    a = Conv<pads=[1,1,1,1]>(x, w1)
    b, b_places = TopK(a, all)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    r = Relu(c)
    d, d_places = TopK(r, all)
    e = Conv(d, w3)
    g = GlobalAveragePool(e)
    f = Flatten(g)
    y = Gemm(f, w4)"""
SHAPES = ("--input-shape", "x=1,3,8,8", "--input-shape", "x=1,3,6,8")


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two partitions, and samples of two heights."""
    path = tmp_path_factory.mktemp("host")
    constants = {"w1": weights(8, 3, 3, 3), "w2": weights(8, 8, 3, 3), "w3": weights(8, 8, 3, 3)}
    signature = "(float[N,3,H,8] x) => (float[N,5] y)"
    onnx.save(make(signature, BODY, **constants, w4=weights(8, 5), all=np.array([8])),
              path / "net.onnx")  # fmt: skip
    for height in (8, 6):
        np.savez(path / f"{height}.npz", x=weights(3, 3, height, 8, scale=1))
    return path


def compiled(place: Path, folder: Path, *options: object) -> Path:
    """A program of the first shape, verified as it was compiled."""
    data = ("--calib", place / "8.npz", "--verify", place / "8.npz", "-o", folder / "n.pim")
    result = run("compile", place / "net.onnx", *SHAPES[:2], *data, "--json", *options)
    report = json.loads(result.stdout)
    assert report["verify"]["max_abs_diff_lsb"] == 0
    assert [stay["op_type"] for stay in report["placement"]["on_host"]] == ["TopK", "TopK"]
    assert len({stay["partition"] for stay in report["placement"]["on_host"]}) == 2
    return folder / "n.pim"


def logits(place: Path, program: Path, *options: object) -> np.ndarray:  # type: ignore[type-arg]
    written = program.parent / "y.npz"
    run("run", program, "--input", place / "8.npz", "--output", written, *options)
    return np.asarray(np.load(written)["y"])


@pytest.fixture(scope="module")
def plain(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(place, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "options",
    [
        ("--replicate", "min-max"),
        ("--replicate", "uniform", "--mapping", "best"),
        ("--mode", "throughput"),
        ("--mode", "latency"),
        ("--tiles", 3, "--phases", "auto", "--batch", 2),
        ("--tiles", 3, "--phases", "auto", "--replicate", "min-max"),
        ("--target", "tiny", "--tiles", "auto"),
        ("--set", "inputs.skip=group-bit"),
    ],
)
def test_partitions_give_the_same_however_the_chip_is_used(
    place: Path, plain: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    program = compiled(place, tmp_path, *options)
    assert (program / "phases.json").is_file() == ("--phases" in options)
    wanted = logits(place, plain)
    assert np.array_equal(logits(place, program), wanted)
    assert np.array_equal(logits(place, program, "--jobs", 2), wanted)
    figures = json.loads(run("simulate", program, "--images", 2, "--json").stdout)
    assert figures["interval_ns"] > 0


def test_partitions_serve_every_input_shape(place: Path, tmp_path: Path) -> None:
    samples = [("--calib", place / f"{n}.npz", "--verify", place / f"{n}.npz") for n in (8, 6)]
    given = (*SHAPES, *samples[0], *samples[1], "--json", "-o", tmp_path / "n.pim")
    report = json.loads(run("compile", place / "net.onnx", *given).stdout)
    for each in report["shapes"]:
        assert each["verify"]["max_abs_diff_lsb"] == 0
        assert len(each["placement"]["partitions"]) == 2
    run("verify", tmp_path / "n.pim", "--data", place / "6.npz", "--jobs", 2)


@pytest.mark.parametrize(
    "command",
    [
        ("report", "n.pim", "-o", "page.html"),
        ("simulate", "n.pim", "--input", "8.npz", "--samples", 1, "--no-overlap"),
        ("sweep-adc", "n.pim", "--data", "8.npz", "--samples", 1),
        ("verify", "n.pim", "--data", "8.npz", "--noise", "--device", "programming.sigma=0.02",
         "--trials", 2, "--jobs", 2),
        ("inspect", "n.pim", "--section", "code"),
    ],
)  # fmt: skip
def test_every_command_takes_a_program_with_partitions(
    place: Path, plain: Path, tmp_path: Path, command: tuple[object, ...]
) -> None:
    at = {"n.pim": plain, "8.npz": place / "8.npz", "page.html": tmp_path / "page.html"}
    run(*(at.get(str(word), word) for word in command))


def test_schemes_are_compared_around_partitions(place: Path) -> None:
    options = ("--calib", place / "8.npz", "--schemes", "dense,best", "--json")
    document = json.loads(run("compare", place / "net.onnx", *SHAPES[:2], *options).stdout)
    assert all(row["reconstructs"] and row["equal"] for row in document["rows"])
