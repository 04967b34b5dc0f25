"""Every mapping scheme on the light models of the onnx package, refilled: `pimc compare` on each.

    python -m benchmarks.schemes squeezenet shufflenet resnet50 [--schemes dense,best]

One line per network and scheme: proved, equal to onnxruntime on one random image, and the figures
relative to dense; one per network with CPU seconds and peak memory of the command.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import onnx

from benchmarks.command import run
from models.refill import LIGHT_MODELS, refill_light

RATIOS = ("stored_cells", "energy_pj", "time_equal_crossbars_ns", "area_um2")


def measure(network: str, options: list[str]) -> None:
    """Print the lines of one network."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / f"{network}.onnx"
        onnx.save(refill_light(network, logits=True), model)
        ran = run("compare", str(model), *options)
    rows = ran.document["rows"]
    for row in rows:
        ratios = {name: round(rows[0][name] / row[name], 3) for name in RATIOS}
        checks = {name: row[name] for name in ("reconstructs", "equal", "table_bits")}
        print(json.dumps({"network": network, "scheme": row["scheme"], **checks, **ratios}))
    print(
        json.dumps({"network": network, "cpu_s": round(ran.cpu_s), "peak_mib": round(ran.peak_mib)})
    )


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("networks", nargs=-1, type=click.Choice(LIGHT_MODELS))
@click.option("--schemes", help="As of `pimc compare`, divided by commas.")
def main(networks: tuple[str, ...], schemes: str | None) -> None:
    for network in networks or LIGHT_MODELS:
        measure(network, ["--schemes", schemes] if schemes else [])


if __name__ == "__main__":
    main()
