"""What an abstract run knows of a memory: which elements are defined, which rows a ring holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.operands import Affine, Env, Region, Span
from isa.printer import quoted
from isa.program import Buffer, Tensor

Index = Callable[[], int]


@dataclass(eq=False)
class Memory:
    """A buffer or an output tensor: which elements are defined.

    full: rows (slots) that are defined whole. resident: the row in each slot of a ring, -1 before
    the first. written: for rings with a fill value, elements that may hold something else; the
    others keep the fill value when a slot takes a new row.
    """

    name: str
    defined: NDArray[np.bool_]
    full: list[bool]
    resident: list[int] | None = None
    written: NDArray[np.bool_] | None = None
    fill: int | None = None

    def renew(self, slot: int) -> None:
        """A new row comes into a slot: what the old one wrote is gone."""
        if self.written is None:
            self.defined[slot] = False
        else:
            self.defined[slot] &= ~self.written[slot]
        self.full[slot] = False


class Access:
    """One region operand of one instruction, at the current values of the loop variables."""

    def __init__(
        self, memory: Memory, region: Region, env: Env, restores_fill: bool = False
    ) -> None:
        shape = memory.defined.shape
        spans = [
            Span(Affine(), size) if axis is None else axis
            for axis, size in zip(
                (region.rows, region.columns, region.channels), shape, strict=True
            )
        ]
        self.memory, self.region = memory, region
        self._rows, self._columns, self._channels = (span.count for span in spans)
        self.elements = self._rows * self._columns * self._channels
        self._row, self._column, self._channel = (_index(span.start, env) for span in spans)
        self._whole = (self._columns, self._channels) == shape[1:]
        self._depth = shape[0]
        self._restores_fill = restores_fill

    def _box(self, slot: int) -> tuple[int, slice, slice]:
        column, channel = self._column(), self._channel()
        return (
            slot,
            slice(column, column + self._columns),
            slice(channel, channel + self._channels),
        )

    def write(self) -> None:
        """The elements become defined; in a ring, rows take their slots."""
        memory, first = self.memory, self._row()
        resident, full = memory.resident, memory.full
        for row in range(first, first + self._rows):
            slot = row
            if resident is not None:
                slot = row % self._depth
                if resident[slot] != row:
                    resident[slot] = row
                    if not self._whole:
                        memory.renew(slot)
            if self._whole:
                if not full[slot] or memory.written is not None:
                    self._set(slot)
                full[slot] = True
            elif not full[slot]:
                self._set(slot)
                full[slot] = bool(memory.defined[slot].all())

    def _set(self, slot: int) -> None:
        box = self._box(slot)
        self.memory.defined[box] = True
        if self.memory.written is not None:
            self.memory.written[box] = not self._restores_fill

    def problem(self) -> tuple[str, str] | None:
        """(code, message) of the first row that cannot be read, None when all can."""
        memory, first = self.memory, self._row()
        resident, full = memory.resident, memory.full
        for row in range(first, first + self._rows):
            slot = row
            if resident is not None:
                slot = row % self._depth
                if resident[slot] != row:
                    found = self._stale(row, resident[slot])
                    if found is not None:
                        return found
            if not full[slot] and not memory.defined[self._box(slot)].all():
                return self._undefined(row, slot)
        return None

    def _stale(self, row: int, resident: int) -> tuple[str, str] | None:
        name = quoted(self.memory.name)
        if resident > row:
            message = f"row {row} of the ring {name} is gone: row {resident} stands in its slot"
            return "V419", message
        if resident >= 0:
            return "V418", f"row {row} of the ring {name} has not been written yet"
        return None  # nothing was ever written there: the fill value, or undefined

    def _undefined(self, row: int, slot: int) -> tuple[str, str]:
        box = self._box(slot)
        column, channel = (int(i) for i in np.argwhere(~self.memory.defined[box])[0])
        place = f"[{row}, {column + box[1].start}, {channel + box[2].start}]"
        return "V418", f"element {place} of {quoted(self.memory.name)} is read before it is written"

    def is_touched(self) -> bool:
        """Whether any element is defined already."""
        first = self._row()
        rows = slice(first, first + self._rows)
        return bool(self.memory.defined[(rows, *self._box(0)[1:])].any())


def _index(start: Affine, env: Env) -> Index:
    constant = start.constant
    if not start.terms:
        return lambda: constant
    if len(start.terms) == 1:
        ((name, factor),) = start.terms
        return lambda: constant + factor * env[name]
    return lambda: start.at(env)


def buffer_memory(buffer: Buffer) -> Memory:
    """A buffer before the first instruction."""
    rows = buffer.shape[0]
    is_filled = buffer.fill is not None
    return Memory(
        buffer.name,
        np.full(buffer.shape, is_filled),
        [is_filled] * rows,
        [-1] * rows if buffer.ring else None,
        np.zeros(buffer.shape, np.bool_) if buffer.ring and is_filled else None,
        buffer.fill,
    )


def tensor_memory(tensor: Tensor) -> Memory:
    """An output before the first `store`."""
    return Memory(tensor.name, np.zeros(tensor.shape, np.bool_), [False] * tensor.shape[0])
