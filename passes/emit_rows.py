"""Streams of element-wise heads: tables, binary operations, softmax, normalization."""

from __future__ import annotations

from isa.catalog import Const, Lrn, Softmax
from isa.operands import Region
from isa.program import Statement
from passes.draft import BufferDraft
from passes.emit import (
    Site,
    Tail,
    binary,
    constant_buffer,
    constant_row,
    deliver,
    lut,
    real,
    take_row,
)
from passes.graph import BinaryNode, LrnNode, LutNode, Node, SoftmaxNode
from passes.roll import roll


def emit_rows(site: Site) -> None:
    """Write the stream of a stage whose head maps one row of its operands to one row."""
    head, draft = site.stage.head, site.draft
    rows = site.value(head.output).shape[0]
    operands = _Operands(site, head)
    out = draft.buffer("out", site.value(head.output).dtype, (1, *site.own_shape(head.output)[1:]))
    tail = Tail(site, out)
    steps = [
        [
            *operands.take(row),
            _apply(site, head, out.box(), operands.regions(row)),
            *tail.row(row),
            *deliver(site, out, row),
        ]
        for row in range(rows)
    ]
    draft.body += [*operands.setup(), *tail.setup(), *roll(steps, "y")]


class _Operands:
    """Buffers for the operands of a head; one that has a single row is received once."""

    def __init__(self, site: Site, head: Node) -> None:
        self.site, self.head = site, head
        self.rows = site.value(head.output).shape[0]
        self.buffers: dict[str, BufferDraft] = {}
        for name in dict.fromkeys(head.inputs):
            feed = site.feeds[name]
            dtype = site.value(name).dtype
            self.buffers[name] = site.draft.buffer("in", dtype, (1, feed.shape[1], feed.channels))
        self.constant: tuple[BufferDraft, str] | None = None
        if isinstance(head, BinaryNode) and head.constant is not None:
            self.constant = constant_buffer(site, head)

    def setup(self) -> list[Statement]:
        done: list[Statement] = []
        if self.constant is not None:
            buffer, table = self.constant
            done.append(Const(buffer.box(rows=buffer.shape[0]), table))
        for name, buffer in self.buffers.items():
            if self._is_single(name):
                done += take_row(self.site.feeds[name], buffer, 0, 0)
        return done

    def take(self, row: int) -> list[Statement]:
        done: list[Statement] = []
        for name, buffer in self.buffers.items():
            if not self._is_single(name):
                done += take_row(self.site.feeds[name], buffer, 0, row)
        return done

    def regions(self, row: int) -> list[Region]:
        found = [self.buffers[name].box() for name in self.head.inputs]
        if self.constant is not None:
            found.append(constant_row(self.constant[0], row))
        return found

    def _is_single(self, name: str) -> bool:
        return self.rows > 1 and self.site.feeds[name].shape[0] == 1


def _apply(site: Site, node: Node, into: Region, operands: list[Region]) -> Statement:
    """The instruction of one element-wise node."""
    source, result = site.value(node.inputs[0]), site.value(node.output)
    if isinstance(node, LutNode):
        return lut(site, node, into, operands[0])
    if isinstance(node, BinaryNode):
        return binary(site, node, into, operands[0], operands[1])
    if isinstance(node, SoftmaxNode):
        return Softmax(into, operands[0], real(source.scale), real(result.scale), result.zero)
    if isinstance(node, LrnNode):
        return Lrn(
            into,
            operands[0],
            node.size,
            node.alpha,
            node.beta,
            node.bias,
            real(source.scale),
            source.zero,
            real(result.scale),
            result.zero,
        )
    raise TypeError(f"{node.name} is not an element-wise node")
