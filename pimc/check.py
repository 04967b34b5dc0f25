"""The check: a program against onnxruntime on its reference model, and against the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import onnx

from isa.diagnostics import PimError
from isa.phases import Phases
from isa.program import Program, Tensor
from isa.target import Target
from pimc.data import Array, check_feeds, labels_of, ports, to_machine, to_onnx, to_real
from pimc.frontend.precision import in_float32
from pimc.host import host_of
from pimc.oracle import Oracle, integer_sources, with_outputs
from runtime.counters import Counters
from runtime.machine import Machine
from runtime.phased import PhasedMachine, machine_of

BATCH_BYTES = 1 << 26  # of onnxruntime's inner tensors, which a batch keeps all at once
MAX_BATCH = 64
FLOAT_TOLERANCE = 1e-5  # relative; onnxruntime may sum in another order for another batch
Answers = dict[int, dict[str, Array]]


@dataclass
class Distance:
    """Running comparison of an output of the program with the float model's, as real numbers."""

    signal: float = 0.0
    noise: float = 0.0
    same_top1: int = 0
    samples: int = 0
    classes: int = 0  # elements of the output
    gap: float = 0.0  # largest difference of an element
    peak: float = 0.0  # largest magnitude of the float model's

    def add(self, ours: Array, theirs: Array) -> None:
        a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (ours, theirs))
        self.signal += float((b * b).sum())
        self.noise += float(((a - b) ** 2).sum())
        self.same_top1 += int((a.argmax(1) == b.argmax(1)).sum())
        self.samples += len(a)
        self.classes = a.shape[1]
        self.gap = max(self.gap, float(np.abs(a - b).max(initial=0.0)))
        self.peak = max(self.peak, float(np.abs(b).max(initial=0.0)))

    @property
    def top1_agreement(self) -> float | None:
        """Share of samples with the same largest element; None where there is but one element."""
        return self.same_top1 / self.samples if self.classes > 1 else None

    @property
    def max_relative_diff(self) -> float | None:
        """Largest difference over the largest magnitude; None where either is no finite number."""
        found = self.gap / (self.peak or 1.0)
        return found if np.isfinite(found) else None

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise, dB; None where either is 0 or overflows."""
        if not (0 < self.noise < np.inf and 0 < self.signal < np.inf):
            return None
        return 10 * float(np.log10(self.signal) - np.log10(self.noise))


@dataclass
class Verification:
    """What a check found.

    layers, outputs: largest difference in quantization steps (LSB), by name in the reference.
    floats: of tensors that nothing quantized, the largest difference over the largest magnitude.
    distances: to the float model, by output. right: samples whose largest output is the label.
    """

    samples: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    distances: dict[str, Distance] = field(default_factory=dict)
    right: dict[str, int] = field(default_factory=dict)
    floats: dict[str, float] = field(default_factory=dict)
    counters: Counters | None = None
    float_error: str | None = None  # why onnxruntime could not run the float model

    @property
    def max_abs_diff_lsb(self) -> int:
        return max([0, *self.layers.values(), *self.outputs.values()])

    @property
    def is_equal(self) -> bool:
        """Whether every integer is the same, and every float within `FLOAT_TOLERANCE`."""
        return self.max_abs_diff_lsb == 0 and all(
            d <= FLOAT_TOLERANCE for d in self.floats.values()
        )

    @property
    def accuracy(self) -> float | None:
        """Share of samples that the program gives their label; None without labels."""
        return self.right["accuracy"] / self.samples if "accuracy" in self.right else None

    def as_json(self) -> dict[str, Any]:
        """The figures of `pimc verify --json`; those of the float model are of the first output."""
        every = self.layers | self.outputs
        report: dict[str, Any] = {
            "equal": self.is_equal,
            "max_abs_diff_lsb": self.max_abs_diff_lsb,
            "samples": self.samples,
            "layers": [{"name": n, "max_abs_diff_lsb": d} for n, d in every.items()],
        }
        if self.floats:
            report["float_layers"] = [
                {"name": n, "max_relative_diff": d} for n, d in self.floats.items()
            ]
        if self.distances:
            first = next(iter(self.distances.values()))
            report["float_top1_agreement"] = first.top1_agreement
            report["float_sqnr_db"] = first.sqnr_db
            report["float_outputs"] = [
                {
                    "name": name,
                    "top1_agreement": found.top1_agreement,
                    "sqnr_db": found.sqnr_db,
                    "max_relative_diff": found.max_relative_diff,
                }
                for name, found in self.distances.items()
            ]
        if self.float_error is not None:
            report["float_error"] = self.float_error
        report |= {name: count / self.samples for name, count in self.right.items()}
        if self.counters is not None:
            report["counters"] = self.counters.as_json()
        return report


def verify_program(
    whole: Program | Phases,
    target: Target,
    reference: onnx.ModelProto,
    float_model: onnx.ModelProto | None,
    feeds: Mapping[str, Array],
    per_layer: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    answers: Answers | None = None,
    jobs: int = 1,
) -> Verification:
    """Run the program and onnxruntime on the same samples and compare integer by integer.

    feeds: by ONNX input name; ``labels`` adds accuracies. per_layer: also compare every inner
    tensor that travels on a channel. answers: onnxruntime's, by first sample of a batch; kept and
    used again where several programs of one reference are run on the same samples. jobs: processes
    that run the program; the result does not depend on it.
    Raises PimError R703 for feeds that do not fit, F240 when onnxruntime cannot run a model.
    """
    program = whole if isinstance(whole, Program) else whole.interface
    samples = check_feeds(program, feeds)
    machine = machine_of(whole, target, host_of(whole))
    run = _Check(program, machine, reference, float_model, per_layer, answers, jobs)
    batch = run.batch_size(samples)
    for first in range(0, samples, batch):
        run.batch({name: values[first : first + batch] for name, values in feeds.items()})
        progress(min(first + batch, samples), samples)
    return run.found


class _Check:
    """The models and the machine of one verification."""

    def __init__(
        self,
        program: Program,
        machine: Machine | PhasedMachine,
        reference: onnx.ModelProto,
        float_model: onnx.ModelProto | None,
        per_layer: bool,
        answers: Answers | None,
        jobs: int,
    ) -> None:
        self.program, self.per_layer, self.jobs = program, per_layer, jobs
        self.answers = answers
        self.machine = machine
        roles = ("inner", "output") if per_layer else ("output",)
        self.compared = [tensor for tensor in program.tensors if tensor.role in roles]
        sources = integer_sources(reference)
        self.names = [
            t.onnx_name if t.dtype == "f32" else sources.get(t.onnx_name, t.onnx_name)
            for t in self.compared
        ]
        batched = {tensor.onnx_name: tensor.batched for tensor in ports(program, "input")}
        is_single = not all(tensor.batched for tensor in self.compared)
        is_single |= bool(program.partitions)  # the host runs image by image
        self.reference = cache(
            lambda: Oracle(with_outputs(reference, self.names), batched, is_single)
        )
        self.found = Verification()
        self._open = partial(Oracle, batched=batched, is_single=is_single)
        self.float: Oracle | None = None
        self._float_model = float_model
        if float_model is not None:
            try:
                self.float = self._open(float_model)
            except PimError as error:  # the program is checked all the same
                self._float_failed(error)

    def _float_failed(self, error: PimError) -> None:
        """Go on without the float model; one of other floats is read as float32, too."""
        self.float, said = None, error.diagnostics[0].message
        assert self._float_model is not None
        twin, widths = in_float32(self._float_model)
        if widths and self.found.float_error is None:
            said = (
                f"onnxruntime cannot run it in {' and '.join(widths)}, so that is float32: {said}"
            )
            with suppress(PimError):
                self.float = self._open(twin)
        self.found.float_error = said

    def batch_size(self, samples: int) -> int:
        """Samples at a time, so that memory stays flat."""
        per_image = sum(int(np.prod(tensor.shape)) for tensor in self.program.tensors)
        return min(samples, MAX_BATCH, max(1, BATCH_BYTES // (4 * per_image)))

    def batch(self, feeds: Mapping[str, Array]) -> None:
        """Run and compare one batch of samples."""
        inputs = ports(self.program, "input")
        machine_feeds = {t.name: to_machine(t, feeds[t.onnx_name]) for t in inputs}
        result = self.machine.run(machine_feeds, trace=self.per_layer, jobs=self.jobs)
        self._count(result.counters)
        onnx_feeds = {t.onnx_name: _for_onnx(t, feeds[t.onnx_name]) for t in inputs}
        expected = self._expected(onnx_feeds)
        seen = result.seen()
        outputs = {}
        for tensor, wanted in zip(self.compared, expected, strict=True):
            if tensor.name in seen:  # an inner tensor that a core keeps to itself is not
                ours, shown = (to_onnx(tensor, array) for array in seen[tensor.name])
                theirs = np.where(shown, wanted.reshape(ours.shape), ours)
                self._compare(tensor, ours, theirs)
                if tensor.role == "output":
                    outputs[tensor.onnx_name] = (to_real(tensor, ours), to_real(tensor, theirs))
        self.found.samples += len(next(iter(machine_feeds.values())))
        self._compare_real(labels_of(self.program, feeds), onnx_feeds, outputs)

    def _expected(self, onnx_feeds: Mapping[str, Array]) -> list[Array]:
        """The reference's tensors of the next batch, from ``answers`` where they are known."""
        known = None if self.answers is None else self.answers.get(self.found.samples)
        if known is None or not known.keys() >= set(self.names):
            given = self.reference().run(self.names, onnx_feeds)
            known = dict(zip(self.names, given, strict=True))
            if self.answers is not None:
                self.answers[self.found.samples] = known
        return [known[name] for name in self.names]

    def _count(self, counters: Counters) -> None:
        """Add the events of one batch."""
        self.found.counters = self.found.counters or Counters(images=0)
        self.found.counters.add(counters)

    def _compare(self, tensor: Tensor, ours: Array, theirs: Array) -> None:
        if tensor.dtype == "f32":
            self._compare_floats(tensor, ours, theirs)
            return
        gap = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
        group = self.found.outputs if tensor.role == "output" else self.found.layers
        group[tensor.onnx_name] = max(group.get(tensor.onnx_name, 0), int(gap.max(initial=0)))

    def _float_answers(
        self, outputs: Mapping[str, tuple[Array, Array]], onnx_feeds: Mapping[str, Array]
    ) -> list[Array] | None:
        """The float model's outputs; None without one, or where onnxruntime cannot run it."""
        if self.float is None:
            return None
        try:
            found = self.float.run(list(outputs), onnx_feeds)
        except PimError as error:
            self._float_failed(error)
            return self._float_answers(outputs, onnx_feeds)
        for (name, (ours, _)), theirs in zip(outputs.items(), found, strict=True):
            if theirs.size != ours.size:
                shapes = f"{list(theirs.shape)}, the program {list(ours.shape)}"
                text = f"the float model gives output `{name}` the shape {shapes}"
                self.float, self.found.float_error = None, text
                return None
        return found

    def _compare_floats(self, tensor: Tensor, ours: Array, theirs: Array) -> None:
        """Values that the host made and nothing quantized: equal up to float32 rounding."""
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)) or 1.0
        gaps = np.abs(ours[~same].astype(np.float64) - theirs[~same])
        gap = float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0)) / scale
        known = self.found.floats.get(tensor.onnx_name, 0.0)
        self.found.floats[tensor.onnx_name] = max(known, gap)

    def _compare_real(
        self,
        labels: Array | None,
        onnx_feeds: Mapping[str, Array],
        outputs: Mapping[str, tuple[Array, Array]],
    ) -> None:
        """Distance of every output to the float model; accuracies of the first output.

        outputs: by name, the program's and the reference's values.
        """
        first = next(iter(outputs))
        answers = dict(zip(("accuracy", "reference_accuracy"), outputs[first], strict=True))
        given = self._float_answers(outputs, onnx_feeds)
        if given is not None:
            for (name, (ours, _)), theirs in zip(outputs.items(), given, strict=True):
                distance = self.found.distances.setdefault(name, Distance())
                distance.add(ours, theirs.reshape(ours.shape))
            answers["float_accuracy"] = given[0]
        if labels is not None:
            for name, values in answers.items():
                top = values.reshape(len(labels), -1).argmax(1)
                right = int((top == labels.reshape(-1)).sum())
                self.found.right[name] = self.found.right.get(name, 0) + right


def _for_onnx(tensor: Tensor, values: Array) -> Array:
    is_real = tensor.scale is not None or tensor.dtype == "f32"
    return values.astype(np.float32) if is_real else values
