"""Binding: what an executor needs to turn an instruction into a ready-to-call action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, PimError
from isa.instruction import Instruction
from isa.operands import Region
from isa.program import Channel, Partition
from runtime.analog import Place
from runtime.analog_paths import AnalogCrossbars
from runtime.input_zeros import InputZeros
from runtime.observe import SumHistogram
from runtime.paths import Crossbars
from runtime.regions import Array, Box, Storage

Action = Callable[[], bool]  # False: the instruction must wait, and is to be called again
Programmed = Crossbars | AnalogCrossbars | SumHistogram | InputZeros
Kind = TypeVar("Kind", bound=Instruction)
Executor = Callable[["Binder", Any], Action]

EXECUTORS: dict[type[Instruction], Executor] = {}


def executes(
    *classes: type[Kind],
) -> Callable[[Callable[[Binder, Kind], Action]], Callable[[Binder, Kind], Action]]:
    """Register the executor of some instruction classes.

    An executor binds: it is called once per instruction of the text and run, resolves operands
    and returns the action that is called each time the instruction is executed.
    """

    def register(function: Callable[[Binder, Kind], Action]) -> Callable[[Binder, Kind], Action]:
        EXECUTORS.update(dict.fromkeys(classes, function))
        return function

    return register


@dataclass(eq=False)
class Queue:
    """The messages of one channel, for all images; each slot holds one message.

    slots: [depth, images, columns * channels of the largest message].
    """

    channel: Channel
    slots: Array
    sizes: list[int] = field(default_factory=list)  # elements of each waiting message, oldest first
    taken: int = 0
    sent: int = 0
    waiter: Any = None  # the stream that is to be woken after the next send or recv
    record: list[Array] | None = None  # copies of all messages, in a traced run

    def check(self, elements: int) -> None:
        """Raise PimError R712 unless the oldest message has ``elements`` elements per image."""
        if self.sizes[0] != elements:
            raise PimError(
                Diagnostic(
                    "R712",
                    f"channel `{self.channel.name}`: the receiver expects {elements} elements, "
                    f"message {self.taken} has {self.sizes[0]}",
                    hint="the region of `recv` must be as large as the region of its `send`",
                )
            )


@dataclass(eq=False)
class Progress:
    """Which image comes first in a lockstep batch, and how many windows each matrix has taken."""

    first_image: int = 0
    windows: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Binder:
    """The state of one core that its actions read and write.

    env: loop variables, live. wake: called with a queue after it changed. scratch: bytes that
    every action may use until it returns. saturations: per matrix, conversions that clipped.
    progress: counts what came before, for noise that must not depend on the batch.
    run_partition: runs a partition on the host; None when nobody does.
    """

    core: int
    images: int
    env: MutableMapping[str, int]
    storages: Mapping[str, Storage]
    matrices: Mapping[str, Programmed]
    tables: Mapping[str, Array]
    queues: Mapping[str, Queue]
    wake: Callable[[Queue], None]
    scratch: NDArray[np.uint8]
    saturations: dict[str, int]
    progress: Progress
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    run_partition: Callable[[str, Sequence[Array]], Sequence[Array]] | None = None

    def multiplier(self, matrix: str, windows: int) -> Callable[[Array, Array, int], int]:
        """The product with a matrix: inputs, output, index of the first image -> saturations."""
        crossbars = self.matrices[matrix]
        if not isinstance(crossbars, AnalogCrossbars | InputZeros):
            return lambda u, out, first: crossbars.multiply(u, out)
        done = self.progress

        def multiply(u: Array, out: Array, first: int) -> int:
            place = Place(done.first_image + first, done.windows.get(matrix, 0), windows)
            return crossbars.multiply(u, out, place)

        return multiply

    def box(self, region: Region) -> Box:
        """The operand ``region`` of the instruction that is being bound."""
        return Box(self.storages[region.name], region, self.env)
