"""Writing that the system refuses: one clear error, nothing left behind, the old file intact.

A full disk is a limit on the size of files: beyond it the system refuses a write in the middle.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import pimc
from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist_qdq.onnx"
FLOAT = MODELS / "resnet8_fmnist.onnx"
CALIB = MODELS / "fmnist_calib.npz"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk") / "lenet.pim"
    pimc.compile(LENET).save(folder)
    return folder


# name -> (arguments, is the output a folder)
WRITERS: dict[str, tuple[tuple[object, ...], bool]] = {
    "compile": (("compile", LENET, "-o", "OUT"), True),
    "asm": (("asm", "PROGRAM/program.pim", "-o", "OUT"), True),
    "run": (("run", "PROGRAM", "--fill", "random", "--samples", 99, "--output", "OUT"), False),
    "report": (("report", "PROGRAM", "--against", "none", "-o", "OUT"), False),
    "simulate": (("simulate", "PROGRAM", "--images", 1, "--trace", "OUT"), False),
    "compress": (("compress", FLOAT, "identical:t=0.6", "--no-compensation", "--calib", CALIB, "-o",
                  "OUT"), False),
}  # fmt: skip
QUICK = ("asm", "run", "simulate", "report")
writers = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in WRITERS]
)


def run(name: str, program: Path, output: Path) -> Result:
    known = {"PROGRAM": str(program), "OUT": str(output)}
    words = [str(word) for word in WRITERS[name][0]]
    for old, new in known.items():
        words = [word.replace(old, new) for word in words]
    return CliRunner().invoke(main, words)


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(result: Result, code: str, output: Path) -> str:
    """One error with the path and what to try."""
    assert result.exit_code == 3, result.stderr
    assert result.stderr.count("error[") == 1, result.stderr
    assert f"error[{code}]" in result.stderr
    assert output.name in result.stderr
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@writers
def test_a_full_disk_keeps_the_old_output(name: str, program: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(name, program, output).exit_code == 0
    before = contents(tmp_path)
    for most_bytes in (0, 1000):
        with full_disk(most_bytes):
            result = run(name, program, output)
        assert "no file of this size" in refused(result, "C509", output)
        assert contents(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


@writers
def test_a_place_that_is_no_place_is_refused_before_the_work(
    name: str, program: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    places = [("no/such/out", "C509"), ("file/out", "C509"), ("folder", "C508"), ("pipe", "C508"),
              ("loop", "C508"), ("x" * 300, "C5")]  # fmt: skip
    if WRITERS[name][1]:
        places.append(("file", "C508"))
    for place, code in places:
        result = run(name, program, tmp_path / place)
        assert result.exit_code == 3, (place, result.stdout, result.stderr)
        assert f"error[{code}" in result.stderr, (place, result.stderr)
        assert "Traceback" not in result.stderr
    result = run(name, program, Path("/dev/full"))
    assert "error[C508]" in result.stderr
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_a_link_stays_a_link_to_what_is_replaced(program: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there" / "real")
    for _ in range(2):
        assert run("run", program, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").is_symlink()
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["real"]


@pytest.mark.parametrize("source", ["same", "link"])
def test_an_input_is_no_output(source: str, program: Path, tmp_path: Path) -> None:
    samples, output = tmp_path / "x.npz", tmp_path / "x.npz"
    samples.write_bytes(CALIB.read_bytes())
    if source == "link":
        output = tmp_path / "link.npz"
        output.symlink_to(samples)
    words = ["run", str(program), "--input", str(samples), "--output", str(output)]
    result = CliRunner().invoke(main, words)
    assert "also an input" in refused(result, "C508", output)
    assert samples.read_bytes() == CALIB.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user than the one who may do all")
def test_a_folder_without_permission_is_refused(program: Path, tmp_path: Path) -> None:
    """As a user who may not write there: root may write anywhere."""
    output = tmp_path / "locked" / "out.npz"
    output.parent.mkdir(mode=0o755)
    assert run("run", program, tmp_path / "first.npz").exit_code == 0  # all modules are loaded
    for folder in (tmp_path, *tmp_path.parents, program.parent, *program.parents):
        if folder != Path("/tmp") and Path("/tmp") in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        result = run("run", program, output)
    finally:
        os.seteuid(0)
    assert "a place that you may write to" in refused(result, "C509", output)
    assert list(output.parent.iterdir()) == []
