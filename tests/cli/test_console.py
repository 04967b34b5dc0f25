"""How commands speak: results on stdout, the rest on stderr, documents that say their origin."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pimc
from isa.diagnostics import Diagnostic, PimError
from isa.target import load_target
from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist_qdq.onnx"
TEST = MODELS / "fmnist_test500.npz"


def run(*arguments: object, **options: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)  # type: ignore[arg-type]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("console") / "lenet.pim"
    assert run("compile", LENET, "-o", program).exit_code == 0
    return program


def in_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pimc", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("verify", "P", "--data", TEST, "--samples", 2), {"equal", "samples", "layers"}),
        (("run", "P", "--fill", "random"), {"outputs", "written"}),
        (("inspect", "P", "--section", "code"), {"code"}),
        (("inspect", "P", "--section", "layers"), {"layers"}),
        (("inspect", "P", "--section", "blocks"), {"blocks"}),
        (("inspect", "P", "--section", "memory"), {"memory"}),
    ],
)
def test_documents_say_what_they_were_made_from(
    lenet: Path, arguments: tuple[object, ...], keys: set[str]
) -> None:
    arguments = tuple(lenet if argument == "P" else argument for argument in arguments)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert keys <= document.keys()
    assert document["schema"] == 1
    assert document["pimc_version"] == pimc.__version__
    assert document["command"] == arguments[0]
    assert document["target"] == "ou9x8"
    assert document["target_sha256"] == load_target("ou9x8").sha256
    assert document["inputs"][str(lenet / "program.pim")] == sha256(lenet / "program.pim")
    assert document["inputs"][str(lenet / "arrays.npz")] == sha256(lenet / "arrays.npz")


@pytest.mark.parametrize("arguments", [("ops",), ("doctor",), ("targets", "list")])
def test_what_pimc_knows_comes_as_a_document_too(arguments: tuple[str, ...]) -> None:
    document = json.loads(run(*arguments, "--json").stdout)
    assert {"schema", "pimc_version", "command"} < document.keys()


def test_the_report_of_a_compile_holds_that_of_its_verification(tmp_path: Path) -> None:
    program = tmp_path / "x.pim"
    options = ("--verify", TEST, "--samples", 3, "--timing", "--json")
    result = run("compile", LENET, "-o", program, *options)
    document = json.loads(result.stdout)
    assert document["verify"]["samples"] == 3
    assert document["inputs"] == {str(LENET): sha256(LENET), str(TEST): sha256(TEST)}
    assert {"import", "ou-tile", "split", "schedule", "prove text"} <= document["timing_s"].keys()
    saved = json.loads((program / "report.json").read_text())
    assert saved == {key: value for key, value in document.items() if key != "timing_s"}


def test_timing_lists_every_phase_on_stderr(tmp_path: Path) -> None:
    result = run("compile", LENET, "-o", tmp_path / "x.pim", "--timing")
    assert [line.split(" s  ")[1] for line in result.stderr.splitlines()] == [
        "import", "ou-tile", "prove blocks", "split", "schedule", "mesh-place", "fit tables",
        "print and parse", "verify text", "prove text",
    ]  # fmt: skip


def test_random_samples_are_loudly_random(lenet: Path) -> None:
    result = run("verify", lenet, "--samples", 2, "--json")
    assert "warning[R704]" in result.stderr
    document = json.loads(result.stdout)
    assert document["random"] is True
    assert document["equal"] is True


def test_a_float_model_without_samples_is_compiled_with_a_warning(tmp_path: Path) -> None:
    result = run("compile", MODELS / "lenet5_fmnist.onnx", "-o", tmp_path / "x.pim", "--json")
    assert result.exit_code == 0
    assert "warning[F221]" in result.stderr
    assert [warning["code"] for warning in json.loads(result.stdout)["warnings"]] == ["F221"]


def test_a_mesh_that_grew_is_said(tmp_path: Path) -> None:
    options = ("--target", "tiny", "--tiles", "auto")
    result = run("compile", LENET, "-o", tmp_path / "x.pim", *options)
    assert "the mesh grew from 16 to" in result.stderr
    assert run("verify", tmp_path / "x.pim", "--samples", 2).exit_code == 0


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_stands_in_the_way_is_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.pim"
    if kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").touch()
    result = run("compile", LENET, "-o", place)
    assert result.exit_code == 3
    assert "error[C508]" in result.stderr
    assert place.read_text() == "mine" if kind == "file" else (place / "mine").exists()


def test_a_place_that_does_not_exist_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("compiled although nothing could be written")

    monkeypatch.setattr("pimc.driver.import_shapes", never)
    result = run("compile", LENET, "-o", tmp_path / "gone" / "x.pim")
    assert result.exit_code == 3
    assert "there is no folder" in result.stderr


@pytest.mark.parametrize("place", ["gone/y.npz", "."])
def test_outputs_have_a_place_before_a_program_runs(
    lenet: Path, tmp_path: Path, place: str
) -> None:
    result = run("run", lenet, "--fill", "random", "--output", tmp_path / place)
    assert result.exit_code == 3
    assert "error[C50" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_compile_replaces_the_program_folder_that_it_wrote_before(tmp_path: Path) -> None:
    place = tmp_path / "x.pim"
    for _ in range(2):
        assert run("compile", LENET, "-o", place).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["x.pim"]


@pytest.fixture
def exploding(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def arm(error: BaseException) -> None:
        def explode(*_: object) -> None:
            raise error

        monkeypatch.setattr("pimc.driver.import_shapes", explode)

    return arm


def test_debugging_shows_where_an_internal_error_happened(
    exploding: Callable[[BaseException], None], tmp_path: Path
) -> None:
    exploding(RuntimeError("boom"))
    result = run("compile", LENET, "-o", tmp_path / "x.pim", env={"PIMC_DEBUG": "1"})
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert "in explode" in result.stderr


def test_the_gravest_of_many_findings_decides_the_exit_code(
    exploding: Callable[[BaseException], None], tmp_path: Path
) -> None:
    exploding(PimError(Diagnostic("M602", "too big"), Diagnostic("F210", "unknown")))
    result = run("compile", LENET, "-o", tmp_path / "x.pim")
    assert result.exit_code == 3
    assert "M602" in result.stderr
    assert "F210" in result.stderr


def test_piped_output_has_no_colours_and_no_progress(lenet: Path) -> None:
    result = in_process("verify", lenet, "--data", TEST, "--samples", 2)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert "equal: largest difference from onnxruntime 0 LSB" in result.stdout


def test_python_m_pimc_reports_errors_like_the_command(tmp_path: Path) -> None:
    result = in_process("verify", tmp_path)
    assert result.returncode == 3
    assert result.stderr.startswith("error[C501]")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compile",), "Missing argument 'MODEL'"),
        (("compile", LENET, "--targe", "tiny"), "--target"),
        (("compiel",), "No such command"),
        (("run", "x.pim"), "--fill random"),
        (("verify", "x.pim", "--samples", "0"), "--samples"),
        (("explain", "F999"), "no error code `F999`"),
    ],
)
def test_wrong_usage_is_exit_2_with_the_way_out(
    arguments: tuple[object, ...], expected: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_importing_pimc_is_quick_because_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, pimc\n"
        "heavy = {'onnx', 'onnxruntime', 'numpy', 'rich', 'lark', 'pydantic', 'click'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    with pytest.raises(AttributeError, match="no attribute 'compyle'"):
        pimc.compyle  # noqa: B018


HAND = """\
.pim 1
.target tiny
.input  x s8[1, 1, 2] of="x" shape=[2] order=[0]
.output y s8[1, 1, 2] of="y" shape=[2] order=[0]
.core 0
  .buffer b s8[1, 1, 2] @0x0000
  load b, x
  store y, b
"""


def test_a_text_names_its_own_target_and_options_overrule_it(tmp_path: Path) -> None:
    text = tmp_path / "hand.pim"
    text.write_text(HAND)
    for options, name in (((), "tiny"), (("--target", "isaac"), "isaac")):
        folder = tmp_path / name
        result = run("asm", text, "-o", folder, *options, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["target"] == name
        assert pimc.load(folder).target.name == name


def test_the_changed_text_of_a_compiled_program_assembles_in_its_folder(
    lenet: Path, tmp_path: Path
) -> None:
    result = run("asm", lenet / "program.pim", "-o", tmp_path / "again.pim")
    assert result.exit_code == 0, result.stderr
    feeds = {"image": np.zeros((1, 1, 28, 28), np.float32)}
    before, after = pimc.load(lenet), pimc.load(tmp_path / "again.pim")
    np.testing.assert_array_equal(after.run(feeds)["logits"], before.run(feeds)["logits"])
    result = run("verify", tmp_path / "again.pim")
    assert result.exit_code == 3
    assert "can be run, not verified" in result.stderr


def test_fmt_refuses_to_lose_comments_and_does_so_when_told(tmp_path: Path) -> None:
    text = tmp_path / "hand.pim"
    commented = HAND.replace('of="x"', 'of="x;y"').replace("load b, x", "load b, x ; the image")
    text.write_text(commented)
    result = run("fmt", text)
    assert result.exit_code == 2
    assert "hand.pim:7:13" in result.stderr
    assert text.read_text() == commented
    assert run("fmt", text, "--drop-comments").exit_code == 0
    assert "the image" not in text.read_text()
    assert '"x;y"' in text.read_text()
    assert run("fmt", text, "--check").exit_code == 0


def test_fmt_reads_stdin_and_writes_stdout() -> None:
    result = run("fmt", "-", input=HAND)
    assert result.exit_code == 0
    assert run("fmt", "-", input=result.stdout).stdout == result.stdout
    assert "store y, b" in " ".join(result.stdout.split())
