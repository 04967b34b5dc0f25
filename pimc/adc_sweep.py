"""How many bits an ADC needs: without loss by proof, and for a given accuracy by measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isa.program import Program
from isa.target import Target
from pimc.data import Array, check_feeds, labels_of, ports, to_machine, to_onnx
from pimc.host import host_of
from pimc.intervals import wilson
from runtime.machine import Machine

BATCH = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Need:
    """What a layer can ask of its ADC. bits: that hold ``largest_sum``, so nothing saturates."""

    layer: str
    largest_sum: int
    bits: int


@dataclass(frozen=True)
class Step:
    """A width that was measured. right: samples whose largest output is the label, or without
    labels that of the proved width. saturated_share: of all conversions."""

    bits: int
    samples: int
    right: int
    saturated_share: float

    @property
    def accuracy(self) -> float:
        return self.right / self.samples

    def as_json(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "accuracy": self.accuracy,
            "interval_images": wilson(self.right, self.samples),
            "saturated_share": self.saturated_share,
        }


def proved_bits(program: Program) -> list[Need]:
    """Of each layer, the bits with which no conversion can saturate, whatever the inputs."""
    largest: dict[str, int] = {}
    for matrix in program.matrices():
        found = int(matrix.blocks.largest_sums().max(initial=0))
        largest[matrix.layer] = max(largest.get(matrix.layer, 0), found)
    return [Need(layer, found, max(1, found.bit_length())) for layer, found in largest.items()]


def sweep(
    program: Program,
    target: Target,
    feeds: Mapping[str, Array],
    progress: Progress = lambda done, total: None,
) -> list[Step]:
    """Accuracy at every width from the proved one down to 1 bit, the widest first.

    The ADC counts in steps of one and saturates. feeds: by ONNX input name; without ``labels``
    the answers of the proved width are what counts as right. Raises PimError R703.
    """
    samples = check_feeds(program, feeds)
    widest = max(need.bits for need in proved_bits(program))
    given = labels_of(program, feeds)
    labels = None if given is None else np.asarray(given).reshape(-1)
    steps: list[Step] = []
    for bits in range(widest, 0, -1):
        machine = Machine(program, with_adc_bits(target, bits), run_partition=host_of(program))
        answers, share = _answers(machine, feeds, samples)
        labels = answers if labels is None else labels
        steps.append(Step(bits, samples, int((answers == labels).sum()), share))
        progress(len(steps), widest)
    return steps


def fewest_bits(steps: list[Step], loss: float) -> int:
    """The narrowest width down to which no accuracy is more than ``loss`` below the widest's."""
    fewest = steps[0].bits
    for step in steps:
        if step.accuracy < steps[0].accuracy - loss:
            break
        fewest = step.bits
    return fewest


def with_adc_bits(target: Target, bits: int) -> Target:
    """The target with another width, which needs no price: nothing is charged here."""
    return target.model_copy(update={"adc": target.adc.model_copy(update={"bits": bits})})


def _answers(machine: Machine, feeds: Mapping[str, Array], samples: int) -> tuple[Array, float]:
    """The largest output of each sample, and the saturated share of the conversions."""
    inputs, output = ports(machine.program, "input"), ports(machine.program, "output")[0]
    tops, saturated, conversions = [], 0, 0
    for first in range(0, samples, BATCH):
        part = slice(first, first + BATCH)
        result = machine.run({t.name: to_machine(t, feeds[t.onnx_name][part]) for t in inputs})
        values = to_onnx(output, result.outputs[output.name])
        tops.append(values.reshape(len(values), -1).argmax(axis=1))
        total = result.counters.total()
        saturated, conversions = saturated + total.saturations, conversions + total.conversions
    return np.concatenate(tops), saturated / max(1, conversions)
