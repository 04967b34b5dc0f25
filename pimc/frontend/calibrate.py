"""Calibrate: the range of every tensor that will be held in 8 bits, by onnxruntime's calibrators.

The calibrators see the float meaning of the net, batch 1, and only the tensors that are asked
for. Data goes through in chunks, so that memory does not grow with the number of samples.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx

from isa.diagnostics import Findings, Location
from pimc.frontend.export import float_model
from pimc.frontend.net import INT_NAMES, NUMBER_TYPES, Array, Net, Port, QParams
from pimc.frontend.regions import is_lookup
from pimc.frontend.session import SILENT, runtime_error

Method = Literal["minmax", "percentile", "entropy"]
METHODS: Final[tuple[Method, ...]] = ("minmax", "percentile", "entropy")
CHUNK = 8  # samples between two updates of the histograms; 431 MB instead of 2.1 GB on ResNet-18
RANDOM_SAMPLES = 16
RANDOM_ELEMENTS = 2**24  # of all random samples together, where one has not more


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value of each calibrated tensor, and how they were found."""

    limits: dict[str, tuple[float, float]]
    samples: int
    is_random: bool


class _Reader:
    """Hands one chunk of feeds to a calibrator, as its CalibrationDataReader."""

    def __init__(self, feeds: Iterable[dict[str, Array]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def calibrate(
    net: Net,
    tensors: Iterable[str],
    data: Mapping[str, Array] | None,
    method: Method = "minmax",
    seed: int = 0,
) -> Ranges:
    """Ranges of ``tensors`` over the samples of ``data``.

    data: an array [samples, ...] per input; None draws normal noise from ``seed``.
    Raises PimError F220 when the data does not fit the inputs, F222 when a range is not finite,
    and F240 when onnxruntime refuses the model.
    """
    wanted = list(dict.fromkeys(tensors))
    feeds, samples = feeds_of(net, data, seed)
    if not wanted:
        return Ranges({}, samples, data is None)
    with tempfile.TemporaryDirectory(prefix="pimc-") as folder:
        limits = _collect(net, wanted, feeds, method, Path(folder))
    findings = Findings()
    for name, (low, high) in limits.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            findings.error(
                "F222",
                f"tensor `{name}` ranges from {low} to {high} on the calibration data",
                Location(node=f"tensor `{name}`"),
                "the network overflows float32 on these samples: check their scale"
                if low > -np.inf
                else "minus infinity may only leave out elements of a softmax, and never all of "
                "a row; or the network overflows float32 on these samples: check their scale",
            )
    findings.raise_if_any()
    return Ranges(limits, samples, data is None)


def feeds_of(
    net: Net, data: Mapping[str, Array] | None, seed: int
) -> tuple[Iterator[dict[str, Array]], int]:
    """One feed (batch 1) after the other, and their number.

    data: an array [samples, ...] per input; None draws noise. Raises PimError F220.
    """
    shapes = {port.name: net.shapes[port.tensor] for port in net.inputs}
    samples = _random_samples(shapes) if data is None else _checked_samples(net, data, shapes)
    random = np.random.default_rng(seed)

    def sample(port: Port, at: int) -> Array:
        shape = shapes[port.name]
        if port.elem_type in NUMBER_TYPES:
            rows = _rows(net, port)
            numbers = random.integers(0, rows, shape) if data is None else data[port.name][at]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(port.elem_type)
            return np.asarray(numbers, dtype).reshape(shape)
        if port.elem_type not in INT_NAMES:
            drawn = random.normal(0, 1, shape) if data is None else data[port.name][at]
            return np.asarray(drawn, np.float32).reshape(shape)
        own = QParams(np.float32(1), 0, INT_NAMES[port.elem_type])
        held = net.qparams.get(port.tensor, own)
        low, high = held.limits
        integers = random.integers(low, high + 1, shape) if data is None else data[port.name][at]
        steps = np.asarray(integers, np.float32).reshape(shape) - np.float32(held.zero)
        return steps * held.scale

    return ({port.name: sample(port, at) for port in net.inputs} for at in range(samples)), samples


def _random_samples(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Fewer for huge inputs: one of them has numbers enough to make a range of."""
    elements = sum(math.prod(shape) for shape in shapes.values())
    return max(1, min(RANDOM_SAMPLES, RANDOM_ELEMENTS // max(1, elements)))


def _rows(net: Net, port: Port) -> int:
    """Rows of the smallest constant that numbers pick from; 2 where the host has them alone."""
    tables = [op.inputs[0] for op in net.ops if port.tensor in op.inputs and is_lookup(net, op)]
    return min((net.shapes[name][0] for name in tables), default=2)


def _checked_samples(
    net: Net, data: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    findings = Findings()
    counts = set()
    for port in net.inputs:
        if port.name not in data:
            findings.error(
                "F220",
                f"the calibration data has no array `{port.name}`",
                Location(node=f"input `{port.name}`"),
                f"it has {', '.join(f'`{name}`' for name in data) or 'none at all'}",
            )
            continue
        array, shape = np.asarray(data[port.name]), shapes[port.name]
        counts.add(len(array) if array.ndim else 0)
        sample = shape[1:] if port.tensor in net.batched else shape
        if array.ndim == 0 or array.shape[1:] != sample:
            findings.error(
                "F220",
                f"calibration array `{port.name}` has shape {list(array.shape)}; expected "
                f"[samples, {', '.join(map(str, sample))}]",
                Location(node=f"input `{port.name}`"),
            )
        elif array.dtype.kind not in "fiub":
            findings.error("F220", f"calibration array `{port.name}` holds {array.dtype} values")
    if len(counts) > 1:
        findings.error("F220", f"the calibration arrays differ in length: {sorted(counts)}")
    if counts == {0}:
        findings.error("F220", "the calibration data has no samples")
    findings.raise_if_any()
    return counts.pop()


def _collect(
    net: Net, wanted: list[str], feeds: Iterator[dict[str, Array]], method: Method, folder: Path
) -> dict[str, tuple[float, float]]:
    source = folder / "float.onnx"
    onnx.save(float_model(net), source)
    calibrator = _calibrator(method, source, wanted, folder / "augmented.onnx")
    chatter = io.StringIO()  # the histogram calibrators print to stdout, which carries results
    with contextlib.redirect_stdout(chatter):
        try:
            calibrator.augment_graph()
            calibrator.create_inference_session()
            while chunk := [feed for _, feed in zip(range(CHUNK), feeds, strict=False)]:
                calibrator.collect_data(_Reader(chunk))
            found = calibrator.compute_data().data
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            raise runtime_error("cannot run the float model", error) from error
    return {name: _limits(found[name]) for name in wanted}


def _limits(found: Any) -> tuple[float, float]:
    low, high = found.range_value[:2]
    return float(np.min(low)), float(np.max(high))


def _calibrator(method: Method, source: Path, wanted: list[str], target: Path) -> Any:
    """A calibrator of onnxruntime (imported late) that watches just the wanted tensors."""
    import onnxruntime
    from onnxruntime.quantization import calibrate as ort_calibrate

    onnxruntime.set_default_logger_severity(SILENT)  # the calibrators open their own sessions

    base, options = {
        "minmax": (ort_calibrate.MinMaxCalibrater, {}),
        "percentile": (ort_calibrate.PercentileCalibrater, {"symmetric": False}),
        "entropy": (ort_calibrate.EntropyCalibrater, {}),
    }[method]

    class Chosen(base):  # type: ignore[valid-type,misc]
        """The calibrators choose tensors by operator; pimc knows which ones it needs."""

        def select_tensors_to_calibrate(
            self, model: onnx.ModelProto
        ) -> tuple[set[str], dict[str, onnx.ValueInfoProto]]:
            _, infos = super().select_tensors_to_calibrate(model)
            return set(wanted), infos

    return Chosen(source, augmented_model_path=str(target), **options)
