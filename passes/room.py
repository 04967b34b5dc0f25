"""Room: how much of a layer's input a core can hold, beside what it needs for its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isa.program import DTYPES
from isa.target import Target
from passes.graph import BinaryNode, Graph, MatrixNode
from passes.stages import fuse, side_inputs
from passes.wiring import MESSAGE_BYTES, even_cuts

WINDOW_SHARE = 0.75  # of a core's memory that a layer's input rows may take; the rest: queues
LEAST_SHARE = 0.125  # for the input rows of a layer whose results alone fill a core
SUM_BYTES = 4


@dataclass(frozen=True)
class Room:
    """Memory for the window rows of one layer.

    columns: of its input, with padding. channel_bytes: what the window rows of one input channel
    take. budget: bytes that a core has for all of them.
    """

    columns: int
    channel_bytes: int
    budget: int

    @property
    def channels(self) -> int:
        """Input channels that a core can hold; at least one."""
        return max(1, self.budget // self.channel_bytes)


def common_rooms(graphs: Sequence[Graph], target: Target) -> dict[str, Room]:
    """The room that every weight layer has in all of the graphs that it stands in, by name."""
    found: dict[str, Room] = {}
    for graph in graphs:
        for name, room in layer_rooms(graph, target).items():
            known = found.get(name, room)
            columns = max(known.columns, room.columns)
            channel_bytes = max(known.channel_bytes, room.channel_bytes)
            found[name] = Room(columns, channel_bytes, min(known.budget, room.budget))
    return found


def layer_rooms(graph: Graph, target: Target) -> dict[str, Room]:
    """The room of every weight layer of a graph, by name."""
    rooms = {}
    for head, tail in fuse(graph):
        if isinstance(head, MatrixNode):
            constants = sum(isinstance(n, BinaryNode) and n.constant is not None for n in tail)
            operands = len(side_inputs(head, tail)) + constants
            rooms[head.name] = _room(graph, head, operands, target)
    return rooms


def _room(graph: Graph, node: MatrixNode, operands: int, target: Target) -> Room:
    """operands: of the element-wise tail, an element each for every one of a piece of a row."""
    _, columns, channels = graph.values[node.output].shape
    widest = max(last - first for first, last in even_cuts(columns, MESSAGE_BYTES // channels))
    elements = min(widest * channels, MESSAGE_BYTES)
    item = DTYPES[graph.values[node.output].dtype].itemsize
    # sums, those of the core before, result
    results = elements * (2 * SUM_BYTES + item * (1 + operands))
    memory = target.memory.core_bytes
    budget = max(min(WINDOW_SHARE * memory, memory - results), LEAST_SHARE * memory)
    _, kernel_rows, _, _ = node.weights.shape
    rows = (kernel_rows - 1) * node.dilation[0] + 1
    width = graph.values[node.inputs[0]].shape[1] + node.pads[1] + node.pads[3]
    return Room(width, rows * width, int(budget))
