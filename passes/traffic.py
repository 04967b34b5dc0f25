"""Traffic: the bytes that cores send each other for one image, and how far they travel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Send
from isa.operands import Region
from isa.program import DTYPES, Buffer, Loop, Program, Statement
from isa.target import Target

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Bytes per image between pairs of cores, both directions together, each pair once.

    cores: how many there are. first, second: places of the two in ``program.cores``,
    first < second. size: bytes. All int64 [pairs], sorted by the pair.
    """

    cores: int
    first: Int64
    second: Int64
    size: Int64

    def byte_hops(self, numbers: Int64, target: Target) -> int:
        """Bytes times hops of one image for cores with these numbers, hops as `Target.hops`."""
        y, x = np.divmod(numbers // target.hierarchy.concentration, target.hierarchy.mesh_width)
        across, down = x[self.first] - x[self.second], y[self.first] - y[self.second]
        return int((self.size * np.maximum(np.abs(across) + np.abs(down), 1)).sum())


def traffic(program: Program) -> Traffic:
    """The traffic of a program's streams; queues in global memory do not load the mesh."""
    place = {core.index: at for at, core in enumerate(program.cores)}
    sent = Counter[str]()
    for core in program.cores:
        _count(core.body, {buffer.name: buffer for buffer in core.buffers}, 1, sent)
    pairs = Counter[tuple[int, int]]()
    for channel in program.channels:
        ends = sorted((place[channel.source], place[channel.target]))
        if channel.address is not None and ends[0] != ends[1]:
            pairs[ends[0], ends[1]] += sent[channel.name]
    table = np.array([(*pair, size) for pair, size in sorted(pairs.items())], np.int64)
    first, second, size = table.reshape(-1, 3).T
    return Traffic(len(place), first, second, size)


def core_numbers(program: Program) -> Int64:
    """Number of each core, in the order of the text."""
    return np.array([core.index for core in program.cores], np.int64)


def _count(
    body: tuple[Statement, ...], buffers: Mapping[str, Buffer], times: int, sent: Counter[str]
) -> None:
    """Add the bytes that ``times`` executions of a stream send, by channel."""
    for statement in body:
        if isinstance(statement, Loop):
            trips = len(range(statement.start, statement.stop, statement.step))
            _count(statement.body, buffers, times * trips, sent)
        elif isinstance(statement, Send):
            sent[statement.channel] += times * _bytes(statement.source, buffers)


def _bytes(region: Region, buffers: Mapping[str, Buffer]) -> int:
    buffer = buffers[region.name]
    size = DTYPES[buffer.dtype].itemsize
    axes = (region.rows, region.columns, region.channels)
    for length, axis in zip(buffer.shape, axes, strict=True):
        size *= length if axis is None else axis.count
    return size
