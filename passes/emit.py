"""What every emitter shares: the context of a compile, and the ways in and out of a core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa import catalog
from isa.catalog import Const, Lut, Send, Store
from isa.operands import Region, region
from isa.program import Shape, Statement
from isa.target import Target
from passes.draft import BufferDraft, CoreDraft, Feed, Range
from passes.graph import BinaryNode, Graph, LutNode, Value
from passes.roll import roll
from passes.stages import Stage, Worker
from passes.tables import Tables
from passes.wiring import Wiring

BINARY = {"add": catalog.Add, "sub": catalog.Sub, "mul": catalog.Mul}


@dataclass(frozen=True, eq=False)
class Site:
    """One core about to be written: what it computes, for whom, and what it is fed with.

    feeds: operands of the head, by value name. side_feeds: operands of the tail, likewise; a
    value that both need arrives twice, because the tail wants it some rows later. sums: (channel
    to receive partial sums on, channel to send them on).
    """

    stage: Stage
    worker: Worker
    draft: CoreDraft
    feeds: Mapping[str, Feed]
    side_feeds: Mapping[str, Feed]
    sums: tuple[str | None, str | None]
    graph: Graph
    target: Target
    wiring: Wiring
    tables: Tables

    @property
    def label(self) -> str:
        """Prefix for the names of this core's tables and matrices."""
        first, last = self.worker.channels
        if last - first == self.value(self.stage.output).shape[2]:
            return self.stage.head.name
        return f"{self.stage.head.name}.c{first}"

    def value(self, name: str) -> Value:
        return self.graph.values[name]

    def own_shape(self, name: str) -> Shape:
        """Shape of this worker's share of a value."""
        rows, columns, _ = self.value(name).shape
        return rows, columns, self.worker.channels[1] - self.worker.channels[0]


def rolled(steps: Sequence[Sequence[Statement]]) -> list[Statement]:
    """Steps along one row as an inner loop."""
    return list(roll(steps, "x"))


def take_row(
    feed: Feed,
    into: BufferDraft,
    into_row: int,
    row: int,
    column: int = 0,
    piece: Range | None = None,
) -> list[Statement]:
    """Statements that receive one row of a value, or its columns ``piece``, message by message.

    The row, or the piece, starts at ``column`` of the buffer.
    """
    return rolled(feed.receive(into, into_row, row, column, piece=piece))


def deliver(site: Site, out: BufferDraft, row: int, piece: Range) -> list[Statement]:
    """Statements that store and send columns ``piece`` of a finished row, which ``out`` holds.

    ``piece`` is one message, or the whole row, which then goes out message by message.
    """
    name = site.stage.output
    outlet = site.wiring.outlet(name, site.worker)
    first = site.worker.channels[0]
    done: list[Statement] = []
    width = piece[1] - piece[0]
    if outlet.tensor is not None:
        done.append(
            Store(_global_box(site, outlet.tensor, row, piece), out.box(columns=(0, width)))
        )
    steps: list[list[Statement]] = []
    for chunk in site.wiring.chunks(name) if outlet.wires else ():
        if piece[0] <= chunk[0] and chunk[1] <= piece[1]:
            held_columns = (chunk[0] - piece[0], chunk[1] - piece[0])
            steps.append(
                [
                    Send(channel, out.box(0, 1, held_columns, (held[0] - first, held[1] - first)))
                    for channel, held in outlet.wires
                ]
            )
    return done + rolled(steps)


def _global_box(site: Site, tensor: str, row: int, piece: Range) -> Region:
    """The part of an output tensor that a worker writes; whole axes are left out."""
    rows, columns, channels = site.value(site.stage.output).shape
    whole_row = piece == (0, columns)
    whole = site.worker.channels == (0, channels)
    if rows == 1 and whole_row and whole:
        return Region(tensor)
    share = None if whole else site.worker.channels
    return region(tensor, row, columns=None if whole_row else piece, channels=share)


class Tail:
    """The element-wise nodes behind a head, applied in place to a piece of a finished row.

    out: the buffer that holds the piece; as wide as the widest piece.
    """

    def __init__(self, site: Site, out: BufferDraft) -> None:
        self.site, self.out = site, out
        self.sides = {
            name: site.draft.buffer("side", site.value(name).dtype, out.shape)
            for name in site.stage.side_inputs()
        }
        self.constants = {
            node.name: constant_buffer(site, node)
            for node in site.stage.tail
            if isinstance(node, BinaryNode) and node.constant is not None
        }

    def setup(self) -> list[Statement]:
        """Statements that run once, before the rows."""
        return [
            Const(buffer.box(rows=buffer.shape[0]), table)
            for buffer, table in self.constants.values()
        ]

    def apply(self, row: int, piece: Range) -> list[Statement]:
        """Statements that turn columns ``piece`` of the head's row into the stage's."""
        done: list[Statement] = []
        for name, buffer in self.sides.items():
            done += take_row(self.site.side_feeds[name], buffer, 0, row, piece=piece)
        own = self.site.stage.head.output
        box = self.out.box(columns=(0, piece[1] - piece[0]))
        for node in self.site.stage.tail:
            if isinstance(node, LutNode):
                done.append(lut(self.site, node, box, box))
            elif isinstance(node, BinaryNode):
                done.append(self._binary(node, own, row, piece, box))
            own = node.output
        return done

    def _binary(self, node: BinaryNode, own: str, row: int, piece: Range, box: Region) -> Statement:
        width = (0, piece[1] - piece[0])
        operands = [
            box if name == own else self.sides[name].box(columns=width) for name in node.inputs
        ]
        if node.constant is not None:
            operands.append(constant_row(self.constants[node.name][0], row, piece))
        return binary(self.site, node, box, operands[0], operands[1])


def lut(site: Site, node: LutNode, into: Region, source: Region) -> Lut:
    """The table instruction of a node, for this worker's channels."""
    table = node.table
    if table.ndim == 2:
        table = table[slice(*site.worker.channels)]
    dtype = site.value(node.output).dtype
    return Lut(into, source, site.tables.add(f"{node.name}.lut", dtype, table))


def binary(site: Site, node: BinaryNode, into: Region, a: Region, b: Region) -> Statement:
    """The add, sub or mul instruction of a node."""
    first, result = site.value(node.inputs[0]), site.value(node.output)
    scale_b, zero_b = node.constant_scale, node.constant_zero
    if node.constant is None:
        second = site.value(node.inputs[1])
        scale_b, zero_b = real(second.scale), second.zero
    return BINARY[node.op](
        into,
        a,
        b,
        scale_a=real(first.scale),
        zero_a=first.zero,
        scale_b=scale_b,
        zero_b=zero_b,
        scale=real(result.scale),
        zero=result.zero,
    )


def constant_buffer(site: Site, node: BinaryNode) -> tuple[BufferDraft, str]:
    """A buffer for a node's constant operand, and the table to fill it from."""
    values: NDArray[np.integer] = node.constant  # type: ignore[assignment]
    if values.shape[2] > 1:
        values = values[:, :, slice(*site.worker.channels)]
    dtype = "u8" if values.dtype == np.uint8 else "s8"
    rows, columns, channels = values.shape
    buffer = site.draft.buffer("constant", dtype, (rows, columns, channels))
    return buffer, site.tables.add(f"{node.name}.constant", dtype, values)


def constant_row(buffer: BufferDraft, row: int, piece: Range) -> Region:
    """Columns ``piece`` of row ``row`` of a constant, or its only row and column."""
    columns = piece if buffer.shape[1] > 1 else None
    return buffer.box(row if buffer.shape[0] > 1 else 0, 1, columns)


def real(scale: float | None) -> float:
    """A scale as the instructions want it: integers without one count as they are."""
    return 1.0 if scale is None else scale


def share_of(shape: Shape, worker: Worker) -> Range:
    """The channels of an element-wise operand that a worker needs; one channel serves them all."""
    return worker.channels if shape[2] > 1 else (0, 1)
