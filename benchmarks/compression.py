"""Accuracy of the lossy passes on the networks of this repository, without any training.

    python -m benchmarks.compression [--model MODEL] [SPEC+SPEC ...]

1,000 training images (unlabelled) fit the weights; 500 test images are counted, one standard error
is 1.3 points. "int8" is the frontend's integer reference of the compressed model, in onnxruntime,
its ranges from 256 other training images.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime

from pimc.compress import Labelled, compress, parse_compression
from pimc.frontend.build import import_model

MODELS = Path(__file__).resolve().parent.parent / "models"
# t by layer: ResNet-18's .75, .375, .1875 by stage (PRAP-PIM), on the three stages of resnet8
PRAP = "similar:t=0.75/0.75/0.375/0.375/0.375/0.1875,group=2"
RECIPES = (
    "pattern:keep=4,patterns=8",
    "pattern:keep=4,patterns=8,first=yes",
    "pattern:keep=4,patterns=8,group=2",
    "pattern:keep=4,patterns=8,choose=error",
    "pattern:keep=4,patterns=8,dictionary=global",
    "pattern:keep=4,patterns=8,dictionary=global,connectivity=3.6",
    "pattern:keep=2,patterns=8",
    "pattern:keep=2,patterns=8,choose=error",
    "identical:t=0.6",
    PRAP,
    f"pattern:keep=4,group=2+{PRAP},joint=yes",
    "channel:keep=0.65",
)


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("recipes", nargs=-1, metavar="[SPEC+SPEC]...")
@click.option("--model", default="resnet8_fmnist", show_default=True)
def main(recipes: tuple[str, ...], model: str) -> None:
    network = onnx.load(MODELS / f"{model}.onnx")
    train, test, ranges = (
        np.load(MODELS / f"fmnist_{part}.npz") for part in ("train1000", "test500", "calib")
    )
    labelled = Labelled({"image": test["image"]}, test["labels"])
    print(f"{model}, {len(train['image'])} calibration images, {len(test['labels'])} counted")
    print(f"{'kept':>6} {'stored':>6} {'before':>6} {'plain':>6} {'after':>6} {'int8':>6} {'s':>5}")
    for recipe in recipes or RECIPES:
        start = time.process_time()
        specs = [parse_compression(part) for part in recipe.split("+")]
        done = compress(network, {"image": train["image"]}, specs, labelled)
        seconds = time.process_time() - start
        report, accuracy = done.report, done.report.accuracy
        assert accuracy is not None, "labels were given"
        reference = import_model(done.model, {"image": ranges["image"]}).reference
        session = onnxruntime.InferenceSession(reference.SerializeToString())
        logits = np.concatenate([_first(session, image) for image in test["image"]])
        int8 = float(np.mean(logits.argmax(axis=1) == test["labels"]))
        shares = (report.kept / report.weights, report.stored / report.weights)
        shown = (*shares, accuracy.original, accuracy.uncompensated, accuracy.compressed, int8)
        print(*(f"{value:6.1%}" for value in shown), f"{seconds:5.1f}  {recipe}", flush=True)


def _first(session: onnxruntime.InferenceSession, image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The logits of one image [1, classes]; integers order like the reals they stand for."""
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image[None]})[0])


if __name__ == "__main__":
    main()
