"""Every mapping scheme on the light models of the onnx package, refilled: `pimc compare` on each.

    python -m benchmarks.schemes squeezenet shufflenet resnet50 [--schemes dense,best]

One line per network and scheme: proved, equal to onnxruntime on one random image, and the figures
relative to dense; one per network with CPU seconds and peak memory of the command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import onnx

from benchmarks.light import pimc
from models.refill import LIGHT_MODELS, refill_light

RATIOS = ("stored_cells", "energy_pj", "time_equal_crossbars_ns", "area_um2")


def measure(network: str, options: list[str]) -> None:
    """Print the lines of one network."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / f"{network}.onnx"
        onnx.save(refill_light(network, logits=True), model)
        document, seconds, mebibytes = pimc("compare", str(model), *options)
    first = document["rows"][0]
    for row in document["rows"]:
        ratios = {name: round(first[name] / row[name], 3) for name in RATIOS}
        checks = {name: row[name] for name in ("reconstructs", "equal", "table_bits")}
        print(json.dumps({"network": network, "scheme": row["scheme"], **checks, **ratios}))
    print(json.dumps({"network": network, "cpu_s": round(seconds), "peak_mib": round(mebibytes)}))


def main() -> None:
    """Measure the networks of the command line, all by default."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=LIGHT_MODELS)
    parser.add_argument("--schemes")
    arguments = parser.parse_args()
    for network in arguments.networks:
        measure(network, ["--schemes", arguments.schemes] if arguments.schemes else [])


if __name__ == "__main__":
    main()
