"""Wiring: which channels carry which values between the cores of the stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from isa.program import Tensor
from passes.draft import Feed, Link, Range
from passes.graph import Graph, Value
from passes.stages import Stage, Worker
from passes.tables import Names

MESSAGE_BYTES = 4096  # a longer row travels in pieces, so that queues stay small


@dataclass(frozen=True)
class Wire:
    """A channel before its depth and address are known. carries: (tensor, start, stop) or None."""

    name: str
    source: int
    target: int
    dtype: str
    shape: tuple[int, int]
    carries: tuple[str, int, int] | None


@dataclass(frozen=True, eq=False)
class Outlet:
    """Where a worker's result goes: wires to other cores, and a global tensor for an output."""

    wires: tuple[tuple[str, Range], ...]  # channel, its share of the worker's channels
    tensor: str | None


@dataclass(eq=False)
class Wiring:
    """All wires of a program, made from who computes and who needs which channels of what."""

    graph: Graph
    stages: tuple[Stage, ...]
    names: Names
    tensors: dict[str, Tensor] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    _makers: dict[str, tuple[Worker, ...]] = field(default_factory=dict)
    _outlets: dict[tuple[str, int], list[tuple[str, Range]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        used = {name for node in self.graph.nodes for name in (*node.inputs, node.output)}
        for name, value in self.graph.values.items():
            tensor = self._tensor(name, value)  # all of them, so that phases agree on the names
            if name in used:
                self.tensors[name] = tensor
        for stage in self.stages:
            makers = tuple(worker for worker in stage.workers if worker.is_last)
            self._makers[stage.output] = makers

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

    def chunks(self, name: str) -> tuple[Range, ...]:
        """Column ranges of the messages that one row of a value travels in."""
        _, columns, channels = self.graph.values[name].shape
        return even_cuts(columns, MESSAGE_BYTES // channels)

    def feed(self, name: str, core: int, wanted: Range | None = None) -> Feed:
        """Give core ``core`` channels ``wanted`` (all by default) of a value; makes the wires."""
        value = self.graph.values[name]
        wanted = wanted or (0, value.shape[2])
        chunks = self.chunks(name)
        if name in self.graph.inputs:
            return Feed(value.shape, wanted, chunks, tensor=self.tensors[name].name)
        links = []
        for maker in self._makers[name]:
            low, high = max(wanted[0], maker.channels[0]), min(wanted[1], maker.channels[1])
            if low < high:
                wire = self._wire(name, maker, core, (low, high), chunks)
                links.append(Link(wire.name, (low, high)))
        return Feed(value.shape, wanted, chunks, links=tuple(links))

    def _wire(
        self, name: str, maker: Worker, core: int, held: Range, chunks: tuple[Range, ...]
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
        )
        self.wires.append(wire)
        self._outlets.setdefault((name, maker.core), []).append((wire.name, held))
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


def even_cuts(total: int, widest: int) -> tuple[Range, ...]:
    """Cut 0..total into pieces of at most ``widest``: equal ones if a divisor is near enough."""
    count = -(-total // max(1, widest))
    for pieces in range(count, min(2 * count, total) + 1):
        if total % pieces == 0:
            count = pieces
            break
    size = -(-total // count)
    return tuple((low, min(low + size, total)) for low in range(0, total, size))
