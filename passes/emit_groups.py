"""Streams of normalization over all rows: sums while the rows come, then row by row once more."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Fill
from isa.catalog_normalize import GroupNorm, Moments
from isa.operands import Region
from isa.program import Statement
from passes.draft import BufferDraft, Range
from passes.emit import Site, Tail, deliver, real, rolled, take_row
from passes.graph import GroupNormNode


def emit_group_norm(site: Site, node: GroupNormNode) -> None:
    """Write the stream of a stage that can give nothing before it has seen all rows.

    They wait in a buffer, in global memory where the core's is too small (decision 0017).
    """
    (name,) = node.inputs
    feed, draft = site.feeds[name], site.draft
    rows, _, channels = feed.shape
    whole = draft.buffer("rows", site.value(name).dtype, feed.shape)
    sums = draft.buffer("sums", "s32", (1, 3, node.groups))
    pieces = site.wiring.chunks(node.output)
    widest = max(last - first for first, last in pieces)
    out = draft.buffer("out", site.value(node.output).dtype, (1, widest, channels))
    tail = Tail(site, out)

    def step(row: int, piece: Range) -> list[Statement]:
        box = out.box(columns=(0, piece[1] - piece[0]))
        return [
            _norm(site, node, box, whole.box(row, columns=piece), sums, (row, piece)),
            *tail.apply(row, piece),
            *deliver(site, out, row, piece),
        ]

    arrivals = [
        [*take_row(feed, whole, row, row), Moments(sums.box(), whole.box(row))]
        for row in range(rows)
    ]
    draft.body += [*tail.setup(), Fill(sums.box(), 0), *site.roll_rows(arrivals)]
    draft.body += site.roll_rows([rolled([step(row, piece) for piece in pieces])
                                  for row in site.rows()])  # fmt: skip


def _norm(
    site: Site,
    node: GroupNormNode,
    into: Region,
    source: Region,
    sums: BufferDraft,
    at: tuple[int, Range],
) -> GroupNorm:
    """The instruction for a piece of a row, with its part of gain and offset."""
    gain, offset = (
        site.tables.add(f"{node.name}.{end}", "f32", _part(values, *at))
        for end, values in (("gain", node.gain), ("offset", node.offset))
    )
    count = math.prod(site.value(node.inputs[0]).shape) // node.groups
    result = site.value(node.output)
    scale, zero = real(result.scale), result.zero
    return GroupNorm(into, source, sums.box(), gain, offset, count, node.epsilon, scale, zero)


def _part(values: NDArray[np.float32], row: int, piece: Range) -> NDArray[np.float32]:
    """[columns, channels] of gain or offset for columns ``piece`` of a row."""
    line: NDArray[np.float32] = values[min(row, len(values) - 1)]
    return line[slice(*piece)] if len(line) > 1 else line[0]
