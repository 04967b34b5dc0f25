"""One network for several input shapes: the same blocks, parts that fit all, the same places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.graphs import GraphBuilder

from isa.same_program import same_blocks
from isa.target import load_target
from passes.graph import MatrixNode
from passes.mapping import Mapping
from passes.mesh_place import MeshPlace, placed_like
from passes.ou_tile import OuTile
from passes.room import common_rooms, layer_rooms
from passes.schedule import Schedule
from passes.split import Split
from passes.traffic import core_numbers

SMALL_MEMORY = load_target("ou9x8").with_overrides({"memory.core_bytes": "8192"})


def network(width: int) -> tuple[GraphBuilder, str]:
    b = GraphBuilder(0, (8, width, 32))
    return b, b.conv(b.conv("x", 32, (3, 3), pads=(1,) * 4), 16, (3, 3))


def mapped(width: int) -> Mapping:
    b, output = network(width)
    return OuTile(SMALL_MEMORY).run(b.graph(output))


def test_a_room_is_no_larger_than_in_any_graph() -> None:
    graphs = [mapped(width).graph for width in (8, 40)]
    common = common_rooms(graphs, SMALL_MEMORY)
    for graph in graphs:
        for name, room in layer_rooms(graph, SMALL_MEMORY).items():
            assert common[name].channels <= room.channels
            assert common[name].columns >= room.columns


def test_parts_fit_the_widest_rows_of_all_shapes() -> None:
    narrow, wide = mapped(8), mapped(40)
    alone, together = Split().run(narrow), Split((wide.graph,)).run(narrow)
    (first, *_) = alone.layers
    assert together.layers[first].cores > alone.layers[first].cores
    for name, layer in Split((narrow.graph,)).run(wide).layers.items():
        ours = [part.blocks for row in together.layers[name].parts for part in row]
        theirs = [part.blocks for row in layer.parts for part in row]
        assert all(same_blocks(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_mapping_is_taken_over_only_where_the_weights_are_the_same() -> None:
    narrow, wide = Split().run(mapped(8)), mapped(40).graph
    assert narrow.over(wide).layers.keys() == narrow.layers.keys()
    first, *others = wide.nodes
    assert isinstance(first, MatrixNode)
    for changed in (
        replace(first, weights=np.roll(first.weights, 1)),
        replace(first, groups=2),
        replace(first, name="another"),
    ):
        over = narrow.over(replace(wide, nodes=(changed, *others)))
        assert over.layers.keys() == narrow.layers.keys() - {first.name}


def test_cores_with_the_same_matrices_get_the_same_places() -> None:
    graphs = [mapped(width).graph for width in (8, 12)]
    maps = [Split(tuple(graphs)).run(mapped(width)) for width in (8, 12)]
    first, second = (Schedule(grow=True).run(mapping) for mapping in maps)
    placed = MeshPlace(SMALL_MEMORY).run(first)
    like = placed_like(second, placed)
    assert like is not None
    assert (core_numbers(like) == core_numbers(placed)).all()
    assert placed_like(replace(second, cores=second.cores[1:]), placed) is None
