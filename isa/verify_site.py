"""One instruction in its loops: its operands resolved, with bounds checked, for the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Load, Store
from isa.instruction import Instruction
from isa.operands import Affine, Region, Span
from isa.printer import name_text, quoted, region_text
from isa.program import DTYPES, Buffer, Channel, Matrix, Partition, Shape, Tensor
from isa.verify_scope import Scope, known_hint

T = TypeVar("T")
AXES = ("row", "column", "channel")


@dataclass(frozen=True)
class Operand:
    """A region operand that is declared: where it lies, its type and its sizes."""

    region: Region
    holder: Buffer | Tensor
    shape: Shape

    @property
    def dtype(self) -> str:
        """Its element type."""
        return self.holder.dtype

    @property
    def elements(self) -> int:
        """How many elements it has."""
        rows, columns, channels = self.shape
        return rows * columns * channels

    @property
    def text(self) -> str:
        """The region as it stands in the text."""
        return region_text(self.region)

    def sizes(self) -> str:
        """Type and shape, for messages."""
        return f"{self.dtype}{list(self.shape)}"


@dataclass
class Site:
    """An instruction of a core; ``variables``: values of the loop variables around it."""

    scope: Scope
    core: int
    ordinal: int
    instruction: Instruction
    variables: Mapping[str, range]
    operands: dict[str, Operand] = field(default_factory=dict)

    def error(
        self, code: str, message: str, needle: str | None = None, hint: str | None = None
    ) -> None:
        """Note an error at this instruction, the caret under ``needle``."""
        at = self.scope.at_instruction(self.core, self.ordinal, self.instruction, needle)
        text = f"`{self.instruction.mnemonic}`: {message}"
        self.scope.findings.error(code, text, at, hint)

    def region(self, name: str) -> Operand | None:
        """The region operand ``name``, or None when it has been refused."""
        return self.operands.get(name)

    def regions(self, *names: str) -> tuple[Operand, ...] | None:
        """Several region operands; None when any has been refused."""
        found = tuple(self.operands[name] for name in names if name in self.operands)
        return found if len(found) == len(names) else None

    def resolve(self) -> None:
        """Find all region operands, noting those that are undeclared or out of bounds."""
        cls = type(self.instruction)
        for name in dict.fromkeys((*cls.reads, *cls.writes)):
            region: Region = getattr(self.instruction, name)
            holder = self._holder(name, region)
            if holder is not None:
                shape = self._check_bounds(region, holder)
                if shape is not None:
                    self.operands[name] = Operand(region, holder, shape)

    def _holder(self, name: str, region: Region) -> Buffer | Tensor | None:
        """What a region lies in: a tensor for the far side of load and store, else a buffer."""
        role = {(Load, "source"): "input", (Store, "into"): "output"}.get(
            (type(self.instruction), name)
        )
        roles = () if role is None else (role, "host")
        buffers, tensors = self.scope.buffers[self.core], self.scope.tensors
        if role is None and region.name in buffers:
            return buffers[region.name]
        tensor = tensors.get(region.name)
        if role is not None and tensor is not None and tensor.role in roles:
            return tensor
        if tensor is not None and tensor.role != "inner":
            what = {"input": "read by `load`", "output": "written by `store`"}.get(
                tensor.role, "read by `load`, written by `store`"
            )
            message = f"{quoted(region.name)} is of role {tensor.role}, only {what}"
            self.error("V421", message, name_text(region.name))
            return None
        what = "buffer" if role is None else f"{role} of the program"
        where = f" in core {self.core}" if role is None else ""
        known = buffers if role is None else [t.name for t in tensors.values() if t.role in roles]
        hint = known_hint(region.name, known, f"{what.split()[0]}s")
        message = f"{quoted(region.name)} is no {what}{where}"
        self.error("V401", message, name_text(region.name), hint)
        return None

    def _check_bounds(self, region: Region, holder: Buffer | Tensor) -> Shape | None:
        """Sizes of a region, None after noting that it leaves its buffer or has a free variable."""
        ring = isinstance(holder, Buffer) and holder.ring
        counts = []
        sound = True
        axes = (region.rows, region.columns, region.channels)
        for index, (axis, size) in enumerate(zip(axes, holder.shape, strict=True)):
            span = Span(Affine(), size) if axis is None else axis
            counts.append(span.count)
            unknown = [name for name, _ in span.start.terms if name not in self.variables]
            for name in unknown:
                hint = known_hint(name, self.variables, "loop variables")
                message = f"{quoted(name)} is no variable of a loop around it"
                self.error("V401", message, region_text(region), hint)
            if unknown:
                sound = False
            elif not self._is_inside(span, size, ring and index == 0):
                low, high = self._reach(span.start)
                shown = f"{low}..{low + span.count}"
                if high != low:
                    shown += f" to {high}..{high + span.count}"
                held = f"the {size} {AXES[index]}s" if not (ring and index == 0) else (
                    f"the ring of {size} rows"
                )  # fmt: skip
                message = f"{AXES[index]}s {shown} are outside {held} of {quoted(region.name)}"
                self.error("V405", message, region_text(region))
                sound = False
        return (counts[0], counts[1], counts[2]) if sound else None

    def _is_inside(self, span: Span, size: int, ring: bool) -> bool:
        if not 1 <= span.count <= size:
            return False
        low, high = self._reach(span.start)
        return low >= 0 and (ring or high + span.count <= size)

    def _reach(self, start: Affine) -> tuple[int, int]:
        """Smallest and largest value of an index: the loops are independent, both are reached."""
        low = high = start.constant
        for name, factor in start.terms:
            values = self.variables[name]
            ends = sorted((factor * values[0], factor * values[-1]))
            low, high = low + ends[0], high + ends[1]
        return low, high

    def matrix(self, name: str) -> Matrix | None:
        """A matrix of this core, None after noting that there is none of that name."""
        return self._named(name, self.scope.matrices[self.core], "matrix", "matrices")

    def table(self, name: str, dtype: str) -> NDArray[np.generic] | None:
        """The values of a table, None after noting that it is undeclared or of another type."""
        table = self._named(name, self.scope.tables, "table", "tables")
        if table is None:
            return None
        if table.dtype != dtype or table.values.dtype != DTYPES[dtype]:
            message = f"table {quoted(name)} is {table.dtype}, expected {dtype}"
            self.error("V403", message, name_text(name))
            return None
        return table.values

    def channel(self, name: str) -> Channel | None:
        """A channel, None after noting that there is none of that name."""
        return self._named(name, self.scope.channels, "channel", "channels")

    def partition(self, name: str) -> Partition | None:
        """A partition, None after noting that there is none of that name."""
        return self._named(name, self.scope.partitions, "partition", "partitions")

    def _named(self, name: str, known: Mapping[str, T], kind: str, kinds: str) -> T | None:
        found = known.get(name)
        if found is None:
            where = f" of core {self.core}" if kind == "matrix" else ""
            hint = known_hint(name, known, kinds)
            self.error("V401", f"{quoted(name)} is no {kind}{where}", name_text(name), hint)
        return found
