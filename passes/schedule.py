"""Schedule: layers placed on cores in order, rows streamed between them; Mapping -> Program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from isa.diagnostics import Diagnostic, PimError
from isa.program import DTYPES, Buffer, Channel, Core, Program
from isa.target import Target
from passes.base import Pass
from passes.draft import BufferDraft, CoreDraft, Feed
from passes.emit import Site, share_of
from passes.emit_cell import cell_parts, emit_cell
from passes.emit_groups import emit_group_norm
from passes.emit_host import emit_host, is_direct_input
from passes.emit_moves import emit_move
from passes.emit_rows import emit_rows
from passes.emit_windows import emit_windowed, window_of
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
from passes.mapping import Mapping
from passes.queues import SLACK, channel_events, queue_depths
from passes.stages import Copies, Stage, Worker, form_stages
from passes.tables import Names, Tables
from passes.wiring import Wire, Wiring

ALIGNMENT = 4  # bytes; the widest element


@dataclass(frozen=True)
class Schedule(Pass[Mapping, Program]):
    """Give every stage its own cores, in topological order, and write their streams.

    Before -> after: layers with parts -> one stream per core; a row is sent on as soon as it is
    computed, and a layer starts as soon as its first window is there. Exact: yes.
    grow: enlarge the mesh when the model needs more cores than the target has. copies: of each
    stage, by the name of its head; they take turns at its output rows.
    """

    name: ClassVar[str] = "schedule"
    exact: ClassVar[bool] = True
    grow: bool = False
    copies: Copies = field(default_factory=dict)

    def run(self, unit: Mapping) -> Program:
        stages = form_stages(unit, self.copies)
        count = sum(len(stage.workers) for stage in stages)
        target = self._fitted(unit.target, count)
        names = Names()
        wiring = Wiring(unit.graph, stages, names)
        tables = Tables(names)
        sites = _sites(unit.graph, target, stages, wiring, tables)
        for site in sites:
            emit(site)
        drafts = [site.draft for site in sites]
        return _assemble(target, wiring, tables, drafts)

    def _fitted(self, target: Target, cores: int) -> Target:
        """The target, its mesh grown if asked for. Raises PimError M602 when it is too small."""
        if cores <= target.cores:
            return target
        if self.grow:
            return target.with_cores(cores)
        raise PimError(
            Diagnostic(
                "M602",
                f"the model needs {cores} cores ({cores * target.crossbars_per_core} crossbars); "
                f"target {target.name} has {target.cores}",
                hint="grow the mesh with `--tiles auto`, run in parts with `--phases auto`, "
                "or choose a larger target",
            )
        )


def emit(site: Site) -> None:
    """Write one core's stream."""
    head = site.stage.head
    if isinstance(head, MatrixNode | PoolNode):
        emit_windowed(site)
    elif isinstance(head, MoveNode):
        emit_move(site)
    elif isinstance(head, HostNode):
        emit_host(site, head)
    elif isinstance(head, CellNode):
        emit_cell(site, head)
    elif isinstance(head, GroupNormNode):
        emit_group_norm(site, head)
    else:
        emit_rows(site)


def _sites(
    graph: Graph, target: Target, stages: tuple[Stage, ...], wiring: Wiring, tables: Tables
) -> list[Site]:
    """All cores with their feeds; every wire must exist before the first stream is written."""
    sites = []
    originals: dict[int, str] = {}
    for stage in stages:
        sums = _chain_channels(stage, wiring)
        for worker in stage.workers:
            sites.append(
                Site(
                    stage=stage,
                    worker=worker,
                    draft=CoreDraft(worker.core, stage.head.name),
                    feeds=_feeds(graph, stage, worker, wiring),
                    side_feeds=_side_feeds(graph, stage, worker, wiring),
                    sums=sums[worker.core],
                    graph=graph,
                    target=target,
                    wiring=wiring,
                    tables=tables,
                    originals=originals,
                )
            )
    return sites


def _chain_channels(stage: Stage, wiring: Wiring) -> dict[int, tuple[str | None, str | None]]:
    """Channels for partial sums: (from the worker before, to the worker after) by core."""
    channels: dict[int, tuple[str | None, str | None]] = {}
    before: str | None = None
    for worker, following in zip(stage.workers, (*stage.workers[1:], None), strict=True):
        after = None
        if not worker.is_last and following is not None:
            first, last = wiring.chunks(stage.head.output)[0]
            after = wiring.sums(worker, following, last - first)
        channels[worker.core] = (before, after)
        before = after
    return channels


def _feeds(graph: Graph, stage: Stage, worker: Worker, wiring: Wiring) -> dict[str, Feed]:
    """What the head of a stage must be given on one core."""
    if isinstance(stage.head, CellNode):
        return {
            key: wiring.feed(name, worker.core, wanted, lag=wiring.lag(stage))
            for key, (name, wanted) in cell_parts(stage.head, worker).items()
        }
    return {
        name: wiring.feed(
            name,
            worker.core,
            _wanted(stage.head, name, graph, worker),
            _needed(graph, stage.head, name, worker),
            wiring.lag(stage),
        )
        for name in dict.fromkeys(stage.head.inputs)
        if not is_direct_input(graph, stage.head, name)
    }


def _side_feeds(graph: Graph, stage: Stage, worker: Worker, wiring: Wiring) -> dict[str, Feed]:
    """What the tail of a stage must be given on one core."""
    if not worker.is_last:
        return {}
    return {
        name: wiring.feed(
            name,
            worker.core,
            share_of(graph.values[name].shape, worker),
            _row_by_row(graph, stage.head, name, worker),
            wiring.lag(stage) + wiring.own_lag(stage),
        )
        for name in stage.side_inputs()
    }


def _needed(graph: Graph, head: Node, name: str, worker: Worker) -> Sequence[range] | None:
    """The rows of an operand that a copy of a stage reads, as progressions; None for all."""
    window = window_of(head)
    if worker.turn[1] == 1 or window is None:
        return _row_by_row(graph, head, name, worker)
    own, height = worker.rows(graph.values[head.output].shape[0]), graph.values[name].shape[0]
    lines = [window.input_rows(own, line) for line in range(window.rows)]
    return [range(max(line.start, line.start % line.step), min(line.stop, height), line.step)
            for line in lines]  # fmt: skip


def _row_by_row(graph: Graph, head: Node, name: str, worker: Worker) -> Sequence[range] | None:
    """The rows of an operand that is read one row for each output row; None for all."""
    total = graph.values[head.output].shape[0]
    if worker.turn[1] == 1 or graph.values[name].shape[0] != total:
        return None
    return [worker.rows(total)]


def _wanted(head: Node, name: str, graph: Graph, worker: Worker) -> tuple[int, int] | None:
    """Channels of an operand that a worker reads; None for all."""
    shape = graph.values[name].shape
    if worker.part is not None:
        return worker.part.inputs
    if isinstance(head, ProductNode):
        return worker.channels if name == head.inputs[1] else None
    is_function = isinstance(head, RealNode) and head.is_elementwise
    if isinstance(head, PoolNode | LutNode | BinaryNode | SelectNode) or is_function:
        return share_of(shape, worker)
    return None


def _assemble(target: Target, wiring: Wiring, tables: Tables, drafts: list[CoreDraft]) -> Program:
    """Give buffers and queues their places and put the program together."""
    producer = {wire.name: wire.source for wire in wiring.wires}
    events = {draft.index: channel_events(tuple(draft.body)) for draft in drafts}
    depths = queue_depths(events, producer)
    arriving = defaultdict(list)
    for wire in wiring.wires:
        arriving[wire.target].append((_channel(wire, depths[wire.name]), wire.spare))
    cores: list[Core] = []
    channels: dict[str, Channel] = {}
    for draft in drafts:
        buffers, placed = _lay_out(draft, arriving[draft.index], target)
        channels |= {channel.name: channel for channel in placed}
        cores.append(
            Core(draft.index, draft.layer, tuple(draft.matrices), buffers, tuple(draft.body))
        )
    return Program(
        target=target.name,
        target_sha256=target.sha256,
        tensors=tuple(wiring.tensors.values()),
        tables=tuple(tables.tables),
        channels=tuple(channels[wire.name] for wire in wiring.wires),
        cores=tuple(cores),
        partitions=tuple(wiring.partitions),
    )


def _channel(wire: Wire, depth: int) -> Channel:
    rows = None if wire.rows is None else (wire.rows.start, wire.rows.stop, wire.rows.step)
    return Channel(
        wire.name,
        wire.source,
        wire.target,
        wire.dtype,
        wire.shape,
        depth,
        None,
        wire.carries,
        rows,
    )


def _lay_out(
    draft: CoreDraft, queues: list[tuple[Channel, int]], target: Target
) -> tuple[tuple[Buffer, ...], list[Channel]]:
    """Addresses for a core's buffers, then for its queues from the smallest; the rest go global.

    The largest buffers go global too where they do not fit: a transposition may need all of a
    value (docs/decisions/0017).
    """
    limit, outside = target.memory.core_bytes, set[str]()
    for item in sorted(draft.buffers, key=lambda item: _bytes(item.dtype, item.shape))[::-1]:
        needed = _end(other for other in draft.buffers if other.name not in outside)
        if needed <= limit:
            break
        outside.add(item.name)
    address, buffers = 0, []
    for item in draft.buffers:
        place = None if item.name in outside else address
        buffer = Buffer(item.name, item.dtype, item.shape, place, item.ring, item.fill)
        buffers.append(buffer)
        address = address if place is None else _after(address, buffer.bytes)
    return tuple(buffers), _place_queues(queues, address, limit)


def _end(items: Iterable[BufferDraft]) -> int:
    """Bytes of buffers that stand one behind the other."""
    address = 0
    for item in items:
        address = _after(address, _bytes(item.dtype, item.shape))
    return address


def _place_queues(queues: list[tuple[Channel, int]], address: int, limit: int) -> list[Channel]:
    """Queues from the smallest up, each with its slack, without it, or in global memory.

    queues: with the messages that they hold besides where room is left, or in global memory.
    """
    inside: list[tuple[Channel, int]] = []
    placed, end = [], address
    for queue, spare in sorted(queues, key=lambda item: item[0].bytes):
        tight = replace(queue, depth=queue.depth - SLACK)
        for choice in (queue, tight):
            if choice.depth > 0 and _after(end, choice.bytes) <= limit:
                inside.append((choice, spare))
                end = _after(end, choice.bytes)
                break
        else:
            placed.append(replace(queue, depth=queue.depth + spare))
    room = limit - end
    for queue, spare in inside:
        more = min(spare, max(0, room - ALIGNMENT) // (queue.bytes // queue.depth))
        room += _after(0, queue.bytes)
        queue = replace(queue, depth=queue.depth + more, address=address)
        room -= _after(0, queue.bytes)
        placed.append(queue)
        address = _after(address, queue.bytes)
    return placed


def _after(address: int, size: int) -> int:
    return -(-(address + size) // ALIGNMENT) * ALIGNMENT


def _bytes(dtype: str, shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2] * DTYPES[dtype].itemsize
