"""Layer after layer: what a program takes when no two layers work at once."""

from __future__ import annotations

from support.graphs import GraphBuilder
from support.networks import compiled, lenet

from isa.target import load_target
from runtime.timing import simulate
from runtime.unpipelined import layer_by_layer

OU9X8 = load_target("ou9x8")


def test_a_single_layer_takes_as_long_alone() -> None:
    builder = GraphBuilder(0, (12, 12, 8))
    program, target = compiled(builder, builder.conv("x", 32, (3, 3)), OU9X8)
    assert sum(layer_by_layer(program, target).values()) == simulate(program, target).makespan


def test_an_image_takes_longer_layer_after_layer_than_in_a_pipeline() -> None:
    builder, output = lenet()
    program, target = compiled(builder, output, OU9X8)
    found = layer_by_layer(program, target)
    timeline = simulate(program, target, 4)
    assert list(found) == list(dict.fromkeys(core.layer for core in program.cores))
    assert sum(found.values()) > timeline.latency > max(found.values())
    for name, layer in timeline.layer_times().items():
        assert found[name] >= layer.interval
