"""Phases: a model too large for the chip runs in parts, and gives what it gives whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import GraphBuilder, evaluate

from isa.diagnostics import PimError
from isa.phases import Phases
from isa.target import Target, load_target
from isa.verify import verify
from passes.graph import Graph
from passes.mapping import Mapping
from passes.mesh_place import MeshPlace
from passes.ou_tile import OuTile
from passes.phases import StageLoad, best_cuts, cut_phases, handed_cycles, stage_load
from passes.schedule import Schedule
from passes.split import Split
from passes.stages import form_stages
from runtime.phase_summary import phase_summary
from runtime.phased import PhasedMachine
from runtime.summary import summary

Handed = Callable[[int, int], int]


def cycles(cuts: tuple[int, ...], loads: list[StageLoad], batch: int, write: int, h: Handed) -> int:
    """The cost of a cut, written out once more."""
    total = 0
    for start, stop in pairwise(cuts):
        total += write + sum(load.first for load in loads[start:stop])
        total += batch * max(h(start, stop), *(load.interval for load in loads[start:stop]))
    return total


@given(st.integers(0, 100_000), st.integers(1, 9), st.integers(1, 40), st.integers(0, 500))
def test_cuts_are_the_best_of_all(seed: int, stages: int, batch: int, write: int) -> None:
    random = np.random.default_rng(seed)
    loads = [
        StageLoad(*(int(n) for n in random.integers((1, 1, 0), (6, 100, 50))))
        for _ in range(stages)
    ]
    cores = int(random.integers(5, 12))
    traffic = random.integers(0, 120, (stages + 1, stages + 1))

    def handed(start: int, stop: int) -> int:
        return int(traffic[start, stop])

    options = [
        (0, *inner, stages)
        for count in range(stages)
        for inner in combinations(range(1, stages), count)
    ]
    fitting = [
        cuts
        for cuts in options
        if all(sum(x.cores for x in loads[i:j]) <= cores for i, j in pairwise(cuts))
    ]
    least = min(cycles(cuts, loads, batch, write, handed) for cuts in fitting)
    found = best_cuts(loads, cores, batch, write, handed)
    assert found in fitting
    assert cycles(found, loads, batch, write, handed) == least


def test_slow_stages_share_a_phase() -> None:
    loads = [StageLoad(1, interval, 0) for interval in (1, 1, 100, 100)]
    assert best_cuts(loads, 3, 16, 0, lambda start, stop: 0) == (0, 1, 4)


def residual() -> tuple[GraphBuilder, tuple[str, ...]]:
    """Skips over several stages, a value with three users, an inner value that is an output."""
    b = GraphBuilder(5, (9, 8, 5))
    a = b.conv("x", 24, (3, 3), pads=(1, 1, 1, 1))
    c = b.lut(b.conv(a, 24, (3, 3), pads=(1, 1, 1, 1)), per_channel=True)
    d = b.conv(c, 24, (1, 1))
    e = b.conv(b.binary("add", d, a), 16, (3, 3), stride=(2, 2))
    f = b.conv(b.concat(e, b.conv(c, 8, (3, 3), stride=(2, 2))), 10)
    return b, (c, f)


def chip(cores: int) -> Target:
    return load_target("tiny").with_cores(cores)


def mapped(graph: Graph, target: Target) -> Mapping:
    return Split().run(OuTile(target).run(graph))


def phased(graph: Graph, target: Target, outputs: tuple[str, ...], batch: int = 16) -> Phases:
    parts = cut_phases(mapped(graph, target), batch)
    programs = tuple(MeshPlace(target).run(Schedule().run(part)) for part in parts)
    stored = {t.onnx_name: t.name for p in programs for t in p.tensors if t.role == "output"}
    phases = Phases(programs, tuple(stored[name] for name in outputs))
    phases.check()
    return phases


def smallest(graph: Graph) -> int:
    """Cores of the largest stage."""
    return max(len(s.workers) for s in form_stages(mapped(graph, chip(1))))


@pytest.mark.parametrize("more", [0, 1, 4, 1000])
def test_phases_compute_what_the_whole_computes(more: int) -> None:
    builder, outputs = residual()
    graph = builder.graph(*outputs)
    target = chip(smallest(graph) + more)
    phases = phased(graph, target, outputs)
    assert (len(phases.programs) == 1) == (more == 1000)
    for program in phases.programs:
        assert verify(program, target) == []
    feeds = builder.feed(3)
    wanted = evaluate(graph, feeds)
    names = {t.onnx_name: t.name for t in phases.interface.tensors}
    result = PhasedMachine(phases, target).run({names["x"]: feeds["x"]}, trace=True)
    assert list(result.outputs) == [names[name] for name in outputs]
    assert result.counters.images == 3
    tensors = {**result.tensors, **result.outputs}
    compared = [name for name in names if names[name] in tensors and name != "x"]
    assert set(outputs) < set(compared)
    for name in compared:
        np.testing.assert_array_equal(tensors[names[name]], wanted[name])


def test_every_layer_is_in_one_phase_and_every_phase_fits() -> None:
    builder, outputs = residual()
    graph = builder.graph(*outputs)
    target = chip(smallest(graph) + 2)
    mapping = mapped(graph, target)
    parts = cut_phases(mapping)
    assert len(parts) > 1
    assert sorted(n.name for p in parts for n in p.graph.nodes) == sorted(
        n.name for n in graph.nodes
    )
    for part in parts:
        assert sum(len(s.workers) for s in form_stages(part)) <= target.cores
    assert sorted(name for part in parts for name in part.layers) == sorted(mapping.layers)


def test_what_crosses_a_cut_is_counted_once_each_way() -> None:
    builder, outputs = residual()
    graph = builder.graph(*outputs)
    mapping = mapped(graph, chip(1000))
    stages = form_stages(mapping)
    handed = handed_cycles(graph, stages, mapping.target)
    assert handed(0, len(stages)) == 0
    memory = mapping.target.global_memory
    pace = memory.links * memory.bandwidth_gb_s / mapping.target.clock_ghz
    for cut in range(1, len(stages)):
        before = {n.output for s in stages[:cut] for n in s.nodes}
        after = {name for s in stages[cut:] for n in s.nodes for name in n.inputs}
        size = sum(int(np.prod(graph.values[name].shape)) for name in before & after)
        assert handed(0, cut) == handed(cut, len(stages)) == int(size / pace)


def test_a_stage_load_is_near_its_simulated_time() -> None:
    builder = GraphBuilder(1, (12, 12, 16))
    graph = builder.graph(builder.conv("x", 32, (3, 3)))
    mapping = mapped(graph, chip(64))
    (stage,) = form_stages(mapping)
    load = stage_load(stage, mapping)
    program = Schedule().run(mapping)
    found = summary(program, chip(64), 4)
    assert load.interval == pytest.approx(
        found["bound_interval_ns"] / mapping.target.cycle_ns, rel=0.15
    )


def test_a_layer_too_large_for_the_chip_is_named() -> None:
    builder, outputs = residual()
    graph = builder.graph(*outputs)
    needed = smallest(graph)
    assert needed > 1
    with pytest.raises(PimError, match=rf"alone needs {needed} cores") as error:
        cut_phases(mapped(graph, chip(needed - 1)))
    assert {d.code for d in error.value.diagnostics} == {"M608"}


def test_a_batch_pays_for_every_write_once() -> None:
    builder, outputs = residual()
    graph = builder.graph(*outputs)
    target = chip(smallest(graph))
    phases = phased(graph, target, outputs)
    alone = [summary(program, target, 1) for program in phases.programs]
    one, eight = (phase_summary(phases, target, images) for images in (1, 8))
    writing_ns = sum(each["programming"]["time_ns"] for each in alone)
    writing_pj = sum(each["programming"]["energy_pj"] for each in alone)
    assert (
        one["latency_ns"]
        == one["interval_ns"]
        == pytest.approx(writing_ns + sum(each["latency_ns"] for each in alone))
    )
    assert one["energy_pj"]["programming"] == pytest.approx(writing_pj)
    assert eight["energy_pj"]["programming"] == pytest.approx(writing_pj / 8)
    assert eight["energy_pj"]["dynamic"] == pytest.approx(one["energy_pj"]["dynamic"])
    assert eight["interval_ns"] < one["interval_ns"]
    assert eight["interval_ns"] >= eight["bound_interval_ns"]
    assert one["macs"] == sum(each["macs"] for each in alone)
