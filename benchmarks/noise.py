"""Accuracy against noise: resnet8 on 2,000 images, at four heights of the operation unit.

    python -m benchmarks.noise [--images 2000] [--devices 8] [--output docs/noise.svg]

Each point is all images, dealt out to devices that are drawn anew; its interval is Student's over
the devices, so it covers both devices and images. Programming error and read noise grow together,
both Gaussian and relative to the conductance range, from none to twice 5 % and 10 %. ADCs are as
wide as the height asks, so nothing is lost without noise. Images: the first ones of Fashion-MNIST's
test set (`apt-get install dataset-fashion-mnist`, or `--dataset FOLDER`).
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
from pimc.intervals import student, wilson
from pimc.noise import noise_report, trial_seed

MODELS = Path(__file__).resolve().parent.parent / "models"
HEIGHTS = {4: 3, 9: 4, 16: 5, 128: 8}  # word lines of an OU -> bits of an exact ADC
PROGRAMMING, READ = 0.05, 0.10  # deviation at scale 1, of the conductance range
SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Point:
    """One height at one scale. low, high: 95 %, Student's over devices; Wilson's without noise."""

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


def measure(height: int, feeds: dict[str, Any], devices: int) -> list[Point]:
    """Accuracy at every scale, compiled once; scale 0 is the exact machine."""
    calibration = str(MODELS / "fmnist_calib.npz")
    compiled = pimc.compile(MODELS / "resnet8_fmnist.onnx", chip(height), calibration)
    images = len(feeds[LABELS])
    hands = [{k: v[i::devices] for k, v in feeds.items()} for i in range(devices)]
    points = []
    for scale in SCALES:
        numbers = {"programming.sigma": PROGRAMMING * scale, "read.sigma": READ * scale}
        target = compiled.target.with_nonideal({key: repr(v) for key, v in numbers.items()})
        reports = [
            noise_report(compiled.program, target, hand, seed=trial_seed(1, i))
            for i, hand in enumerate(hands)
        ]
        if not points:
            exact = sum(report.exact_right for report in reports)
            points.append(Point(height, 0.0, exact / images, *wilson(exact, images), 0.0))
            show(points[-1])
        low, high = student([report.right[0] / report.samples for report in reports]) or (0, 1)
        mean = sum(report.right[0] for report in reports) / images
        logits = [list(report.gaps.values())[-1] for report in reports]
        rms = (sum(g.squares for g in logits) / sum(g.elements for g in logits)) ** 0.5
        points.append(Point(height, scale, mean, max(0.0, low), min(1.0, high), rms))
        show(points[-1])
    return points


def show(p: Point) -> None:
    print(
        f"{p.height:4} word lines, {100 * PROGRAMMING * p.scale:5.2f} % and "
        f"{100 * READ * p.scale:5.2f} %: accuracy {100 * p.accuracy:6.2f} % "
        f"({100 * p.low:.2f}..{100 * p.high:.2f}), logits off by {p.rms_lsb:.2f} LSB rms",
        flush=True,
    )


def draw(points: list[Point], images: int, devices: int, output: Path) -> None:
    """Lines with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for height, color, marker in zip(
        HEIGHTS, ("#0072b2", "#009e73", "#d55e00", "#7f3c8d"), "osD^", strict=True
    ):
        mine = [p for p in points if p.height == height]
        aside = 0.04 * (list(HEIGHTS).index(height) - 1.5)  # so that intervals do not overlap
        x = [100 * PROGRAMMING * p.scale + aside for p in mine]
        y = [100 * p.accuracy for p in mine]
        errors = [
            [max(0.0, 100 * (p.accuracy - p.low)) for p in mine],
            [max(0.0, 100 * (p.high - p.accuracy)) for p in mine],
        ]
        label = f"{height} word lines, {HEIGHTS[height]}-bit ADC"
        axes.errorbar(x, y, errors, color=color, marker=marker, ms=5, capsize=3, lw=1.6,
                      label=label)  # fmt: skip
    axes.axhline(10, color="#888888", lw=0.8, ls=":")
    axes.text(5.9, 11, "guessing", color="#666666", fontsize=8)
    axes.axvline(100 * PROGRAMMING, color="#bbbbbb", lw=0.8, ls="--", zorder=0)
    axes.set_xlabel("programming error (read noise is twice that), % of the conductance range")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    axes.set_title(
        f"resnet8 on {images:,} Fashion-MNIST images, {devices} devices a point, 95 % intervals",
        fontsize=10,
    )
    axes.legend(title="rows of an operation unit", fontsize=9, title_fontsize=9, loc="lower left")
    axes.grid(alpha=0.25)
    figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--devices", type=int, default=8, help="that share the images of a point")
    parser.add_argument("--output", type=Path, default=Path("docs/noise.svg"), help=".svg or .png")
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    feeds = read_fashion(arguments.dataset, arguments.images)
    start = time.process_time()
    points = [p for height in HEIGHTS for p in measure(height, feeds, arguments.devices)]
    draw(points, len(feeds[LABELS]), arguments.devices, arguments.output)
    print(f"{arguments.output}: {time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
