"""Streams of heads that map rows to rows: tables, arithmetic, normalization, products."""

from __future__ import annotations

from isa.catalog import Lookup, MatMul, Select
from isa.catalog_float import FloatLayerNorm
from isa.catalog_normalize import LayerNorm, LogSoftmax, Lrn, Softmax
from isa.operands import Region
from isa.program import Statement
from passes.draft import BufferDraft, Range
from passes.emit import (
    Site,
    Tail,
    binary,
    deliver,
    float_step,
    lut,
    real,
    rolled,
    take_row,
)
from passes.emit_constants import Constant
from passes.graph import (
    BinaryNode,
    FloatLayerNormNode,
    LayerNormNode,
    LogSoftmaxNode,
    LookupNode,
    LrnNode,
    LutNode,
    Node,
    ProductNode,
    RealNode,
    SelectNode,
    SoftmaxNode,
)


def emit_rows(site: Site) -> None:
    """Write the stream of a stage whose head maps one piece of a row to one piece."""
    head, draft = site.stage.head, site.draft
    channels = site.own_shape(head.output)[2]
    pieces = site.wiring.chunks(head.output)
    widest = max(last - first for first, last in pieces)
    operands = _Operands(site, head, widest)
    out = draft.buffer("out", site.value(head.output).dtype, (1, widest, channels))
    tail = Tail(site, out)

    def step(row: int, piece: Range) -> list[Statement]:
        box = out.box(columns=(0, piece[1] - piece[0]))
        return [
            *operands.take(row, piece),
            _apply(site, head, box, operands.regions(row, piece)),
            *tail.apply(row, piece),
            *deliver(site, out, row, piece),
        ]

    steps = [rolled([step(row, piece) for piece in pieces]) for row in site.rows()]
    draft.body += [*operands.setup(), *tail.setup(), *site.roll_rows(steps)]


class _Operands:
    """Buffers for the operands of a head.

    An operand of the result's shape comes piece by piece; one that broadcasts, or that every
    column of the result needs whole, is kept by rows: received once if it has a single row, else
    at the start of each row.
    """

    def __init__(self, site: Site, head: Node, widest: int) -> None:
        self.site, self.head = site, head
        self.shape = site.value(head.output).shape
        self.buffers: dict[str, BufferDraft] = {}
        for name in dict.fromkeys(head.inputs):
            feed = site.feeds[name]
            width = widest if self._is_piecewise(name) else feed.shape[1]
            dtype = site.value(name).dtype
            self.buffers[name] = site.draft.buffer("in", dtype, (1, width, feed.channels))
        self.constant: Constant | None = None
        if isinstance(head, BinaryNode | SelectNode) and head.constant is not None:
            self.constant = site.constant(head, widest)

    def setup(self) -> list[Statement]:
        done: list[Statement] = []
        if self.constant is not None:
            done += self.constant.setup()
        for name, buffer in self.buffers.items():
            if self._is_kept(name):
                done += take_row(self.site.feeds[name], buffer, 0, 0)
        return done

    def take(self, row: int, piece: Range) -> list[Statement]:
        done: list[Statement] = []
        for name, buffer in self.buffers.items():
            feed = self.site.feeds[name]
            if self._is_piecewise(name):
                done += take_row(feed, buffer, 0, row, piece=piece)
            elif not self._is_kept(name) and piece[0] == 0:
                done += take_row(feed, buffer, 0, row)
        if self.constant is not None:
            done += self.constant.take(row, piece)
        return done

    def regions(self, row: int, piece: Range) -> list[Region]:
        found = []
        for name in self.head.inputs:
            buffer = self.buffers[name]
            if self._is_matrix(name):
                found.append(buffer.box())
                continue
            if isinstance(self.head, LookupNode):  # a number per column
                found.append(buffer.box(channels=piece))
                continue
            columns = (0, piece[1] - piece[0]) if self._is_piecewise(name) else piece
            found.append(buffer.box(columns=columns if buffer.shape[1] > 1 else None))
        if self.constant is not None:
            found.append(self.constant.region(row, piece))
        return found

    def _is_piecewise(self, name: str) -> bool:
        """Whether the operand travels in the same pieces as the result."""
        if self._is_matrix(name) or isinstance(self.head, LookupNode):
            return False
        wiring = self.site.wiring
        rows, columns, _ = self.site.value(name).shape
        same = (rows, columns) == self.shape[:2]
        return same and wiring.chunks(name) == wiring.chunks(self.head.output)

    def _is_matrix(self, name: str) -> bool:
        """Whether the operand is the second one of a product."""
        return isinstance(self.head, ProductNode) and name == self.head.inputs[1]

    def _is_kept(self, name: str) -> bool:
        return self.site.value(name).shape[0] == 1 and not self._is_piecewise(name)


def _apply(site: Site, node: Node, into: Region, operands: list[Region]) -> Statement:
    """The instruction of one element-wise node."""
    source, result = site.value(node.inputs[0]), site.value(node.output)
    if isinstance(node, LutNode):
        return lut(site, node, into, operands[0])
    if isinstance(node, BinaryNode):
        return binary(site.graph.values, node, into, operands[0], operands[1])
    if isinstance(node, SelectNode):
        return _select(site, node, into, operands)
    if isinstance(node, LookupNode):
        table = site.tables.add(f"{node.name}.rows", site.value(node.output).dtype, node.table)
        return Lookup(into, operands[0], table)
    if isinstance(node, SoftmaxNode | LogSoftmaxNode):
        powers = site.tables.add(f"{node.name}.powers", "s32", node.powers)
        if isinstance(node, LogSoftmaxNode):
            scale = real(result.scale)
            return LogSoftmax(into, operands[0], powers, node.scale, scale, result.zero)
        return Softmax(into, operands[0], powers, real(result.scale), result.zero)
    if isinstance(node, LayerNormNode):
        gain = site.tables.add(f"{node.name}.gain", "f32", node.gain)
        offset = site.tables.add(f"{node.name}.offset", "f32", node.offset)
        scale = real(result.scale)
        return LayerNorm(into, operands[0], gain, offset, node.epsilon, scale, result.zero)
    if isinstance(node, RealNode):
        return float_step(site.graph.values, node, into, operands[0])
    if isinstance(node, FloatLayerNormNode):
        gain = site.tables.add(f"{node.name}.gain", "f32", node.gain)
        offset = site.tables.add(f"{node.name}.offset", "f32", node.offset)
        numbers = (real(source.scale), source.zero, real(result.scale), result.zero)
        return FloatLayerNorm(into, operands[0], gain, offset, node.epsilon, *numbers)
    if isinstance(node, ProductNode):
        zero_b = site.value(node.inputs[1]).zero
        a, b = operands
        return MatMul(into, a, b, source.zero, zero_b, node.scale, result.zero)
    if isinstance(node, LrnNode):
        return Lrn(
            into,
            operands[0],
            node.size,
            node.factor,
            node.beta,
            node.bias,
            real(source.scale),
            source.zero,
            real(result.scale),
            result.zero,
        )
    raise TypeError(f"{node.name} is not an element-wise node")


def _select(site: Site, node: SelectNode, into: Region, operands: list[Region]) -> Select:
    """The instruction of a choice; an inverted one exchanges what is chosen from."""
    mask, a, b = operands
    parameters = [(real(value.scale), value.zero) for value in map(site.value, node.inputs[1:])]
    if node.constant is not None:
        parameters.append((node.constant_scale, node.constant_zero))
    if node.is_inverted:
        a, b, parameters = b, a, parameters[::-1]
    (scale_a, zero_a), (scale_b, zero_b) = parameters
    result = site.value(node.output)
    numbers = (scale_a, zero_a, scale_b, zero_b, real(result.scale), result.zero)
    return Select(into, mask, a, b, *numbers)
