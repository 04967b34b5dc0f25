"""A table over real networks: compiled, run, compared with onnxruntime, one line each.

    python models/fetch.py && python -m models.architectures -o /tmp/networks
    python -m benchmarks.networks /tmp/networks/*.onnx models/fetched/*.onnx light:squeezenet ...

The largest difference is over all tensors, on one random image: 0 LSB is equality. MACs: what
share of the multiplications the crossbars do. A refusal is a line, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks.command import PASSED, attempt
from models.refill import LIGHT_MODELS

SHAPES = {  # what the exported files leave open
    "bert": ("tokens=1,32",),
    "lstm_tagger": ("tokens=1,32",),
    "modelA_paper": ("x=1,100,24",),
}
EVERYTHING = ("--mapping", "best", "--replicate", "min-max")
PLAIN_TABLE = {  # heading -> key of a line
    "network": "network",
    "cores": "cores",
    "crossbars": "crossbars",
    "lines": "lines",
    "compile s": "compile_s",
    "MiB": "compile_mib",
    "verify s": "verify_s",
    "LSB": "max_abs_diff_lsb",
    "tensors": "tensors",
    "MACs": "crossbar_macs",
    "on the host": "on_host",
}
EVERYTHING_TABLE = {
    "network": "network",
    "cores": "cores",
    "crossbars": "crossbars",
    "LSB": "max_abs_diff_lsb",
    "interval us": "interval_us",
    "to bound": "interval_to_bound",
    "latency us": "latency_us",
    "dynamic uJ": "dynamic_uj",
    "static uJ": "static_uj",
    "area mm2": "area_mm2",
    "matrix time": "matrix_time",
    "compile s": "compile_s",
}


def measure(network: str, folder: Path, *, everything: bool) -> dict[str, Any]:
    """One line of the table. network: a file, or light:NAME for a model of the onnx package."""
    model, program = Path(network), folder / "program.pim"
    if network.startswith("light:"):
        model = folder / f"{network.removeprefix('light:')}.onnx"
        _refill(model)
    shapes = [word for shape in SHAPES.get(model.stem, ()) for word in ("--input-shape", shape)]
    options = [*(EVERYTHING if everything else ()), *shapes, "--tiles", "auto", "-o", str(program)]
    compiled = attempt("compile", str(model), *options)
    line: dict[str, Any] = {"network": model.stem, "exit": compiled.code}
    line |= {"compile_s": round(compiled.cpu_s, 1), "compile_mib": round(compiled.peak_mib)}
    if compiled.code:
        return line | {"message": compiled.first_error}
    line |= {name: compiled.document[name] for name in ("cores", "crossbars", "reconstructs")}
    placement = compiled.document["placement"]
    line["crossbar_macs"] = f"{placement['mac_share']['crossbars']:.1%}"
    line["on_host"] = on_host(placement["on_host"])
    line["lines"] = len((program / "program.pim").read_text().splitlines())
    found = attempt("verify", str(program), "--samples", "1")
    line |= {"verify_s": round(found.cpu_s, 1), "verify_mib": round(found.peak_mib)}
    if found.code not in PASSED or not found.document:
        return line | {"message": found.first_error}
    line |= {
        "max_abs_diff_lsb": found.document["max_abs_diff_lsb"],
        "tensors": len(found.document["layers"]),
        "sqnr_db": found.document["float_sqnr_db"],
    }
    return line | simulated(program) if everything else line


def _refill(model: Path) -> None:
    """In a process of its own: the peak of a new process counts the one that starts it."""
    command = [sys.executable, "-m", "models.refill", model.stem, str(model), "--logits"]
    subprocess.run(command, check=True)


def on_host(nodes: list[dict[str, str]]) -> str:
    """How many operators of each kind stay on the host for each reason."""
    counts = Counter((node["op_type"], node["reason"]) for node in nodes)
    return "; ".join(f"{count} {kind}: {why}" for (kind, why), count in counts.items())


def simulated(program: Path) -> dict[str, Any]:
    """Time, energy and area of eight images."""
    found = attempt("simulate", str(program), "--images", "8").document
    return {
        "interval_us": round(found["interval_ns"] / 1e3, 1),
        "interval_to_bound": round(found["interval_ns"] / found["bound_interval_ns"], 3),
        "latency_us": round(found["latency_ns"] / 1e3, 1),
        "dynamic_uj": round(found["energy_pj"]["dynamic"] / 1e6, 1),
        "static_uj": round(found["energy_pj"]["static"] / 1e6, 1),
        "area_mm2": round(found["area_mm2"]["total"], 1),
        "matrix_time": round(found["utilization"]["matrix_time"], 3),
    }


def row(line: dict[str, Any], columns: dict[str, str]) -> str:
    """A line as a row of a Markdown table."""
    if "message" in line:
        cells = [line["network"], line["message"], *[""] * (len(columns) - 2)]
    else:
        values = (line[key] for key in columns.values())
        cells = [f"{value:,}" if isinstance(value, int | float) else value for value in values]
    return f"| {' | '.join(cells)} |"


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("networks", nargs=-1, metavar="[FILE.onnx | light:NAME]...")
@click.option("--everything", is_flag=True, help="Best mapping, copies of layers; simulate.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line.")
def main(networks: tuple[str, ...], everything: bool, as_json: bool) -> None:
    columns = EVERYTHING_TABLE if everything else PLAIN_TABLE
    if not as_json:
        click.echo(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for network in networks or [f"light:{name}" for name in LIGHT_MODELS]:
        with tempfile.TemporaryDirectory() as folder:
            line = measure(network, Path(folder), everything=everything)
        click.echo(json.dumps(line) if as_json else row(line, columns))


if __name__ == "__main__":
    main()
