"""How near an imported model is to the float model: one measure for all tests of the frontend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from frontend.oracle import check_model, random_feeds, run_onnx
from numpy.typing import NDArray

from pimc.frontend.build import Imported


def sqnr_db(
    model: onnx.ModelProto, imported: Imported, feeds: Mapping[str, NDArray[Any]] | None = None
) -> float:
    """Power of the float model's output `y` over that of the reference's error, in decibels.

    feeds: by default three random images.
    """
    feeds = random_feeds(model, 3, 0) if feeds is None else dict(feeds)
    wanted = run_onnx(model, feeds)["y"]
    noise = run_onnx(imported.reference, feeds)["y"] - wanted
    return float(10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()))


def check_near(model: onnx.ModelProto, images: int = 3, least_db: float = 30) -> Imported:
    """On the chip, node by node what onnxruntime computes, and near the float model."""
    imported = check_model(model, images=images)
    assert not imported.on_host
    assert sqnr_db(model, imported, random_feeds(model, images, 0)) > least_db
    return imported
