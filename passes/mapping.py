"""The Mapping: every weight layer of a Graph as OU blocks, whole at first, then in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from isa.matrix import BlockMatrix
from isa.target import Target
from passes.graph import Graph, MatrixNode
from passes.weights import LayerWeights, layer_weights


@dataclass(frozen=True, eq=False)
class Part:
    """What one core holds of a layer.

    inputs, outputs: (start, stop) of the layer's input and output channels. blocks: its rows
    ``k`` count only the channels of ``inputs``; placed in the core's crossbars.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    blocks: BlockMatrix


@dataclass(frozen=True, eq=False)
class MappedLayer:
    """One MatrixNode and its blocks.

    blocks: the whole layer, unplaced. parts: [output part][input part] after ``split``; the
    input parts of one output part add up along a chain of cores.
    """

    node: MatrixNode
    blocks: BlockMatrix
    parts: tuple[tuple[Part, ...], ...] = ()

    @property
    def cores(self) -> int:
        return sum(len(row) for row in self.parts)


@dataclass(frozen=True, eq=False)
class Mapping:
    """A graph, the target it is mapped for, and its layers by node name."""

    graph: Graph
    target: Target
    layers: dict[str, MappedLayer] = field(default_factory=dict)

    def over(self, graph: Graph) -> Mapping:
        """The layers of ``graph``, as far as they are mapped here with the same weights."""
        known = {}
        for node in graph.nodes:
            layer = self.layers.get(node.name) if isinstance(node, MatrixNode) else None
            if layer is not None and isinstance(node, MatrixNode) and _is_same(layer.node, node):
                known[node.name] = replace(layer, node=node)
        return Mapping(graph, self.target, known)


def _is_same(one: MatrixNode, other: MatrixNode) -> bool:
    return one.groups == other.groups and np.array_equal(one.weights, other.weights)


def map_layers(
    graph: Graph, target: Target, scheme: Callable[[LayerWeights], BlockMatrix]
) -> Mapping:
    """The mapping in which a scheme makes the blocks of every weight layer, whole and unplaced."""
    layers = {
        node.name: MappedLayer(node, scheme(layer_weights(node)))
        for node in graph.nodes
        if isinstance(node, MatrixNode)
    }
    return Mapping(graph, target, layers)
