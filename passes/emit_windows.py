"""Streams of windowed layers: convolutions, matrix products and pools, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Accumulate, Fill, MaxPool, Mvm, Recv, Requant, Send, SumPool
from isa.operands import Region
from isa.program import Statement
from passes.draft import BufferDraft, Feed, Range
from passes.emit import Site, Tail, deliver, rolled, take_row
from passes.graph import MatrixNode, Node, PoolNode
from passes.roll import roll


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window. pads: (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def rows(self) -> int:
        """Input rows from the first to the last that one window touches."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1

    def input_rows(self, outputs: range, line: int) -> range:
        """The input rows (maybe outside of the input) on ``line`` of the windows of some rows."""
        stride, first = self.stride[0], outputs.start * self.stride[0] + line - self.pads[0]
        return range(first, first + (len(outputs) - 1) * outputs.step * stride + 1,
                     outputs.step * stride)  # fmt: skip

    def columns(self, windows: Range) -> Range:
        """Padded input columns that output columns ``windows`` need."""
        first, last = windows
        reach = (self.kernel[1] - 1) * self.dilation[1] + 1
        return first * self.stride[1], (last - 1) * self.stride[1] + reach


@dataclass(eq=False)
class Intake:
    """Rows of the input as they come into a ring buffer, padding rows included."""

    feed: Feed
    ring: BufferDraft
    window: Window
    zero: int
    taken: int = 0  # padded rows so far

    def until(self, row: int) -> Iterator[list[Statement]]:
        """Steps that bring in the padded rows below ``row`` that are not there yet."""
        top, left = self.window.pads[0], self.window.pads[1]
        while self.taken < row:
            inner, count = self.taken - top, 1
            if 0 <= inner < self.feed.shape[0] and not self.feed.needs(inner):
                pass  # another copy's
            elif 0 <= inner < self.feed.shape[0]:
                yield take_row(self.feed, self.ring, self.taken, inner, left)
            else:
                count = min(row, top) - self.taken if inner < 0 else 1
                yield [Fill(self.ring.box(self.taken, count), self.zero)]
            self.taken += count

    def rest(self) -> Iterator[list[Statement]]:
        """Steps that take the rows nobody needs, so that the channels end empty."""
        if self.feed.tensor is None and self.feed.rows is None:
            yield from self.until(self.window.pads[0] + self.feed.shape[0])


def emit_windowed(site: Site) -> None:
    """Write the stream of a stage whose head is a MatrixNode or a PoolNode."""
    head, window = site.stage.head, window_of(site.stage.head)
    if window is None:
        raise TypeError(f"{head.name} is not a windowed node")
    if isinstance(head, MatrixNode):
        _stream(site, window, _MatrixRow(site, head, window))
    elif isinstance(head, PoolNode) and _is_streamed_sum(site, head):
        emit_streamed_sum(site, head)
    elif isinstance(head, PoolNode):
        _stream(site, window, _PoolRow(site, head, window))


def window_of(head: Node) -> Window | None:
    """The sliding window of a convolution, a product or a pool; None for other nodes."""
    if isinstance(head, MatrixNode):
        _, kernel_rows, kernel_columns, _ = head.weights.shape
        return Window((kernel_rows, kernel_columns), head.stride, head.dilation, head.pads)
    if isinstance(head, PoolNode):
        return Window(head.kernel, head.stride, head.dilation, head.pads)
    return None


def _stream(site: Site, window: Window, writer: _MatrixRow | _PoolRow) -> None:
    """Take rows until a window is there, write the row, and so on."""
    head = site.stage.head
    feed = site.feeds[head.inputs[0]]
    zero = writer.padding
    rows, stride = site.rows(), window.stride[0]
    intake = Intake(feed, writer.ring, window, zero, rows.start * stride)
    advance = min(rows.step * stride, window.rows)  # rows that come in from one to the next
    first = rows.start * stride + window.rows - advance
    body = [*writer.setup(), *roll(list(intake.until(first)), "y", feed.pitch(1))]
    steps = []
    for row in rows:
        step = [s for taken in intake.until(row * stride + window.rows) for s in taken]
        step += writer.row(row)
        if window.rows < stride and row + 1 < rows.stop:  # rows between windows
            step += [s for taken in intake.until((row + 1) * stride) for s in taken]
        steps.append(step)
    body += site.roll_rows(steps, stride)
    site.draft.body += [*body, *roll(list(intake.rest()), "y", feed.pitch(1))]


def _ring(site: Site, name: str, window: Window, fill: int) -> BufferDraft:
    feed = site.feeds[name]
    columns = feed.shape[1] + window.pads[1] + window.pads[3]
    padded = columns > feed.shape[1]
    return site.draft.buffer(
        "rows",
        site.value(name).dtype,
        (window.rows, columns, feed.channels),
        ring=True,
        fill=fill if padded else None,
    )


def _widest(pieces: tuple[Range, ...]) -> int:
    return max(last - first for first, last in pieces)


class _MatrixRow:
    """One output row of a weight layer on one core of a chain."""

    def __init__(self, site: Site, node: MatrixNode, window: Window) -> None:
        part = site.worker.part
        if part is None:
            raise ValueError(f"{node.name} has no crossbars on core {site.worker.core}")
        self.site, self.node, self.window = site, node, window
        self.padding = site.value(node.inputs[0]).zero
        self.ring = _ring(site, node.inputs[0], window, self.padding)
        place, length = site.worker.chain
        name = site.wiring.names.fresh(f"{site.label}.k{place}" if length > 1 else site.label)
        original = site.originals.setdefault(id(part), name)  # copies share their part
        of = "" if original == name else original
        self.matrix = site.draft.matrix(name, part.inputs, part.outputs, part.blocks, of)
        self.pieces = site.wiring.chunks(node.output)
        self.shape = (1, _widest(self.pieces), site.own_shape(node.output)[2])
        self.sums = site.draft.buffer("acc", "s32", self.shape)
        self.partial = site.draft.buffer("part", "s32", self.shape) if site.sums[0] else None
        self.finish = _Finish(self) if site.worker.is_last else None

    def setup(self) -> list[Statement]:
        return self.finish.tail.setup() if self.finish else []

    def row(self, row: int) -> list[Statement]:
        return rolled([self._piece(row, piece) for piece in self.pieces])

    def _piece(self, row: int, piece: Range) -> list[Statement]:
        window, width = self.window, (0, piece[1] - piece[0])
        sums = self.sums.box(columns=width)
        source = self.ring.box(row * window.stride[0], window.rows, window.columns(piece))
        step: list[Statement] = [
            Mvm(sums, self.matrix.name, source, window.kernel, window.stride[1], window.dilation)
        ]
        before, after = self.site.sums
        if before is not None and self.partial is not None:
            partial = self.partial.box(columns=width)
            step += [Recv(partial, before), Accumulate(sums, partial)]
        if after is not None:
            step.append(Send(after, sums))
        if self.finish is not None:
            step += self.finish.piece(row, piece, sums)
        return step


class _Finish:
    """What the last core of a chain does with the sums: requantize, tail, deliver."""

    def __init__(self, rows: _MatrixRow) -> None:
        self.site, self.node = rows.site, rows.node
        dtype = self.site.value(self.node.output).dtype
        self.out = self.site.draft.buffer("out", dtype, rows.shape)
        self.tail = Tail(self.site, self.out)
        self.bias, self.scale = self._requant_tables()

    def piece(self, row: int, piece: Range, sums: Region) -> list[Statement]:
        zero = self.site.value(self.node.output).zero
        box = self.out.box(columns=(0, piece[1] - piece[0]))
        return [
            Requant(box, sums, self.bias, self.scale, zero),
            *self.tail.apply(row, piece),
            *deliver(self.site, self.out, row, piece),
        ]

    def _requant_tables(self) -> tuple[str, str]:
        """Bias, with the constant of the unsigned input stream folded in, and scale."""
        node, source = self.node, self.site.value(self.node.inputs[0])
        own = slice(*self.site.worker.channels)
        offset = source.zero + (128 if source.dtype == "s8" else 0)
        column_sums = node.weights[own].sum(axis=(1, 2, 3), dtype=np.int64)
        bias = (node.bias[own].astype(np.int64) - offset * column_sums).astype(np.int32)
        scale = node.scale if node.scale.size == 1 else node.scale[own]
        tables, label = self.site.tables, self.site.label
        return tables.add(f"{label}.bias", "s32", bias), tables.add(f"{label}.scale", "f32", scale)


class _PoolRow:
    """One output row of a pool."""

    def __init__(self, site: Site, node: PoolNode, window: Window) -> None:
        self.site, self.node, self.window = site, node, window
        value = site.value(node.inputs[0])
        lowest = -128 if value.dtype == "s8" else 0
        self.padding = lowest if node.op == "max" else value.zero
        self.ring = _ring(site, node.inputs[0], window, self.padding)
        self.pieces = site.wiring.chunks(node.output)
        shape = (1, _widest(self.pieces), site.own_shape(node.output)[2])
        if node.op == "sum":
            self.sums = site.draft.buffer("acc", "s32", shape)
        self.out = site.draft.buffer("out", site.value(node.output).dtype, shape)
        self.tail = Tail(site, self.out)

    def setup(self) -> list[Statement]:
        return self.tail.setup()

    def row(self, row: int) -> list[Statement]:
        return rolled([self._piece(row, piece) for piece in self.pieces])

    def _piece(self, row: int, piece: Range) -> list[Statement]:
        window, width = self.window, (0, piece[1] - piece[0])
        how = (window.kernel, window.stride[1], window.dilation)
        source = self.ring.box(row * window.stride[0], window.rows, window.columns(piece))
        out = self.out.box(columns=width)
        if self.node.op == "max":
            done: list[Statement] = [MaxPool(out, source, *how)]
        else:
            sums = self.sums.box(columns=width)
            done = [
                SumPool(sums, source, *how),
                pool_requant(self.site, self.node, out, sums, row, piece),
            ]
        return [*done, *self.tail.apply(row, piece), *deliver(self.site, self.out, row, piece)]


def pool_requant(
    site: Site, node: PoolNode, into: Region, sums: Region, row: int, piece: Range
) -> Requant:
    """Scale the sums of a pool; border windows may have a scale of their own."""
    if node.bias is None or node.scale is None:
        raise ValueError(f"{node.name}: a sum pool needs bias and scale")
    scale: NDArray[np.float32] = node.scale
    if scale.ndim == 3:
        scale = scale[min(row, len(scale) - 1)]
        scale = scale[slice(*piece)] if len(scale) > 1 else scale
        scale = scale[:, slice(*site.worker.channels)] if scale.shape[1] > 1 else scale
    bias = site.tables.add(f"{node.name}.bias", "s32", node.bias)
    table = site.tables.add(f"{node.name}.scale", "f32", scale)
    return Requant(into, sums, bias, table, site.value(node.output).zero)


def _is_streamed_sum(site: Site, node: PoolNode) -> bool:
    """Whether one window covers the whole input, so that rows can be added as they come."""
    rows, columns, _ = site.value(node.inputs[0]).shape
    return node.op == "sum" and node.kernel == (rows, columns) and not any(node.pads)


def emit_streamed_sum(site: Site, node: PoolNode) -> None:
    """Global average: add up each row as it arrives; only one row is ever held."""
    feed = site.feeds[node.inputs[0]]
    rows, columns, _ = feed.shape
    draft, channels = site.draft, feed.channels
    value = site.value(node.inputs[0])
    line = draft.buffer("row", value.dtype, (1, columns, channels))
    part = draft.buffer("part", "s32", (1, 1, channels))
    sums = draft.buffer("acc", "s32", (1, 1, channels))
    out = draft.buffer("out", site.value(node.output).dtype, (1, 1, channels))
    tail = Tail(site, out)
    steps = [
        [
            *take_row(feed, line, 0, row),
            SumPool(part.box(), line.box(), (1, columns)),
            Accumulate(sums.box(), part.box()),
        ]
        for row in range(rows)
    ]
    draft.body += [*tail.setup(), Fill(sums.box(), 0), *site.roll_rows(steps)]
    draft.body.append(pool_requant(site, node, out.box(), sums.box(), 0, (0, 1)))
    draft.body += [*tail.apply(0, (0, 1)), *deliver(site, out, 0, (0, 1))]
