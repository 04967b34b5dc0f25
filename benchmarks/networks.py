"""A table over real networks: compiled, run, compared with onnxruntime, one line each.

    python models/fetch.py && python models/architectures.py -o /tmp/networks
    python -m benchmarks.networks /tmp/networks/*.onnx models/fetched/*.onnx light:squeezenet ...

    python -m benchmarks.networks --everything models/resnet8_fmnist.onnx light:squeezenet ...

For each network: CPU seconds and peak memory of `pimc compile`, cores, crossbars, the largest
difference over all tensors on one random sample (0 LSB is equality), and the share of the float
model's multiplications that the crossbars do. A refusal is a line, too, with its first message.
`--everything` compiles with the best mapping and copies of layers, and simulates eight images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

from models.refill import refill_light

SHAPES = {  # what the exported files leave open
    "bert": ("tokens=1,32",),
    "lstm_tagger": ("tokens=1,32",),
    "modelA_paper": ("x=1,100,24",),
}
SETTINGS = {  # rows of 7,500 samples and dilations of 4,096 need a larger core memory
    "spindle-detector-eeg": ("--set", "memory.core_bytes=4194304"),
}


def pimc(*arguments: str) -> tuple[int, dict[str, Any], str, float, float]:
    """Exit code, JSON document, messages, CPU seconds, peak MiB of one command."""
    command = [sys.executable, "-m", "pimc", *arguments, "--json"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stdout=output, stderr=messages)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        text = output.read()
        document = json.loads(text) if text.strip() else {}
        seconds = usage.ru_utime + usage.ru_stime
        return process.returncode, document, messages.read(), seconds, usage.ru_maxrss / 1024


def measure(argument: str, folder: Path) -> dict[str, Any]:
    """One line of the table."""
    model = Path(argument)
    if argument.startswith("light:"):
        model = folder / f"{argument.removeprefix('light:')}.onnx"
        onnx.save(refill_light(model.stem, logits=True), model)
    program = folder / "program.pim"
    shapes = [word for shape in SHAPES.get(model.stem, ()) for word in ("--input-shape", shape)]
    everything = (
        ("--mapping", "best", "--replicate", "min-max") if "--everything" in sys.argv else ()
    )
    options = [
        *everything,
        *shapes,
        *SETTINGS.get(model.stem, ()),
        "--tiles",
        "auto",
        "-o",
        str(program),
    ]
    code, compiled, messages, seconds, memory = pimc("compile", str(model), *options)
    line: dict[str, Any] = {"network": model.stem, "exit": code}
    line |= {"compile_s": round(seconds, 1), "compile_mib": round(memory)}
    if code:
        first = next((m for m in messages.splitlines() if m.startswith("error")), messages[-200:])
        return line | {"message": first}
    line |= {name: compiled[name] for name in ("cores", "crossbars", "reconstructs")}
    line["lines"] = len((program / "program.pim").read_text().splitlines())
    code, found, messages, seconds, memory = pimc("verify", str(program), "--samples", "1")
    line |= {"verify_s": round(seconds, 1), "verify_mib": round(memory)}
    if code > 1 or not found:
        return line | {"message": messages[-200:]}
    line |= {
        "max_abs_diff_lsb": found["max_abs_diff_lsb"],
        "tensors": len(found["layers"]),
        "sqnr_db": found.get("float_sqnr_db"),
    }
    return line | simulated(program) if everything else line


def simulated(program: Path) -> dict[str, Any]:
    """Time, energy and area of eight images."""
    _, found, _, seconds, _ = pimc("simulate", str(program), "--images", "8")
    return {
        "interval_us": round(found["interval_ns"] / 1e3, 1),
        "interval_to_bound": round(found["interval_ns"] / found["bound_interval_ns"], 3),
        "latency_us": round(found["latency_ns"] / 1e3, 1),
        "dynamic_uj": round(found["energy_pj"]["dynamic"] / 1e6, 1),
        "static_uj": round(found["energy_pj"]["static"] / 1e6, 1),
        "area_mm2": round(found["area_mm2"]["total"], 1),
        "matrix_time": round(found["utilization"]["matrix_time"], 3),
        "simulate_s": round(seconds, 1),
    }


def main() -> None:
    for argument in (word for word in sys.argv[1:] if word != "--everything"):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(argument, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
