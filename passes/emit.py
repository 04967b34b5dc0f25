"""What every emitter shares: the context of a compile, and the ways in and out of a core."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isa import catalog
from isa.catalog import Lut, Send, Store
from isa.catalog_float import FUNCTIONS, REDUCTIONS, FloatSoftmax, Real
from isa.operands import Region, region
from isa.program import Shape, Statement
from isa.target import Target
from passes.draft import BufferDraft, CoreDraft, Feed, Range
from passes.emit_constants import Constant
from passes.graph import BinaryNode, Graph, LutNode, RealNode, SelectNode, Value
from passes.roll import roll
from passes.stages import Stage, Worker
from passes.tables import Tables
from passes.wiring import Wiring

BINARY = {
    "add": catalog.Add,
    "sub": catalog.Sub,
    "mul": catalog.Mul,
    "div": catalog.Div,
    "pow": catalog.Pow,
    "max": catalog.Max,
    "min": catalog.Min,
}


_FLOATS: tuple[type[Real], ...] = (*FUNCTIONS, *REDUCTIONS, FloatSoftmax)
FLOATS = {cls.mnemonic: cls for cls in _FLOATS}


@dataclass(frozen=True, eq=False)
class Site:
    """One core about to be written: what it computes, for whom, and what it is fed with.

    feeds: operands of the head, by value name. side_feeds: operands of the tail, likewise; a
    value that both need arrives twice, because the tail wants it some rows later. sums: (channel
    to receive partial sums on, channel to send them on). originals: by part of a layer, the name
    of its first matrix, of which the later ones are copies.
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
    originals: dict[int, str]

    @property
    def label(self) -> str:
        """Prefix for the names of this core's tables and matrices."""
        first, last = self.worker.channels
        if last - first == self.value(self.stage.output).shape[2]:
            return self.stage.head.name
        return f"{self.stage.head.name}.c{first}"

    def value(self, name: str) -> Value:
        return self.graph.values[name]

    def constant(self, node: BinaryNode | SelectNode, widest: int) -> Constant:
        """The constant operand of a node, for pieces of at most ``widest`` columns."""
        return Constant(self.draft, self.tables, self.worker.channels, node, widest)

    def rows(self) -> range:
        """The output rows that this worker computes."""
        return self.worker.rows(self.value(self.stage.output).shape[0])

    def roll_rows(self, steps: Sequence[Sequence[Statement]], advance: int = 1) -> list[Statement]:
        """The steps of the output rows as loops.

        advance: input rows from one output row to the next. Where copies take turns, here or in
        the stages around, the channels of a row repeat after several rows only.
        """
        turns = self.worker.turn[1]
        pitches = [feed.pitch(advance * turns) for feed in self.feeds.values()]
        pitches += [feed.pitch(turns) for feed in self.side_feeds.values()]
        pitches.append(self.wiring.outlet(self.stage.output, self.worker).pitch(turns))
        return list(roll(steps, "y", math.lcm(*pitches)))

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


def deliver(
    site: Site, out: BufferDraft, row: int, piece: Range, name: str = ""
) -> list[Statement]:
    """Statements that store and send columns ``piece`` of a finished row, which ``out`` holds.

    ``piece`` is one message, or the whole row, which then goes out message by message. name: of
    the value; that of the stage by default.
    """
    name = name or site.stage.output
    outlet = site.wiring.outlet(name, site.worker)
    wires = [(channel, held) for channel, held, rows in outlet.wires
             if rows is None or row in rows]  # fmt: skip
    first = site.worker.channels[0]
    done: list[Statement] = []
    width = piece[1] - piece[0]
    if outlet.tensor is not None:
        done.append(Store(_global_box(site, name, row, piece), out.box(columns=(0, width))))
    steps: list[list[Statement]] = []
    for chunk in site.wiring.chunks(name) if wires else ():
        if piece[0] <= chunk[0] and chunk[1] <= piece[1]:
            held_columns = (chunk[0] - piece[0], chunk[1] - piece[0])
            steps.append(
                [
                    Send(channel, out.box(0, 1, held_columns, (held[0] - first, held[1] - first)))
                    for channel, held in wires
                ]
            )
    return done + rolled(steps)


def _global_box(site: Site, name: str, row: int, piece: Range) -> Region:
    """The part of an output that a worker writes; whole axes are left out."""
    tensor = site.wiring.tensors[name].name
    rows, columns, channels = site.value(name).shape
    whole_row = piece == (0, columns)
    whole = site.worker.channels == (0, channels)
    if rows == 1 and whole_row and whole:
        return Region(tensor)
    share = None if whole else site.worker.channels
    return region(tensor, row, columns=None if whole_row else piece, channels=share)


class Tail:
    """The element-wise nodes behind a head, applied in place to a piece of a finished row.

    out: the buffer that holds the piece. widest: columns of the widest piece; those of ``out``
    by default.
    """

    def __init__(self, site: Site, out: BufferDraft, widest: int | None = None) -> None:
        self.site, self.out = site, out
        widest = widest or out.shape[1]
        self.sides = {
            name: site.draft.buffer("side", site.value(name).dtype, (1, widest, out.shape[2]))
            for name in site.stage.side_inputs()
        }
        self.constants = {
            node.name: site.constant(node, widest)
            for node in site.stage.tail
            if isinstance(node, BinaryNode) and node.constant is not None
        }

    def setup(self) -> list[Statement]:
        """Statements that run once, before the rows."""
        return [step for constant in self.constants.values() for step in constant.setup()]

    def apply_all(self, row: int) -> list[Statement]:
        """Statements that turn a row which ``out`` holds whole into the stage's, by pieces."""
        pieces = self.site.wiring.chunks(self.site.stage.output) if self.site.stage.tail else ()
        return rolled([self.apply(row, piece, piece[0]) for piece in pieces])

    def apply(self, row: int, piece: Range, at: int = 0) -> list[Statement]:
        """Statements that turn columns ``piece`` of the head's row into the stage's.

        at: the column of ``out`` where the piece starts.
        """
        done: list[Statement] = []
        for name, buffer in self.sides.items():
            done += take_row(self.site.side_feeds[name], buffer, 0, row, piece=piece)
        own = self.site.stage.head.output
        box = self.out.box(columns=(at, at + piece[1] - piece[0]))
        for node in self.site.stage.tail:
            if isinstance(node, LutNode):
                done.append(lut(self.site, node, box, box))
            elif isinstance(node, RealNode):
                done.append(float_step(self.site.graph.values, node, box, box))
            elif isinstance(node, BinaryNode):
                if node.name in self.constants:
                    done += self.constants[node.name].take(row, piece)
                done.append(self._binary(node, own, row, piece, box))
            own = node.output
        return done

    def _binary(self, node: BinaryNode, own: str, row: int, piece: Range, box: Region) -> Statement:
        width = (0, piece[1] - piece[0])
        operands = [
            box if name == own else self.sides[name].box(columns=width) for name in node.inputs
        ]
        if node.name in self.constants:
            operands.append(self.constants[node.name].region(row, piece))
        return binary(self.site.graph.values, node, box, operands[0], operands[1])


def move_tail(site: Site, out: BufferDraft) -> Tail:
    """The tail for a row that ``out`` holds whole: applied by the pieces that its operands are."""
    pieces = site.wiring.chunks(site.stage.output)
    return Tail(site, out, max(last - first for first, last in pieces))


def lut(site: Site, node: LutNode, into: Region, source: Region) -> Lut:
    """The table instruction of a node, for this worker's channels."""
    table = node.table
    if table.ndim == 2:
        table = table[slice(*site.worker.channels)]
    dtype = site.value(node.output).dtype
    return Lut(into, source, site.tables.add(f"{node.name}.lut", dtype, table))


def binary(
    values: Mapping[str, Value], node: BinaryNode, into: Region, a: Region, b: Region
) -> Statement:
    """The instruction of a node on two operands."""
    first, result = values[node.inputs[0]], values[node.output]
    scale_b, zero_b = node.constant_scale, node.constant_zero
    if node.constant is None:
        second = values[node.inputs[1]]
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


def float_step(
    values: Mapping[str, Value], node: RealNode, into: Region, source: Region
) -> Statement:
    """The instruction of a node on one operand."""
    x, y = values[node.inputs[0]], values[node.output]
    return FLOATS[node.mnemonic](
        into,
        source,
        scale_a=real(x.scale),
        zero_a=x.zero,
        scale=real(y.scale),
        zero=y.zero,
    )


def real(scale: float | None) -> float:
    """A scale as the instructions want it: integers without one count as they are."""
    return 1.0 if scale is None else scale


def share_of(shape: Shape, worker: Worker) -> Range:
    """The channels of an element-wise operand that a worker needs; one channel serves them all."""
    return worker.channels if shape[2] > 1 else (0, 1)
