"""Plane skip: bit planes that are all zero in a row group's column are not stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isa.matrix import BlockMatrix
from isa.target import Target
from passes.base import Pass
from passes.encoding import EncodingName
from passes.graph import Graph
from passes.mapping import Mapping, map_layers
from passes.pattern_dedup import DedupPlan, pattern_dedup
from passes.weights import LayerWeights


@dataclass(frozen=True)
class PlaneSkip(Pass[Graph, Mapping]):
    """Leave out every digit column that holds only zeros (papers.md, section 9).

    Before -> after: the 9 weights of output 4 in a group are all below 32 -> planes 5 to 7 of
    their magnitude have no column; the others keep their place in the order of the outputs.
    Exact: yes. A column of zeros adds 0.
    """

    name: ClassVar[str] = "plane-skip"
    exact: ClassVar[bool] = True
    target: Target
    encoding: EncodingName = "sign-magnitude"

    def run(self, unit: Graph) -> Mapping:
        return map_layers(
            unit, self.target, lambda weights: plane_skip(weights, self.target, self.encoding)
        )


def plane_skip(
    weights: LayerWeights, target: Target, encoding: EncodingName = "sign-magnitude"
) -> BlockMatrix:
    """The blocks of one layer without zero columns; see ``PlaneSkip``."""
    return pattern_dedup(weights, target, DedupPlan("none", encoding))
