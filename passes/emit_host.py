"""Streams of host stages: gather whole inputs in global memory, run the partition, send rows on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from isa.catalog import Host, Load, Send, Store
from isa.operands import Region, region
from isa.program import Partition, Statement
from passes.draft import BufferDraft, Range
from passes.emit import Site, rolled, take_row
from passes.graph import Graph, HostNode, Node, Value
from passes.roll import roll

Step = Callable[[int, Range], list[Statement]]


def is_direct_input(graph: Graph, node: Node, name: str) -> bool:
    """Whether a partition reads a graph input where it stands, in the layout that it has."""
    if not isinstance(node, HostNode) or name not in graph.inputs:
        return False
    seen = [node.sources[at] for at, given in enumerate(node.inputs) if given == name]
    return all(_layout(value) == _layout(graph.values[name]) for value in seen)


def _layout(value: Value) -> tuple[object, ...]:
    return value.onnx_shape, value.order, value.batched


def emit_host(site: Site, node: HostNode) -> None:
    """Write the stream of a partition.

    Inputs that are streams are stored row by row in tensors of global memory; results are loaded
    from there row by row. Graph inputs and outputs are tensors already, and are used as they are.
    """
    graph, wiring = site.graph, site.wiring
    inputs = []
    for name, source in zip(node.inputs, node.sources, strict=True):
        if is_direct_input(graph, node, name):
            inputs.append(wiring.tensors[name].name)
            continue
        inputs.append(wiring.host_tensor(source))
        site.draft.body += _gather(site, name, inputs[-1])
    consumed = {name for other in graph.nodes for name in other.inputs}
    outputs, after = [], list[Statement]()
    for name in node.outputs:
        if name in graph.outputs and name not in consumed:
            outputs.append(wiring.tensors[name].name)
            continue
        outputs.append(wiring.host_tensor(graph.values[name]))
        after += _hand_on(site, name, outputs[-1])
    digest = hashlib.sha256(node.model).hexdigest()
    partition = Partition(node.name, tuple(inputs), tuple(outputs), digest, node.model)
    wiring.partitions.append(partition)
    site.draft.body += [Host(partition.name), *after]


def _gather(site: Site, name: str, tensor: str) -> list[Statement]:
    """Receive a value and store it in a tensor, message by message."""
    buffer = _buffer(site, name)

    def step(row: int, piece: Range) -> list[Statement]:
        held = buffer.box(columns=(0, piece[1] - piece[0]))
        received = take_row(site.feeds[name], buffer, 0, row, piece=piece)
        return [*received, Store(_box(site, name, tensor, row, piece), held)]

    return _by_rows(site, name, step)


def _hand_on(site: Site, name: str, tensor: str) -> list[Statement]:
    """Load a result and send it to whoever needs it, message by message."""
    buffer, outlet = _buffer(site, name), site.wiring.outlet(name, site.worker)

    def step(row: int, piece: Range) -> list[Statement]:
        held = buffer.box(columns=(0, piece[1] - piece[0]))
        done: list[Statement] = [Load(held, _box(site, name, tensor, row, piece))]
        if outlet.tensor is not None:
            done.append(Store(_box(site, name, outlet.tensor, row, piece), held))
        for channel, channels, rows in outlet.wires:
            if rows is None or row in rows:
                box = buffer.box(0, 1, (0, piece[1] - piece[0]), channels)
                done.append(Send(channel, box))
        return done

    return _by_rows(site, name, step)


def _by_rows(site: Site, name: str, step: Step) -> list[Statement]:
    """A step for every message of every row."""
    rows, pieces = site.value(name).shape[0], site.wiring.chunks(name)
    steps: list[Sequence[Statement]] = [
        rolled([step(row, piece) for piece in pieces]) for row in range(rows)
    ]
    return list(roll(steps, "y"))


def _buffer(site: Site, name: str) -> BufferDraft:
    value = site.value(name)
    widest = max(last - first for first, last in site.wiring.chunks(name))
    return site.draft.buffer("row", value.dtype, (1, widest, value.shape[2]))


def _box(site: Site, name: str, tensor: str, row: int, piece: Range) -> Region:
    """Columns ``piece`` of a row of a tensor."""
    rows, columns, _ = site.value(name).shape
    whole = piece == (0, columns)
    if rows == 1 and whole:
        return Region(tensor)
    return region(tensor, row, columns=None if whole else piece)
