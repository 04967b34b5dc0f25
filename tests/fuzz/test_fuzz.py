"""Damaged inputs: every reader answers with PimError or a value, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.long
@pytest.mark.parametrize(
    ("reader", "executions"),
    [("isa", 3000), ("container", 2000), ("npz", 5000), ("target", 1000), ("onnx", 600)],
)
def test_a_damaged_input_raises_nothing_but_pim_errors(
    reader: str, executions: int, tmp_path: Path
) -> None:
    limits = ["--executions", str(executions), "--seconds", "250", "--keep", str(tmp_path)]
    command = [sys.executable, str(RUN), *limits, reader]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
