"""The light models of the onnx package, refilled: compiled, run, compared; one line each.

    python -m benchmarks.light squeezenet shufflenet resnet50

For each network: CPU seconds and peak memory of `pimc compile`, lines of the program, and CPU
seconds and differences of `pimc verify` on one random image at 224 x 224, before the last Softmax.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from models.refill import refill_light

TO_RUN = ("squeezenet", "shufflenet", "resnet50", "inception_v1", "densenet121")


@dataclass(frozen=True)
class Measured:
    """One network. seconds: CPU (user and system); memory: peak resident set, MiB."""

    network: str
    cores: int
    crossbars: int
    lines: int
    compile_s: float
    compile_mib: float
    verify_s: float | None
    verify_mib: float | None
    max_abs_diff_lsb: int | None


def pimc(*arguments: str) -> tuple[dict[str, Any], float, float]:
    """Run a command with --json: its document, CPU seconds, peak memory in MiB."""
    command = [sys.executable, "-m", "pimc", *arguments, "--json"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(text), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(network: str, folder: Path) -> Measured:
    model, program = folder / f"{network}.onnx", folder / f"{network}.pim"
    onnx.save(refill_light(network, logits=True), model)
    compiled, compile_s, compile_mib = pimc(
        "compile", str(model), "-o", str(program), "--tiles", "auto"
    )
    verify_s = verify_mib = difference = None
    if network in TO_RUN:
        found, verify_s, verify_mib = pimc("verify", str(program), "--samples", "1")
        difference = found["max_abs_diff_lsb"]
    return Measured(
        network,
        compiled["cores"],
        compiled["crossbars"],
        len((program / "program.pim").read_text().splitlines()),
        round(compile_s, 1),
        round(compile_mib),
        verify_s and round(verify_s, 1),
        verify_mib and round(verify_mib),
        difference,
    )


def main() -> None:
    networks = sys.argv[1:] or TO_RUN
    for network in networks:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure(network, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
