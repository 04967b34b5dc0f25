"""Replication: how many copies each stage gets, from the time that the simulation gives one."""

from __future__ import annotations

import math
from collections.abc import Mapping as Lookup

from isa.program import Program
from isa.target import Target
from passes.graph import Graph
from passes.mapping import Mapping
from passes.replicate import POLICIES, Load
from passes.stages import Stage, form_stages, may_replicate
from runtime.timing import simulate

DEFAULT_POLICY = "none"


def choose_copies(
    program: Program, mapping: Mapping, target: Target, policy: str, budget: int | None = None
) -> Lookup[str, int]:
    """Copies of each stage, by the name of its head.

    program: of ``mapping``, one copy each. policy: one of `passes.replicate.POLICIES`. budget:
    crossbars that all copies together may take; those of the chip by default. A copy takes whole
    cores, so a core's crossbars count together. The time of a stage is that of its busiest unit
    in a simulation of one image, so what the policy balances is what the simulation measures.
    """
    stages = form_stages(mapping)
    times = simulate(program, target, 1).layer_times()
    loads = [
        _load(mapping.graph, stage, times[stage.head.name].interval, target) for stage in stages
    ]
    most = target.cores * target.crossbars_per_core
    copies = POLICIES[policy](loads, min(most, most if budget is None else budget))
    return {stage.head.name: count for stage, count in zip(stages, copies, strict=True)}


def _load(graph: Graph, stage: Stage, interval: float, target: Target) -> Load:
    """A stage as the policies see it; one that cannot be copied is a single round."""
    rows, columns, _ = graph.values[stage.head.output].shape
    rounds = rows if may_replicate(graph, stage.head) else 1
    before = graph.values[stage.head.inputs[0]].shape
    return Load(
        rounds=rounds,
        cycles=math.ceil(interval / rounds),
        crossbars=len(stage.workers) * target.crossbars_per_core,
        area_ratio=before[0] * before[1] / (rows * columns),
    )
