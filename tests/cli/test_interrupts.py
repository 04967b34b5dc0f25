"""Ctrl-C at any moment: one line, exit code 130, nothing left behind and nothing old lost.

Real processes get a real signal, the whole group as from a terminal; what is slow enough to be
hit at a chosen place is also interrupted there, within this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from click.testing import CliRunner

import pimc
from isa.drafts import drafted_file, drafted_folder
from pimc.cli import main

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
LENET = MODELS / "lenet5_fmnist_qdq.onnx"
DATA = MODELS / "fmnist_test500.npz"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupts") / "lenet.pim"
    pimc.compile(LENET).save(folder)
    return folder


WRITERS: dict[str, tuple[object, ...]] = {
    "compile": ("compile", LENET, "-o", "out"),
    "compile --verify": ("compile", LENET, "--verify", DATA, "-o", "out"),
    "run": ("run", "PROGRAM", "--input", DATA, "--samples", 64, "--output", "out"),
    "run --jobs": ("run", "PROGRAM", "--input", DATA, "--jobs", 2, "--output", "out"),
    "report": ("report", "PROGRAM", "-o", "out", "--against", "none"),
    "simulate --trace": ("simulate", "PROGRAM", "--trace", "out"),
    "compress": ("compress", MODELS / "resnet8_fmnist.onnx", "pattern:keep=4,patterns=8", "-o",
                 "out", "--calib", MODELS / "fmnist_calib.npz"),
    "asm": ("asm", "PROGRAM/program.pim", "-o", "out"),
    "compare --figure": ("compare", LENET, "--figure", "out.png"),
    "reproduce": ("reproduce", "yu"),
}  # fmt: skip


def interrupted(arguments: tuple[object, ...], program: Path, folder: Path, after_s: float) -> None:
    """Run a command, interrupt it and look at what there is."""
    command = [str(a).replace("PROGRAM", str(program)) for a in arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "pimc", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    if process.returncode != 0:
        assert process.returncode == 130, stderr
        assert stderr.splitlines()[-1] == "interrupted"
    assert {p.name for p in folder.iterdir()} <= {"out", "out.png"}
    if process.returncode == 130 and (folder / "out").is_dir():  # interrupted after all was written
        pimc.load(folder / "out")


@pytest.mark.parametrize("after_s", [0.25, 1.0])
def test_a_compile_that_is_interrupted_leaves_nothing(
    after_s: float, program: Path, tmp_path: Path
) -> None:
    interrupted(WRITERS["compile --verify"], program, tmp_path, after_s)


@pytest.mark.long
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0, 4.0])
def test_every_command_can_be_interrupted_at_any_moment(
    name: str, after_s: float, program: Path, tmp_path: Path
) -> None:
    interrupted(WRITERS[name], program, tmp_path, after_s)


# ------------------------------------------------------------------ in the middle of the writing
def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


WHOLE = ("numpy.savez", "isa.drafts.Path.rename")  # these are given no path to write half to


def half_written(file: Path, *_: object, **__: object) -> None:
    with open(file, "wb") as stream:  # noqa: PTH123  Path.write_bytes is what this stands for
        stream.write(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (WRITERS["run"], "numpy.savez"),
        (WRITERS["report"], "pathlib.Path.write_text"),
        (WRITERS["simulate --trace"], "pathlib.Path.write_bytes"),
        (WRITERS["asm"], "isa.container.write_npz"),
        (WRITERS["asm"], "isa.drafts.Path.rename"),
    ],
)
def test_an_interrupt_while_a_file_is_written_leaves_the_old_one(
    arguments: tuple[object, ...], place: str, program: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    command = [str(a).replace("PROGRAM", str(program)) for a in arguments]
    assert CliRunner().invoke(main, command).exit_code == 0
    before = contents(tmp_path)
    monkeypatch.setattr(place, interrupt if place in WHOLE else half_written)
    result = CliRunner().invoke(main, command)
    monkeypatch.undo()
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "interrupted")
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_a_draft_vanishes_whatever_ends_it(error: type[BaseException], tmp_path: Path) -> None:
    def write_file() -> None:
        with drafted_file(tmp_path / "x") as draft:
            draft.write_bytes(b"half")
            raise error

    def write_folder() -> None:
        with drafted_folder(tmp_path / "x") as draft:
            (draft / "y").write_bytes(b"half")
            raise error

    for write in (write_file, write_folder):
        with pytest.raises(error):
            write()
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_waits_while_a_folder_is_exchanged(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes between the two renames, to any thread; the new folder stands first."""
    from isa import drafts

    held = pimc.load(program)
    held.save(tmp_path / "x.pim")
    rename = Path.rename

    def rename_and_signal(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return rename(self, target)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's `&`
    done = Event()
    thread = Thread(target=done.wait)  # takes the signal where the main thread has masked it
    thread.start()
    monkeypatch.setattr(drafts.Path, "rename", rename_and_signal)
    try:
        with pytest.raises(KeyboardInterrupt):
            held.save(tmp_path / "x.pim")
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
        thread.join()
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["x.pim"]
    x = np.zeros((1, 1, 28, 28), np.float32)
    assert pimc.load(tmp_path / "x.pim").run({"image": x}).keys() == held.run({"image": x}).keys()


# ------------------------------------------------------------------ where raising is not safe
def python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose process answers Ctrl-C as ``pimc`` does, and which then waits for it."""
    start = "import signal, sys, time\nfrom pimc import interrupts\ninterrupts.watch()\n"
    return subprocess.run(
        [sys.executable, "-c", f"{start}{script}\ntime.sleep(20)\nprint('lost')"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


LOADING = """
at, number = None, 0
def hook(event, args):
    global at
    if event == "import" and args[0] == "onnx.onnx_cpp2py_export":
        at = 0
    if at is not None:
        at += 1
        if at == {number}:
            signal.raise_signal(signal.SIGINT)
sys.addaudithook(hook)
import onnx
"""


@pytest.mark.parametrize("number", [3, 5, 10])
def test_ctrl_c_while_a_c_library_loads_is_neither_a_crash_nor_lost(number: int) -> None:
    """The moments are events within onnx's library: it lost the first one and aborted at others."""
    done = python(LOADING.format(number=number))
    assert (done.returncode, done.stdout) == (-signal.SIGINT, ""), done.stderr
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_ctrl_c_in_a_callback_that_nobody_can_interrupt_is_not_lost() -> None:
    done = python("class A:\n def __del__(self): signal.raise_signal(signal.SIGINT)\nA()")
    assert (done.returncode, done.stdout) == (-signal.SIGINT, ""), done.stderr
    assert "Exception ignored" not in done.stderr
