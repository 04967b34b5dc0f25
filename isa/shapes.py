"""Shapes: which input shapes of one model a folder has programs for, and what these share.

``shapes.json`` of such a folder, for two programs::

    {"shapes": [{"x": {"sample": [3, 224, 224], "batched": true}},
                {"x": {"sample": [3, 192, 192], "batched": true}}],
     "arrays_sha256": "..."}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import Program

MAX_RANK = 16


class InputShape(NamedTuple):
    """Shape of one input. sample: of one sample. batched: whether a batch axis stands before it."""

    sample: tuple[int, ...]
    batched: bool

    @property
    def full(self) -> tuple[int, ...]:
        """The shape in the model, at batch 1."""
        return (1, *self.sample) if self.batched else self.sample


@dataclass(frozen=True)
class Shape:
    """The input shapes that one program is made for, by ONNX name."""

    inputs: Mapping[str, InputShape]

    @classmethod
    def of(cls, program: Program) -> Shape:
        """The shapes of a program's inputs."""
        return cls(
            {
                tensor.onnx_name: InputShape(tensor.onnx_shape, tensor.batched)
                for tensor in program.tensors
                if tensor.role == "input"
            }
        )

    def __str__(self) -> str:
        """As `--input-shape` takes it: ``ids=1,16,mask=1,16``."""
        sizes = ((name, map(str, shape.full)) for name, shape in self.inputs.items())
        return ",".join(f"{name}={','.join(texts)}" for name, texts in sizes)

    def holds(self, samples: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether arrays of these shapes, [samples, ...] by name, are samples of this shape."""
        return all(samples.get(n, ())[1:] == s.sample and n in samples
                   for n, s in self.inputs.items())  # fmt: skip

    def answers(self, wanted: Mapping[str, Sequence[int]]) -> bool:
        """Whether it has the full shapes that are wanted; the size of a batch does not matter."""
        return all(
            name in self.inputs
            and len(sizes) == len(self.inputs[name].full)
            and tuple(sizes)[self.inputs[name].batched :] == self.inputs[name].sample
            for name, sizes in wanted.items()
        )


class Manifest(NamedTuple):
    """What ``shapes.json`` says. arrays_sha256: of the data file that the programs share."""

    shapes: tuple[Shape, ...]
    arrays_sha256: str

    def as_json(self) -> str:
        listed = [
            {name: {"sample": s.sample, "batched": s.batched} for name, s in shape.inputs.items()}
            for shape in self.shapes
        ]
        return json.dumps({"shapes": listed, "arrays_sha256": self.arrays_sha256}) + "\n"


def read_manifest(text: str, file: str) -> Manifest:
    """The manifest of a text. Raises PimError C513 for anything that `Manifest` never writes."""
    try:
        found = json.loads(text)
        shapes = tuple(Shape({n: _input(s) for n, s in each.items()}) for each in found["shapes"])
        digest = found["arrays_sha256"]
        if not isinstance(digest, str) or len(shapes) < 2:
            raise ValueError("fewer than two shapes, or no sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"`{file}` does not say which shapes there are: {error or 'too deep'}"
        hint = "compile the model again"
        raise PimError(Diagnostic("C513", message, Location(file), hint)) from error
    return Manifest(shapes, digest)


def _input(found: Any) -> InputShape:
    sample, batched = found["sample"], found["batched"]
    sizes = isinstance(sample, list) and all(type(size) is int and size > 0 for size in sample)
    if not sizes or len(sample) > MAX_RANK or not isinstance(batched, bool):
        raise ValueError(f"{str(sample)[:80]} is no shape")
    return InputShape(tuple(sample), batched)
