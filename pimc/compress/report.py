"""Report: what lossy compression kept of each layer, and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    weights: of the original layer. kept: positions that may hold a weight now. stored: those of
    them that are not a translated copy. errors: RMS of the output error over RMS of the original
    network's output, on the calibration inputs as the compressed earlier layers give them;
    ``error_before`` with the weights just masked or translated, ``error_after`` compensated. None
    where nothing was measured, because neither the layer nor its inputs changed.
    """

    name: str
    op_type: str
    treatment: str
    weights: int
    kept: int
    stored: int
    error_before: float | None
    error_after: float | None


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy, 0..1, on ``images`` labelled images: of the original network, of the
    compressed one without compensation, and of the one that is returned.
    """

    images: int
    original: float
    uncompensated: float
    compressed: float


@dataclass(frozen=True)
class CompressionReport:
    """All layers, and accuracy when labels were given. channels_removed: by channel pruning."""

    specs: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    calibration_images: int
    channels_removed: int = 0
    accuracy: Accuracy | None = None

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def stored(self) -> int:
        return sum(layer.stored for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, sums included."""
        sums = {"weights": self.weights, "kept": self.kept, "stored": self.stored}
        return {**asdict(self), **sums}

    def as_text(self) -> str:
        """A table with a line per layer and the sums below."""
        width = max([5, *(len(layer.name) for layer in self.layers)])
        lines = [
            f"{'layer':{width}}  {'what':22} {'kept':>13} {'stored':>7} {'error':>7} {'after':>7}"
        ]
        for layer in self.layers:
            share = f"{layer.kept}/{layer.weights}"
            lines.append(
                f"{layer.name:{width}}  {layer.treatment:22} {share:>13} {layer.stored:>7} "
                f"{_percent(layer.error_before):>7} {_percent(layer.error_after):>7}"
            )
        share = f"{self.kept / max(1, self.weights):.1%} of {self.weights} weights kept"
        lines.append(f"{share}, {self.stored} stored")
        if self.accuracy is not None:
            known = self.accuracy
            lines.append(
                f"accuracy on {known.images} images: {known.original:.1%} before, "
                f"{known.uncompensated:.1%} compressed, {known.compressed:.1%} compensated"
            )
        return "\n".join(lines)


def top1(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of images whose largest output is the label. outputs: [images, ..., classes]."""
    flat = outputs.reshape(len(labels), -1)
    return float(np.mean(flat.argmax(axis=1) == labels.reshape(-1)))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
