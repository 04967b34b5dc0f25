"""Row compression: per operation-unit column group, rows of zeros are not stored (SRE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from isa.matrix import BlockMatrix
from isa.target import Target
from passes.assemble import starts
from passes.base import Pass
from passes.encoding import encode, signed_bits
from passes.graph import Graph
from passes.grouping import exact_height
from passes.mapping import Mapping, map_layers
from passes.pattern_dedup import DedupPlan, pattern_dedup
from passes.plain_columns import PlainGroups, plain_blocks
from passes.shared_columns import shared_blocks
from passes.weights import LayerWeights

IndexForm = Literal["input", "output"]


@dataclass(frozen=True)
class RowCompress(Pass[Graph, Mapping]):
    """Remove zeros at the grain of an operation unit (SRE, ISCA 2019; papers.md, 7.2).

    Before -> after, index "input" (ORC): the columns of an operation unit use rows 0, 4, 5, 9, ..
    -> one row group holds these rows, and gaps between them are the index. Index "output" (OCC):
    all rows of a group stay, columns of zeros go, and an index tells each column's output.
    shared: of index "input", store equal columns of a group once.
    Exact: yes. A removed cell is 0; selectors say which input each word line carries.
    """

    name: ClassVar[str] = "row-compress"
    exact: ClassVar[bool] = True
    target: Target
    index: IndexForm = "input"
    shared: bool = False

    def run(self, unit: Graph) -> Mapping:
        return map_layers(
            unit,
            self.target,
            lambda weights: row_compress(weights, self.target, self.index, self.shared),
        )


def row_compress(
    weights: LayerWeights, target: Target, index: IndexForm = "input", shared: bool = False
) -> BlockMatrix:
    """The compressed blocks of one layer; see ``RowCompress``."""
    if index == "output":
        return pattern_dedup(weights, target, DedupPlan("none"))
    make = shared_blocks if shared else plain_blocks
    return make(weights, target, compressed_groups(weights, target))


def compressed_groups(weights: LayerWeights, target: Target) -> PlainGroups:
    """The row groups of index form "input", and the weights that they keep."""
    height = exact_height(target)
    bits = signed_bits(weights.values)
    digits = len(encode(weights.values[:0], target.crossbar.cell_bits, bits).shift)
    together = max(1, target.ou.columns // digits)  # outputs whose columns fire together
    sections = [
        _compress_section(weights, section, height, together)
        for section in range(len(weights.values))
    ]
    lists = np.cumsum([0, *(len(part.start) - 1 for part in sections)])
    served = np.concatenate([np.diff(part.start) for part in sections])
    return PlainGroups(
        rows=np.concatenate([part.rows for part in sections]),
        routing=np.concatenate(
            [part.routing + low for part, low in zip(sections, lists[:-1], strict=True)]
        ).astype(np.int32),
        outputs=np.concatenate([part.outputs for part in sections]),
        start=starts(served),
        values=np.concatenate([part.values for part in sections]),
    )


def _compress_section(
    weights: LayerWeights, section: int, height: int, together: int
) -> PlainGroups:
    """Row groups of the non-zero rows of each run of ``together`` outputs."""
    values = weights.values[section]
    count, width = values.shape
    runs = -(-width // together)
    padded = np.zeros((count, runs * together), np.int16)
    padded[:, :width] = values
    by_run = padded.reshape(count, runs, together).transpose(1, 0, 2)  # [runs, rows, outputs]
    run, row = np.nonzero(by_run.any(axis=2))
    kept = np.bincount(run, minlength=runs)
    rank = np.arange(len(run)) - np.repeat(np.cumsum(kept) - kept, kept)
    groups = -(-kept // height)
    group = (np.cumsum(groups) - groups)[run] + rank // height
    rows = np.full((int(groups.sum()), height), -1, np.int32)
    rows[group, rank % height] = weights.rows[section][row]
    taken = np.zeros((len(rows), together, height), np.int16)
    taken[group, :, rank % height] = by_run[run, row]
    routing = np.repeat(np.arange(runs), groups)
    served = np.minimum(together, width - np.arange(runs) * together)
    present = np.arange(together) < served[routing][:, None]
    return PlainGroups(
        rows=rows,
        routing=routing.astype(np.int32),
        outputs=(section * width + np.arange(width)).astype(np.int32),
        start=starts(served),
        values=taken[present],
    )
