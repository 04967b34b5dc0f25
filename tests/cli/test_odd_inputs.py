"""Odd and bad models: each is compiled and equals onnxruntime, or is refused with this message.

python -m pytest tests/cli/test_odd_inputs.py     # compares with tests/golden/odd_inputs.txt
PYTHONPATH=.:tests python tests/cli/test_odd_inputs.py     # writes it anew, to be read
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.odd_models import ODD

from pimc.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "odd_inputs.txt"


def outcome(name: str, folder: Path) -> str:
    """What becomes of one model: the messages of a refusal, or what the comparison finds."""
    file = folder / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.onnx"
    ODD[name](file)
    before = sorted(folder.iterdir())
    program = folder / "out.pim"
    result = CliRunner().invoke(main, ["compile", str(file), "-o", str(program)])
    assert "Traceback" not in result.stderr, result.stderr
    if result.exit_code:
        assert sorted(folder.iterdir()) == before, "something was left behind"
        text = result.stderr.replace(str(folder), "FOLDER")
        return f"exit {result.exit_code}\n{text.rstrip()}"
    checked = CliRunner().invoke(main, ["verify", str(program), "--samples", "2"])
    assert checked.exit_code == 0, checked.stdout + checked.stderr
    found = next(line for line in checked.stdout.splitlines() if line.startswith("equal"))
    warnings = [
        line
        for line in result.stderr.splitlines()
        if line.startswith("warning") and "F221" not in line
    ]
    return "\n".join(["compiled", *warnings, re.sub(r" over .*", "", found)])


def blocks(text: str) -> dict[str, str]:
    """The golden outcomes by name."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def test_every_odd_model_has_a_golden_outcome() -> None:
    assert list(blocks(GOLDEN.read_text(encoding="utf-8"))) == list(ODD)
    assert len(ODD) >= 60


@pytest.mark.parametrize("name", ODD)
def test_an_odd_model_compiles_right_or_is_refused_as_written(name: str, tmp_path: Path) -> None:
    expected = blocks(GOLDEN.read_text(encoding="utf-8"))[name]
    assert outcome(name, tmp_path) == expected


def write_golden() -> None:
    """Write the golden file; somebody has to read every message in it."""
    parts = []
    for name in ODD:
        with tempfile.TemporaryDirectory() as folder:
            parts.append(f"## {name}\n{outcome(name, Path(folder))}\n")
    GOLDEN.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    write_golden()
