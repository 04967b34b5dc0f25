"""Misuse: every command with the wrong thing for every file that it reads.

Commands and parameters come from the command line's own table, so a new parameter is covered, or
stops `test_every_path_is_known`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from frontend.makers import make, weights

import pimc
from isa.codes import all_codes
from pimc.cli import main

HANGS_S = 30
OUTPUTS = {"output", "trace", "figure"}
# parameter -> the kind of file that it takes
TAKES = {
    "model": "model", "models": "model", "program": "program", "against": "program",
    "text": "text", "calib": "data", "data": "data", "source": "data", "target": "target",
    "name": "target", "device": "device",
}  # fmt: skip
EXTRA = {
    "compile": ["--output", "new.pim"],
    "compress": ["identical:t=0.6", "--output", "new.onnx"],
    "report": ["--output", "new.html"],
    "asm": ["--output", "new.pim"],
}
QUICK = ("another kind", "nothing", "a folder", "a pipe", "a link to itself", "a long name")
POINTS = 7  # where a file is cut off


def commands(group: click.Group = main, before: tuple[str, ...] = ()) -> Iterator[
    tuple[tuple[str, ...], click.Command]
]:  # fmt: skip
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


def reads(command: click.Command) -> list[click.Parameter]:
    return [p for p in command.params if p.name in TAKES]


CASES = [(words, p.name) for words, command in commands() for p in reads(command)]


def test_every_path_is_known() -> None:
    for words, command in commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                assert parameter.name in TAKES.keys() | OUTPUTS, (words, parameter.name)
    assert len(CASES) > 25


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A right file of every kind."""
    folder = tmp_path_factory.mktemp("right")
    model = make("(float[N,2,6,6] x) => (float[N,C,H,W] y)", "y = Conv(x, w)",
                 w=weights(3, 2, 3, 3))  # fmt: skip
    onnx.save(model, folder / "model.onnx")
    pimc.compile(model).save(folder / "program.pim")
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    (folder / "text").mkdir()
    for file in ("program.pim", "arrays.npz", "target.json"):
        if (folder / "program.pim" / file).exists():
            shutil.copy(folder / "program.pim" / file, folder / "text" / file)
    source = Path(pimc.__file__).parents[1] / "isa" / "targets" / "ou9x8.toml"
    shutil.copy(source, folder / "target.toml")
    (folder / "device.toml").write_text("[device]\nread_noise = 0.1\n")
    return {
        "model": folder / "model.onnx",
        "program": folder / "program.pim",
        "data": folder / "data.npz",
        "text": folder / "text" / "program.pim",
        "target": folder / "target.toml",
        "device": folder / "device.toml",
    }


def wrong_files(kind: str, right: dict[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Names of harms, and what to give instead of a right file."""
    for other, file in right.items():
        if other != kind:
            yield ("another kind" if other == "data" or kind == "data" else f"a {other}"), file
    made = {name: folder / name for name in ("empty", "bytes", "folder", "pipe", "loop", "zeros")}
    made["empty"].write_bytes(b"")
    made["bytes"].write_bytes(bytes(range(128, 256)) * 9)
    made["zeros"].write_bytes(bytes(5000))
    made["folder"].mkdir()
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(made["loop"])
    yield "nothing", made["empty"]
    yield "no text", made["bytes"]
    yield "zeros", made["zeros"]
    yield "a folder", made["folder"]
    yield "a pipe", made["pipe"]
    yield "a link to itself", made["loop"]
    yield "no file", folder / "missing"
    yield "a device", Path("/dev/null")
    yield "a long name", folder / ("n" * 300)
    yield "a path through a file", made["empty"] / "x"
    yield from cut_files(right[kind], folder)


def cut_files(file: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The right thing, its file (of a folder, each of its files) cut off at some points."""
    for part in sorted(file.iterdir()) if file.is_dir() else [file]:
        data = part.read_bytes() if part.is_file() else b""
        for point in range(POINTS if data else 0):
            cut = folder / f"cut-{part.name}-{point}" / file.name
            cut.parent.mkdir()
            if file.is_dir():
                shutil.copytree(file, cut)
            place = cut / part.name if file.is_dir() else cut
            place.write_bytes(data[: len(data) * point // POINTS])
            yield f"cut {part.name} {point}/{POINTS}", cut


def arguments(
    words: tuple[str, ...], parameter: str, value: Path, right: dict[str, Path]
) -> list[str]:
    """A command line with one wrong value, right ones for what else it needs."""
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    line = list(words)
    for p in command.params:
        given = str(value if p.name == parameter else right.get(TAKES.get(p.name or "", ""), ""))
        if p.name == "paper":
            line.append("pattpim")
        elif isinstance(p, click.Argument) and p.name in TAKES:
            line.append(given)
        elif p.name == parameter or (p.required and p.name in TAKES):
            line += [p.opts[0], given]
    line += EXTRA.get(words[0], [])
    if words[0] == "run" and parameter != "source":
        line += ["--fill", "random"]
    if parameter == "device":
        line.append("--noise")
    return line


class Hang(BaseException):
    """No answer in time; nothing on the way takes it for an error of its own."""


def timely(line: list[str]) -> Result:
    def hang(*_: object) -> None:
        raise Hang(f"no answer after {HANGS_S} s: {line}")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANGS_S)
    try:
        return CliRunner().invoke(main, line)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(line: list[str], result: Result) -> str:
    """What a wrong file gets: a known code, in words, or it is none and the command is done."""
    assert result.exit_code in (0, 2, 3, 4), (line, result.exception, result.stderr)
    assert "Traceback" not in result.stderr
    codes = set(re.findall(r"^error\[(\w+)\]", result.stderr, re.MULTILINE))
    assert codes <= set(all_codes())
    if result.exit_code:
        assert codes or result.stderr.splitlines()[-1].startswith("Error: "), (line, result.stderr)
    return result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def swept(
    words: tuple[str, ...], parameter: str, right: dict[str, Path], folder: Path, quick: bool
) -> None:
    given = folder / "given"
    given.mkdir()
    work = folder / "work"
    for harm, value in wrong_files(TAKES[parameter], right, given):
        if quick and harm not in QUICK:
            continue
        work.mkdir()
        os.chdir(work)
        before = contents(given)
        line = arguments(words, parameter, value, right)
        result = timely(line)
        judge(line, result)
        if result.exit_code:
            assert list(work.iterdir()) == [], (harm, line)
            assert contents(given) == before
        os.chdir(folder)
        shutil.rmtree(work)


@pytest.mark.parametrize(("words", "parameter"), CASES)
def test_a_wrong_file_is_refused_with_a_code(
    words: tuple[str, ...], parameter: str, right: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    swept(words, parameter, right, tmp_path, quick=True)


@pytest.mark.long
@pytest.mark.parametrize(("words", "parameter"), CASES)
def test_every_wrong_file_is_refused_with_a_code(
    words: tuple[str, ...], parameter: str, right: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    swept(words, parameter, right, tmp_path, quick=False)
