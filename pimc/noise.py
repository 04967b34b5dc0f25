"""A program on devices with imperfections: accuracy with intervals, and what each layer suffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

import numpy as np

from isa.diagnostics import Diagnostic, PimError
from isa.program import Program
from isa.target import Target
from pimc.data import Array, check_feeds, labels_of, ports, to_machine, to_onnx
from pimc.host import host_of
from pimc.intervals import student, wilson
from runtime.analog_paths import program_device
from runtime.counters import Counters
from runtime.device import Device
from runtime.draws import key_of
from runtime.kernel import choose_kernel
from runtime.machine import Machine, RunResult
from runtime.observe import histograms

BATCH: Final = 64
CALIBRATION_SAMPLES: Final = 16  # whose sums set an ADC's range, where it is to be calibrated

Progress = Callable[[int, int], None]


@dataclass
class Gap:
    """Running difference of a tensor from the exact machine's, quantization steps (LSB)."""

    total: float = 0.0
    squares: float = 0.0
    largest: int = 0
    elements: int = 0

    def add(self, ours: Array, exact: Array) -> None:
        gap = ours.astype(np.int64) - exact.astype(np.int64)
        self.total += float(gap.sum())
        self.squares += float((gap * gap).sum())
        self.largest = max(self.largest, int(np.abs(gap).max(initial=0)))
        self.elements += gap.size

    def as_json(self) -> dict[str, float]:
        count = max(1, self.elements)
        rms = (self.squares / count) ** 0.5
        return {"mean_lsb": self.total / count, "rms_lsb": rms, "max_abs_lsb": self.largest}


@dataclass
class NoiseReport:
    """What trials on devices found; a trial is one device, drawn anew.

    right: of each trial, samples whose largest output is the label. same: whose largest output is
    that of the exact machine. gaps: by tensor. exact_right: of the exact machine.
    """

    samples: int
    right: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    exact_right: int = 0
    gaps: dict[str, Gap] = field(default_factory=dict)
    counters: Counters = field(default_factory=lambda: Counters(images=0))
    has_labels: bool = False

    def share(self, counts: list[int]) -> dict[str, Any]:
        """Mean over the trials; its interval over devices (t) and over images (Wilson)."""
        shares = [count / self.samples for count in counts]
        mean = fmean(shares)
        return {
            "mean": mean,
            "trials": shares,
            "interval_devices": _within_a_share(student(shares)),
            "interval_images": wilson(round(mean * self.samples), self.samples),
        }

    def as_json(self) -> dict[str, Any]:
        """The figures of `pimc verify --noise --json`."""
        report: dict[str, Any] = {
            "samples": self.samples,
            "trials": len(self.same),
            "exact_top1_agreement": self.share(self.same),
        }
        if self.has_labels:
            report["accuracy"] = self.share(self.right)
            report["exact_accuracy"] = self.exact_right / self.samples
        report["tensors"] = [{"name": n, **gap.as_json()} for n, gap in self.gaps.items()]
        report["layers"] = [
            {
                "name": name,
                "conversions": layer.conversions,
                "saturations": layer.saturations,
                "saturated_share": layer.saturations / layer.conversions,
            }
            for name, layer in self.counters.layers.items()
            if layer.conversions
        ]
        return report


def noise_report(
    program: Program,
    target: Target,
    feeds: Mapping[str, Array],
    trials: int = 1,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    batch: int = BATCH,
    jobs: int = 1,
) -> NoiseReport:
    """Run all samples on ``trials`` devices of ``target`` and compare with the exact machine.

    feeds: by ONNX input name; ``labels`` adds accuracies. Trial i is the device of seed
    ``trial_seed(seed, i)``, whatever the other trials are. The exact machine is that of the same
    ADC bits. jobs: processes that run the images; the report does not depend on it.
    Raises PimError R733 for an ideal device, R703, R73x.
    """
    if target.nonideal.is_ideal:
        message = f"the device of target `{target.name}` is ideal: nothing to simulate"
        hint = "add `--device programming.sigma=0.05`, or a `[nonideal]` section to the target"
        raise PimError(Diagnostic("R733", message, hint=hint))
    samples, has_labels = check_feeds(program, feeds), labels_of(program, feeds) is not None
    report = NoiseReport(samples, has_labels=has_labels)
    scales = full_scales(program, target, feeds)
    exact = Machine(program, target, run_partition=host_of(program))
    for trial in range(trials):
        device = Device(target, trial_seed(seed, trial), scales)
        machine = Machine(
            program,
            target,
            program_device(program, device, choose_kernel()),
            host_of(program),
        )
        right = same = report.exact_right = 0
        for first in range(0, report.samples, batch):
            part = {name: values[first : first + batch] for name, values in feeds.items()}
            ours, theirs = (_run(m, part, first, jobs) for m in (machine, exact))
            _compare(report, program, ours, theirs)
            tops = [_top(program, result) for result in (ours, theirs)]
            same += int((tops[0] == tops[1]).sum())
            labels = labels_of(program, part)
            if labels is not None:
                labels = labels.reshape(-1)
                right += int((tops[0] == labels).sum())
                report.exact_right += int((tops[1] == labels).sum())
            done = min(first + batch, report.samples)
            progress(trial * report.samples + done, trials * report.samples)
        report.right.append(right)
        report.same.append(same)
    return report


def _within_a_share(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (max(0.0, interval[0]), min(1.0, interval[1]))


def trial_seed(seed: int, trial: int) -> int:
    """The seed of one of several devices; trial 0 is the device of the seed itself."""
    return seed if trial == 0 else key_of(seed, "trial", trial) & 0x7FFFFFFF


def full_scales(
    program: Program, target: Target, feeds: Mapping[str, Array]
) -> dict[tuple[int, str], float]:
    """Largest sums by (core, matrix) on the first samples, where the range of the ADC asks."""
    transfer = target.nonideal.adc
    if transfer.range in ("unit", "proof"):
        return {}
    percentile = transfer.percentile if transfer.range == "percentile" else 100.0
    counting = histograms(program)
    few = {name: values[:CALIBRATION_SAMPLES] for name, values in feeds.items()}
    _run(Machine(program, target, counting, host_of(program)), few, 0)
    return {
        (core, name): histogram.full_scale(percentile)
        for core, matrices in counting.items()
        for name, histogram in matrices.items()
    }


def _run(machine: Machine, feeds: Mapping[str, Array], first: int, jobs: int = 1) -> RunResult:
    inputs = ports(machine.program, "input")
    given = {t.name: to_machine(t, feeds[t.onnx_name]) for t in inputs}
    return machine.run(given, trace=True, first_image=first, jobs=jobs)


def _compare(report: NoiseReport, program: Program, ours: RunResult, exact: RunResult) -> None:
    """Add one batch to the differences and counters of a report."""
    names = {tensor.name: tensor.onnx_name for tensor in program.tensors}
    wanted = exact.seen()
    for name, (values, shown) in ours.seen().items():
        report.gaps.setdefault(names[name], Gap()).add(values[shown], wanted[name][0][shown])
    report.counters.add(ours.counters)


def _top(program: Program, result: RunResult) -> Array:
    """Index of the largest value of the first output, of each image."""
    tensor = ports(program, "output")[0]
    values = to_onnx(tensor, result.outputs[tensor.name])
    top: Array = values.reshape(len(values), -1).argmax(axis=1)
    return top
