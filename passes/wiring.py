"""Wiring: which channels carry which values between the cores of the stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

from isa.program import DTYPES, Partition, Tensor
from passes.draft import Feed, Link, Range
from passes.graph import CellNode, Graph, GroupNormNode, HostNode, Value
from passes.stages import Stage, Worker
from passes.tables import Names

TURN_SPARE = 2  # rows
MESSAGE_BYTES = 4096  # a longer row travels in pieces, so that queues stay small


Sent = tuple[str, Range, range | None]  # channel, its share of the channels, its rows


@dataclass(frozen=True)
class Wire:
    """A channel before its depth and address are known. carries: (tensor, start, stop) or None.

    rows: those it carries, None for all. spare: messages that it holds beyond the proof where
    there is room, so that copies which take turns wait for each other less.
    """

    name: str
    source: int
    target: int
    dtype: str
    shape: tuple[int, int]
    carries: tuple[str, int, int] | None
    rows: range | None = None
    spare: int = 0


@dataclass(frozen=True, eq=False)
class Outlet:
    """Where a worker's result goes: wires to other cores, and a global tensor for an output."""

    wires: tuple[Sent, ...]
    tensor: str | None

    def pitch(self, rows: int) -> int:
        """Steps after which the channels that rows go out on repeat, ``rows`` rows to a step."""
        steps = [held.step for _, _, held in self.wires if held is not None]
        return math.lcm(1, *(step // math.gcd(step, rows) for step in steps))


@dataclass(eq=False)
class Wiring:
    """All wires of a program, made from who computes and who needs which channels of what."""

    graph: Graph
    stages: tuple[Stage, ...]
    names: Names
    tensors: dict[str, Tensor] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)
    _makers: dict[str, tuple[Worker, ...]] = field(default_factory=dict)
    _outlets: dict[tuple[str, int], list[Sent]] = field(default_factory=dict)
    _lags: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        used = {name for node in self.graph.nodes for name in (*node.inputs, *node.results)}
        used |= {*self.graph.inputs, *self.graph.outputs}
        for name, value in self.graph.values.items():
            tensor = self._tensor(name, value)  # all of them, so that phases agree on the names
            if name in used:
                self.tensors[name] = tensor
        for stage in self.stages:
            makers = tuple(worker for worker in stage.workers if worker.is_last)
            self._makers[stage.output] = makers
            if isinstance(stage.head, CellNode):
                self._makers |= dict.fromkeys(stage.head.results, makers)
            elif isinstance(stage.head, HostNode):
                for name in stage.head.results:
                    whole = Worker(makers[0].core, (0, self.graph.values[name].shape[2]))
                    self._makers[name] = (whole,)
            self._lags[stage.output] = self.lag(stage) + self.own_lag(stage)

    def lag(self, stage: Stage) -> float:
        """By how much of an image the input of a stage lags behind, because of stages before it.

        As many rows as a stage has copies are at work at once, and all of a normalization over
        rows. Where two ways meet, the rows of the shorter one have to wait that long, and
        its queues have to hold them.
        """
        names = (*stage.head.inputs, *stage.side_inputs())
        return max((self._lags.get(name, 0.0) for name in names), default=0.0)

    def own_lag(self, stage: Stage) -> float:
        """What a stage adds to the lag."""
        if isinstance(stage.head, GroupNormNode):
            return 1.0  # it gives no row before it has the last one
        copies = stage.workers[0].turn[1]
        return (copies - 1) / self.graph.values[stage.head.output].shape[0]

    def _tensor(self, name: str, value: Value) -> Tensor:
        role = "inner"
        if name in self.graph.inputs:
            role = "input"
        elif name in self.graph.outputs:
            role = "output"
        return Tensor(
            role,
            self.names.fresh(name),
            value.dtype,
            value.shape,
            value.onnx_name if role == "inner" or name in self.graph.handed else name,
            value.onnx_shape,
            value.order,
            value.scale,
            value.zero,
            value.batched,
        )

    def host_tensor(self, value: Value) -> str:
        """A tensor in global memory that a partition sees as ``value``; returns its name."""
        held = self._tensor(value.name, value)
        name = self.names.fresh(f"{value.name}.host")
        self.tensors[name] = replace(held, role="host", name=name, onnx_name=value.onnx_name)
        return name

    def chunks(self, name: str) -> tuple[Range, ...]:
        """Column ranges of the messages that one row of a value travels in."""
        value = self.graph.values[name]
        _, columns, channels = value.shape
        return even_cuts(columns, MESSAGE_BYTES // (channels * DTYPES[value.dtype].itemsize))

    def feed(
        self,
        name: str,
        core: int,
        wanted: Range | None = None,
        rows: Sequence[range] | None = None,
        lag: float = 0.0,
    ) -> Feed:
        """Give core ``core`` channels ``wanted`` (all by default) of a value; makes the wires.

        rows: progressions that together are the rows it needs; None for all. lag: of what the
        core waits for, see `lag`.
        """
        value = self.graph.values[name]
        wanted = wanted or (0, value.shape[2])
        chunks = self.chunks(name)
        needed = None if rows is None else frozenset(chain.from_iterable(rows))
        if name in self.graph.inputs:
            tensor = self.tensors[name].name
            return Feed(value.shape, wanted, chunks, tensor=tensor, rows=needed)
        links = []
        for maker in self._makers[name]:
            low, high = max(wanted[0], maker.channels[0]), min(wanted[1], maker.channels[1])
            if low >= high:
                continue
            made = maker.rows(value.shape[0])
            for shared in [made] if rows is None else progressions(made, rows):
                whole = None if len(shared) == value.shape[0] else shared
                ahead = math.ceil(max(0.0, lag - self._lags.get(name, 0.0)) * len(shared))
                spare = (ahead + (0 if whole is None else TURN_SPARE)) * len(chunks)
                wire = self._wire(name, maker, core, (low, high), chunks, whole, spare)
                links.append(Link(wire.name, (low, high), whole))
        return Feed(value.shape, wanted, chunks, links=tuple(links), rows=needed)

    def _wire(
        self,
        name: str,
        maker: Worker,
        core: int,
        held: Range,
        chunks: tuple[Range, ...],
        rows: range | None,
        spare: int,
    ) -> Wire:
        value = self.graph.values[name]
        widest = max(last - first for first, last in chunks)
        wire = Wire(
            self.names.fresh(f"c{len(self.wires)}"),
            maker.core,
            core,
            value.dtype,
            (widest, held[1] - held[0]),
            (self.tensors[name].name, *held),
            rows,
            spare,
        )
        self.wires.append(wire)
        self._outlets.setdefault((name, maker.core), []).append((wire.name, held, rows))
        return wire

    def sums(self, source: Worker, target: Worker, columns: int) -> str:
        """A channel for the partial sums that one worker of a chain hands to the next."""
        shape = (columns, source.channels[1] - source.channels[0])
        name = self.names.fresh(f"c{len(self.wires)}")
        self.wires.append(Wire(name, source.core, target.core, "s32", shape, None))
        return name

    def outlet(self, name: str, worker: Worker) -> Outlet:
        """Where ``worker`` must deliver its channels of a value; call when all feeds are made."""
        is_output = name in self.graph.outputs
        wires = tuple(self._outlets.get((name, worker.core), ()))
        return Outlet(wires, self.tensors[name].name if is_output else None)


def progressions(made: range, needed: Sequence[range]) -> list[range]:
    """The rows that are made and needed, as few arithmetic progressions that share none.

    needed: progressions that may overlap, such as the rows under each line of a kernel.
    """
    found: list[range] = []
    taken: set[int] = set()
    whole = sorted(set(made) & set(chain.from_iterable(needed)))
    for rows in [whole, *(sorted(set(made) & set(one)) for one in needed)]:
        rest = [row for row in rows if row not in taken]
        steps = {b - a for a, b in pairwise(rest)}
        if rest and len(steps) <= 1:
            found.append(range(rest[0], rest[-1] + 1, steps.pop() if steps else made.step))
            taken.update(rest)
    found += [range(row, row + 1, made.step) for row in whole if row not in taken]
    return found


def even_cuts(total: int, widest: int) -> tuple[Range, ...]:
    """Cut 0..total into pieces of at most ``widest``: equal ones if a divisor is near enough."""
    count = -(-total // max(1, widest))
    for pieces in range(count, min(2 * count, total) + 1):
        if total % pieces == 0:
            count = pieces
            break
    size = -(-total // count)
    return tuple((low, min(low + size, total)) for low in range(0, total, size))
