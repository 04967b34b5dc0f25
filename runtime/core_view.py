"""One core as times and prices see it: sizes of operands, and what the target says about moving."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property

from isa.instruction import Instruction
from isa.operands import Region
from isa.program import (
    DTYPES,
    Buffer,
    Channel,
    Core,
    Matrix,
    Partition,
    Program,
    Shape,
    Table,
    Tensor,
)
from isa.target import Target
from isa.target_model import Event
from runtime.array_work import ArrayWork

_GRANULE = re.compile(r"(\d+) (bytes|bits)\b")


def granule_bits(event: Event) -> int:
    """Bits that one event moves, from its ``per`` text ("32 bytes"); 1 where it names none."""
    found = _GRANULE.match(event.per)
    if found is None:
        return 1
    return int(found[1]) * (8 if found[2] == "bytes" else 1)


def beats(bits: int, event: Event) -> int:
    """Events that ``bits`` bits take."""
    return -(-bits // granule_bits(event))


@dataclass(frozen=True)
class Catalogue:
    """The declarations of a program by name."""

    tensors: dict[str, Tensor]
    tables: dict[str, Table]
    channels: dict[str, Channel]
    partitions: dict[str, Partition] = field(default_factory=dict)

    @staticmethod
    def of(program: Program) -> Catalogue:
        return Catalogue(
            {tensor.name: tensor for tensor in program.tensors},
            {table.name: table for table in program.tables},
            {channel.name: channel for channel in program.channels},
            {partition.name: partition for partition in program.partitions},
        )


@dataclass(eq=False)
class CoreView:
    """A core, the declarations that its stream names, and the target."""

    core: Core
    catalogue: Catalogue
    target: Target
    _works: dict[str, ArrayWork] = field(default_factory=dict)

    @cached_property
    def boxes(self) -> dict[str, Tensor | Buffer]:
        """Everything a region can name."""
        return {**self.catalogue.tensors, **{buffer.name: buffer for buffer in self.core.buffers}}

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        return {matrix.name: matrix for matrix in self.core.matrices}

    @cached_property
    def outside(self) -> frozenset[str]:
        """The core's buffers that stand in global memory."""
        return frozenset(buffer.name for buffer in self.core.buffers if buffer.address is None)

    @property
    def layer(self) -> str:
        """What the core counts for, unless a matrix names its own layer."""
        return self.core.layer or f"core {self.core.index}"

    def layer_of(self, instruction: Instruction) -> str:
        """The layer that an instruction counts for."""
        matrix = self.matrices.get(getattr(instruction, "matrix", ""))
        return self.layer if matrix is None else matrix.layer

    def work(self, matrix: str) -> ArrayWork:
        """What the crossbars of a matrix do for one window; computed once."""
        if matrix not in self._works:
            self._works[matrix] = ArrayWork(self.matrices[matrix].blocks, self.target)
        return self._works[matrix]

    def shape(self, region: Region) -> Shape:
        """Rows, columns and channels of a region; no loop variable can change them."""
        rows, columns, channels = self.boxes[region.name].shape
        return (
            rows if region.rows is None else region.rows.count,
            columns if region.columns is None else region.columns.count,
            channels if region.channels is None else region.channels.count,
        )

    def elements(self, region: Region) -> int:
        return math.prod(self.shape(region))

    def itemsize(self, region: Region) -> int:
        """Bytes of one element."""
        return DTYPES[self.boxes[region.name].dtype].itemsize

    def bytes(self, region: Region) -> int:
        return self.elements(region) * self.itemsize(region)

    def partition_bytes(self, name: str) -> int:
        """Bytes that the host reads and writes for a partition."""
        partition = self.catalogue.partitions[name]
        names = (*partition.inputs, *partition.outputs)
        return sum(self.catalogue.tensors[tensor].bytes for tensor in names)

    def table_bits(self, name: str) -> int:
        return self.catalogue.tables[name].values.nbytes * 8

    def memory_beats(self, size: int) -> int:
        """Accesses of the core's memory for ``size`` bytes."""
        return beats(8 * size, self.target.events.memory_access)

    def bus_beats(self, size: int) -> int:
        """Transfers on the core's bus for ``size`` bytes."""
        return beats(8 * size, self.target.events.bus_transfer)

    def index_beats(self, bits: int) -> int:
        """Reads of the index memory for ``bits`` bits."""
        return beats(bits, self.target.events.index_read)

    def flits(self, size: int) -> int:
        """Flits of a message of ``size`` bytes."""
        return max(1, -(-8 * size // self.target.network.flit_bits))


def global_transfer_cycles(target: Target, size: int) -> int:
    """Cycles that ``size`` bytes keep one link of the global memory busy; at least one."""
    bytes_per_cycle = target.global_memory.bandwidth_gb_s / target.clock_ghz
    return max(1, math.ceil(size / bytes_per_cycle))


def global_latency_cycles(target: Target) -> int:
    """Cycles from a request to the global memory to its first byte."""
    return math.ceil(target.global_memory.latency_ns * target.clock_ghz)
