"""Accuracy against noise: resnet8 on 2,000 images, at four heights of the operation unit.

    python benchmarks/noise.py [--images 2000] [--trials 2] [--output docs/noise.svg]

Each point is the mean over devices drawn anew; programming error and read noise grow together, both
Gaussian and relative to the conductance range, from none to twice 5 % and 10 %. ADCs are as wide as
the height asks, so nothing is lost without noise. Images: the first ones of Fashion-MNIST's test
set (`apt-get install dataset-fashion-mnist`, or `--dataset FOLDER`).
"""

from __future__ import annotations

import argparse
import gzip
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pimc
from isa.target import Target, load_target
from pimc.data import LABELS
from pimc.intervals import wilson
from pimc.noise import noise_report

MODELS = Path(__file__).resolve().parent.parent / "models"
HEIGHTS = {4: 3, 9: 4, 16: 5, 128: 8}  # word lines of an OU -> bits of an exact ADC
PROGRAMMING, READ = 0.05, 0.10  # deviation at scale 1, of the conductance range
SCALES = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Point:
    """One height at one scale. low, high: 95 %, the wider of images (Wilson) and devices (t)."""

    height: int
    scale: float
    accuracy: float
    low: float
    high: float
    rms_lsb: float  # of the logits


def read_fashion(folder: Path, images: int) -> dict[str, np.ndarray[Any, Any]]:
    """The first test images, float32 [n, 1, 28, 28] in 0..1, and their labels."""
    if not folder.is_dir():
        raise SystemExit(f"{folder} is missing: apt-get install dataset-fashion-mnist")
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    image = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:images]
    found = np.frombuffer(labels, np.uint8, offset=8)[:images].astype(np.int64)
    return {"image": image.astype(np.float32) / 255, LABELS: found}


def chip(height: int) -> Target:
    """The default chip with operation units of another height, and the ADC that they need."""
    return load_target("ou9x8", {"ou.rows": str(height), "adc.bits": str(HEIGHTS[height])})


def measure(height: int, feeds: dict[str, Any], trials: int) -> list[Point]:
    """Accuracy at every scale, compiled once; scale 0 is the exact machine."""
    calibration = str(MODELS / "fmnist_calib.npz")
    compiled = pimc.compile(MODELS / "resnet8_fmnist.onnx", chip(height), calibration)
    points = []
    for scale in SCALES:
        numbers = {"programming.sigma": PROGRAMMING * scale, "read.sigma": READ * scale}
        target = compiled.target.with_nonideal({key: repr(v) for key, v in numbers.items()})
        report = noise_report(compiled.program, target, feeds, trials, seed=1)
        found = report.as_json()
        accuracy = found["accuracy"]
        intervals = [accuracy["interval_images"], accuracy["interval_devices"]]
        low, high = max((i for i in intervals if i), key=lambda i: i[1] - i[0])
        rms = found["tensors"][-1]["rms_lsb"]
        if not points:
            exact = found["exact_accuracy"]
            interval = wilson(report.exact_right, report.samples)
            points.append(Point(height, 0.0, exact, *interval, 0.0))
        points.append(Point(height, scale, accuracy["mean"], low, high, rms))
        show(points[-1])
    return points


def show(p: Point) -> None:
    print(
        f"{p.height:4} word lines, {100 * PROGRAMMING * p.scale:5.2f} % and "
        f"{100 * READ * p.scale:5.2f} %: accuracy {100 * p.accuracy:6.2f} % "
        f"({100 * p.low:.2f}..{100 * p.high:.2f}), logits off by {p.rms_lsb:.2f} LSB rms",
        flush=True,
    )


def draw(points: list[Point], images: int, trials: int, output: Path) -> None:
    """Lines with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for height, color, marker in zip(
        HEIGHTS, ("#0072b2", "#009e73", "#d55e00", "#7f3c8d"), "osD^", strict=True
    ):
        mine = [p for p in points if p.height == height]
        x = [100 * PROGRAMMING * p.scale for p in mine]
        y = [100 * p.accuracy for p in mine]
        errors = [
            [max(0.0, 100 * (p.accuracy - p.low)) for p in mine],
            [max(0.0, 100 * (p.high - p.accuracy)) for p in mine],
        ]
        label = f"{height} word lines, {HEIGHTS[height]}-bit ADC"
        axes.errorbar(x, y, errors, color=color, marker=marker, ms=5, capsize=3, lw=1.6,
                      label=label)  # fmt: skip
    axes.axhline(10, color="#888888", lw=0.8, ls=":")
    axes.text(0.1, 11, "guessing", color="#666666", fontsize=8)
    axes.axvline(100 * PROGRAMMING, color="#bbbbbb", lw=0.8, ls="--", zorder=0)
    axes.set_xlabel("programming error (read noise is twice that), % of the conductance range")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    axes.set_title(
        f"resnet8 on {images:,} Fashion-MNIST images, {trials} devices a point, 95 % intervals",
        fontsize=10,
    )
    axes.legend(title="rows of an operation unit", fontsize=9, title_fontsize=9, loc="lower left")
    axes.grid(alpha=0.25)
    figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=2, help="devices of each point")
    parser.add_argument("--output", type=Path, default=Path("docs/noise.svg"), help=".svg or .png")
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    feeds = read_fashion(arguments.dataset, arguments.images)
    start = time.process_time()
    points = [p for height in HEIGHTS for p in measure(height, feeds, arguments.trials)]
    draw(points, len(feeds[LABELS]), arguments.trials, arguments.output)
    print(f"{arguments.output}: {time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
