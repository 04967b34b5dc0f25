"""Stages: which nodes one group of cores computes together, and which core does what.

A stage is a head node and the element-wise nodes that follow it and need nothing else of its
result: a convolution with its activation and residual addition is one stage. Its output
channels are divided over its cores; every core streams its share row by row.
"""

from __future__ import annotations

from collections.abc import Mapping as Lookup
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from isa.program import DTYPES
from isa.target import Target
from passes.graph import (
    BinaryNode,
    CellNode,
    Graph,
    GroupNormNode,
    HostNode,
    LutNode,
    MatrixNode,
    MoveNode,
    Node,
    PoolNode,
    ProductNode,
    RealNode,
    SelectNode,
)
from passes.mapping import Mapping, Part

Range = tuple[int, int]
Copies = Lookup[str, int]
ROW_SHARE = 0.5  # of a core's memory that the rows of a vector stage may take
CELL_SHARE = 0.75  # the same of a cell, which holds few rows of all its inputs


@dataclass(frozen=True, eq=False)
class Worker:
    """One core of a stage. chain: its place among the cores whose sums add up, and their number.

    channels: (start, stop) of the output channels it computes; part: its crossbars. turn: (r, n)
    when n copies of the stage take turns: it computes the output rows r, r + n, ...
    """

    core: int
    channels: Range
    part: Part | None = None
    chain: tuple[int, int] = (0, 1)
    turn: tuple[int, int] = (0, 1)

    def rows(self, total: int) -> range:
        """The output rows that it computes."""
        return range(self.turn[0], total, self.turn[1])

    @property
    def is_last(self) -> bool:
        return self.chain[0] == self.chain[1] - 1


@dataclass(frozen=True, eq=False)
class Stage:
    """Nodes that run together, and their cores (copy by copy, chains one after another)."""

    head: Node
    tail: tuple[Node, ...]
    workers: tuple[Worker, ...]

    @property
    def output(self) -> str:
        return self.tail[-1].output if self.tail else self.head.output

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.head, *self.tail)

    def side_inputs(self) -> tuple[str, ...]:
        """Values that the tail needs besides the result of the node before it."""
        return side_inputs(self.head, self.tail)


def side_inputs(head: Node, tail: tuple[Node, ...]) -> tuple[str, ...]:
    """Values that ``tail`` needs and that neither it nor ``head`` makes."""
    inner = {node.output for node in (head, *tail)}
    found = (name for node in tail for name in node.inputs if name not in inner)
    return tuple(dict.fromkeys(found))


def form_stages(mapping: Mapping, copies: Copies | None = None) -> tuple[Stage, ...]:
    """Stages of a mapped graph in topological order, cores numbered from 0.

    copies: how many of each stage, by the name of its head; one of those it does not name.
    """
    stages, core = [], 0
    for head, tail in fuse(mapping.graph):
        workers: list[Worker] = []
        rows = mapping.graph.values[head.output].shape[0]
        count = min((copies or {}).get(head.name, 1), rows)
        for turn in range(count):
            single = _workers(mapping, head, tail, core + len(workers))
            workers += [replace(worker, turn=(turn, count)) for worker in single]
        stages.append(Stage(head, tail, tuple(workers)))
        core += len(workers)
    return tuple(stages)


def may_replicate(graph: Graph, head: Node) -> bool:
    """Whether copies of a stage can take turns: it has several rows and computes each by itself."""
    is_whole = isinstance(head, MoveNode | HostNode | CellNode | GroupNormNode)
    waits = any(name in graph.feedback() for name in head.inputs)
    return graph.values[head.output].shape[0] > 1 and not is_whole and not waits


def fuse(graph: Graph) -> list[tuple[Node, tuple[Node, ...]]]:
    """Heads with their tails: element-wise, of the same shape and type, and the only user."""
    consumers, taken, fused = graph.consumers(), set[int](), []
    for head in graph.nodes:
        if id(head) in taken:
            continue
        tail: list[Node] = []
        last = head
        while (after := _only_follower(graph, consumers, last)) and id(after) not in taken:
            tail.append(after)
            taken.add(id(after))
            last = after
        fused.append((head, tuple(tail)))
    return _ordered(graph, fused)


def _only_follower(graph: Graph, consumers: dict[str, list[Node]], node: Node) -> Node | None:
    """The element-wise node that alone uses the result of ``node``, if there is one."""
    if isinstance(node, HostNode | CellNode):
        return None
    users = consumers[node.output]
    if len(users) != 1 or node.output in graph.outputs:
        return None
    user = users[0]
    is_function = isinstance(user, RealNode) and user.is_elementwise
    if not isinstance(user, LutNode | BinaryNode) and not is_function:
        return None
    before, after = graph.values[node.output], graph.values[user.output]
    if (after.shape, after.dtype) != (before.shape, before.dtype):  # the tail works in place
        return None
    if isinstance(user, BinaryNode) and not _may_join(graph, node, user):
        return None
    return user


def _may_join(graph: Graph, node: Node, user: BinaryNode) -> bool:
    """Whether a binary node can run behind ``node`` without waiting for itself.

    The other operand must stream at the same pace. A gate that is a function of the whole of
    ``node``'s own input would be ready only after the last row. Of two ways that meet, the longer
    one takes the node, so that the shorter one's rows wait in a queue and not its layer.
    """
    others = [name for name in user.inputs if name != node.output]
    consumers, depth = graph.consumers(), _depths(graph)
    for name in others:
        may_take = len(consumers[name]) == 1 and name not in graph.outputs
        if may_take and depth[name] > depth[node.output]:
            return False
    return all(graph.values[name].shape == graph.values[node.output].shape for name in others)


def _depths(graph: Graph) -> dict[str, int]:
    """Nodes on the longest way to each value."""
    depth = dict.fromkeys(graph.inputs, 0)
    for node in graph.nodes:
        longest = 1 + max((depth.get(name, 0) for name in node.inputs), default=0)
        depth |= dict.fromkeys(node.results, longest)
    return depth


def _ordered(
    graph: Graph, fused: list[tuple[Node, tuple[Node, ...]]]
) -> list[tuple[Node, tuple[Node, ...]]]:
    """Put stages in an order in which every input is made by an earlier stage.

    What a cell feeds back is made later; a matrix that waits for it comes after the cell's other
    inputs.
    """
    feedback = graph.feedback()
    inputs = [{name for node in (head, *tail) for name in node.inputs} for head, tail in fused]
    maker = {
        name: at
        for at, (head, tail) in enumerate(fused)
        for node in (head, *tail)
        for name in node.results
    }
    sorter = TopologicalSorter[int]()
    for at, names in enumerate(inputs):
        needed = {maker.get(name, at) for name in names - feedback.keys()}
        for name in names & feedback.keys():
            others = {maker.get(other, at) for other in feedback[name].inputs}
            needed |= {other for other in others if not inputs[other] & feedback.keys()}
        sorter.add(at, *sorted(needed - {at}))
    return [fused[at] for at in sorter.static_order()]


def _workers(mapping: Mapping, head: Node, tail: tuple[Node, ...], core: int) -> tuple[Worker, ...]:
    if isinstance(head, MatrixNode):
        found: list[Worker] = []
        for chain in mapping.layers[head.name].parts:
            for place, part in enumerate(chain):
                found.append(Worker(core + len(found), part.outputs, part, (place, len(chain))))
        return tuple(found)
    channels = mapping.graph.values[head.output].shape[2]
    count = 1 if not _is_channelwise(head) else _vector_parts(mapping.graph, head, mapping.target)
    if isinstance(head, CellNode):
        count = -(-head.bytes // int(CELL_SHARE * mapping.target.memory.core_bytes))
    count = min(count, channels)
    cuts = [channels * part // count for part in range(count + 1)]
    return tuple(Worker(core + part, (cuts[part], cuts[part + 1])) for part in range(count))


def _is_channelwise(node: Node) -> bool:
    if isinstance(node, RealNode):
        return node.is_elementwise
    return isinstance(node, PoolNode | LutNode | BinaryNode | SelectNode | ProductNode)


def _vector_parts(graph: Graph, head: Node, target: Target) -> int:
    """Cores needed so that the rows which a channel-wise stage holds fit its memory share."""
    held = 0
    for name in (*head.inputs, head.output):
        rows, columns, channels = graph.values[name].shape
        depth = 1
        if isinstance(head, PoolNode) and name != head.output:
            depth = min(rows, (head.kernel[0] - 1) * head.dilation[0] + 1)
        held += depth * columns * channels * DTYPES[graph.values[name].dtype].itemsize
    return -(-held // int(ROW_SHARE * target.memory.core_bytes))
