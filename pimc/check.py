"""The check: a program against onnxruntime on its reference model, and against the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from isa.program import Program, Tensor
from isa.target import Target
from pimc.data import LABELS, Array, check_feeds, ports, to_machine, to_onnx, to_real
from runtime.counters import Counters
from runtime.machine import Machine

BATCH_BYTES = 1 << 26  # of onnxruntime's inner tensors, which a batch keeps all at once
MAX_BATCH = 64


@dataclass
class Distance:
    """Running comparison of the program's outputs with another model's, as real numbers."""

    signal: float = 0.0
    noise: float = 0.0
    same_top1: int = 0
    rows: int = 0

    def add(self, ours: Array, theirs: Array) -> None:
        a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (ours, theirs))
        self.signal += float((b * b).sum())
        self.noise += float(((a - b) ** 2).sum())
        self.same_top1 += int((a.argmax(1) == b.argmax(1)).sum())
        self.rows += len(a)

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise, dB; None when there is no noise or no signal."""
        if not self.noise or not self.signal:
            return None
        return 10 * float(np.log10(self.signal / self.noise))


@dataclass
class Verification:
    """What a check found. layers: largest difference in quantization steps, by reference tensor."""

    samples: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    distance: Distance = field(default_factory=Distance)
    has_float: bool = False
    right: dict[str, int] = field(default_factory=dict)
    counters: Counters | None = None

    @property
    def max_abs_diff_lsb(self) -> int:
        return max([0, *self.layers.values(), *self.outputs.values()])

    def as_json(self) -> dict[str, Any]:
        """The document of `pimc verify --json`."""
        every = self.layers | self.outputs
        report: dict[str, Any] = {
            "equal": self.max_abs_diff_lsb == 0,
            "max_abs_diff_lsb": self.max_abs_diff_lsb,
            "samples": self.samples,
            "layers": [{"name": n, "max_abs_diff_lsb": d} for n, d in every.items()],
        }
        if self.has_float:
            report["float_top1_agreement"] = self.distance.same_top1 / self.distance.rows
            report["float_sqnr_db"] = self.distance.sqnr_db
        report |= {name: count / self.samples for name, count in self.right.items()}
        if self.counters is not None:
            report["counters"] = self.counters.as_json()
        return report


def verify_program(
    program: Program,
    target: Target,
    reference: onnx.ModelProto,
    float_model: onnx.ModelProto | None,
    feeds: Mapping[str, Array],
    per_layer: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Run the program and onnxruntime on the same samples and compare integer by integer.

    feeds: by ONNX input name; ``labels`` adds accuracies. per_layer: also compare every inner
    tensor that travels on a channel. Raises PimError R703 for feeds that do not fit.
    """
    samples = check_feeds(program, feeds)
    run = _Check(program, target, reference, float_model, per_layer)
    batch = run.batch_size(samples)
    for first in range(0, samples, batch):
        run.batch({name: values[first : first + batch] for name, values in feeds.items()})
        progress(min(first + batch, samples), samples)
    return run.found


class _Check:
    """The sessions and the machine of one verification."""

    def __init__(
        self,
        program: Program,
        target: Target,
        reference: onnx.ModelProto,
        float_model: onnx.ModelProto | None,
        per_layer: bool,
    ) -> None:
        self.program, self.per_layer = program, per_layer
        self.machine = Machine(program, target)
        self.compared = [
            tensor for tensor in program.tensors if tensor.role != "input" and self._wanted(tensor)
        ]
        sources = _integer_sources(reference)
        self.names = [sources.get(tensor.onnx_name, tensor.onnx_name) for tensor in self.compared]
        self.integers = session(_with_outputs(reference, self.names))
        self.float = session(float_model) if float_model is not None else None
        self.found = Verification(has_float=float_model is not None)

    def _wanted(self, tensor: Tensor) -> bool:
        return self.per_layer or tensor.role == "output"

    def batch_size(self, samples: int) -> int:
        """Samples at a time, so that memory stays flat."""
        per_image = sum(int(np.prod(tensor.shape)) for tensor in self.program.tensors)
        fitting = max(1, BATCH_BYTES // (4 * per_image))
        batched = all(tensor.batched for tensor in ports(self.program, "input"))
        return min(samples, fitting, MAX_BATCH) if batched else 1

    def batch(self, feeds: Mapping[str, Array]) -> None:
        inputs = ports(self.program, "input")
        machine_feeds = {t.name: to_machine(t, feeds[t.onnx_name]) for t in inputs}
        result = self.machine.run(machine_feeds, trace=self.per_layer)
        if self.found.counters is None:
            self.found.counters = result.counters
        onnx_feeds = {t.onnx_name: _for_onnx(t, feeds[t.onnx_name]) for t in inputs}
        expected = self.integers.run(self.names, onnx_feeds)
        for tensor, wanted in zip(self.compared, expected, strict=True):
            values = {**result.tensors, **result.outputs}.get(tensor.name)
            if values is not None:
                self._compare(tensor, to_onnx(tensor, values), wanted)
        self.found.samples += len(next(iter(feeds.values())))
        self._compare_real(feeds, onnx_feeds, result.outputs)

    def _compare(self, tensor: Tensor, ours: Array, theirs: Array) -> None:
        gap = np.abs(ours.astype(np.int32) - theirs.reshape(ours.shape).astype(np.int32))
        group = self.found.outputs if tensor.role == "output" else self.found.layers
        group[tensor.onnx_name] = max(group.get(tensor.onnx_name, 0), int(gap.max(initial=0)))

    def _compare_real(
        self,
        feeds: Mapping[str, Array],
        onnx_feeds: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        """Distance to the float model, and accuracies, on the first output."""
        first = ports(self.program, "output")[0]
        ours = to_real(first, to_onnx(first, outputs[first.name]))
        answers = {"accuracy": ours}
        if self.float is not None:
            theirs = self.float.run(None, dict(onnx_feeds))[0]
            self.found.distance.add(ours, np.asarray(theirs).reshape(ours.shape))
            answers["float_accuracy"] = theirs
        if LABELS in feeds:
            answers["reference_accuracy"] = self.integers.run([first.onnx_name], dict(onnx_feeds))[
                0
            ]
            for name, logits in answers.items():
                top = np.asarray(logits).reshape(len(ours), -1).argmax(1)
                right = int((top == feeds[LABELS]).sum())
                self.found.right[name] = self.found.right.get(name, 0) + right


def _for_onnx(tensor: Tensor, values: Array) -> Array:
    values = values.astype(np.float32) if tensor.scale is not None else values
    return values if tensor.batched else values[0]


def _integer_sources(model: onnx.ModelProto) -> dict[str, str]:
    """The integer tensor behind each output that a DequantizeLinear makes."""
    outputs = {output.name for output in model.graph.output}
    return {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs
    }


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy of a model that also returns the inner tensors ``names``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output}
    for name in names:
        if name not in known:
            copy.graph.output.append(helper.make_empty_tensor_value_info(name))
    return copy


def session(model: onnx.ModelProto) -> Any:
    """An onnxruntime session that rewrites nothing: the nodes as written are the definition."""
    import onnxruntime  # late: it takes a quarter of a second to load

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
