"""Phases: cut a model that does not fit the chip into parts that do, to run one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import DTYPES
from isa.target import Target
from passes.estimate import span_cycles
from passes.graph import Graph, Node, PoolNode
from passes.mapping import Mapping
from passes.stages import Stage, Worker, form_stages

DEFAULT_BATCH = 16


@dataclass(frozen=True)
class StageLoad:
    """What a stage adds to a phase. interval: cycles per image. first: cycles to its first row."""

    cores: int
    interval: int
    first: int


def cut_phases(mapping: Mapping, batch: int = DEFAULT_BATCH) -> tuple[Mapping, ...]:
    """The mapping itself where it fits the chip, else parts of it that do, fastest for ``batch``.

    mapping: after the split. Cuts lie between stages in topological order, but not within a
    recurrent layer; a value that a later part needs becomes an output of the one and an input of
    the other.
    Raises PimError M608 for layers that do not fit alone.
    """
    stages, target = form_stages(mapping), mapping.target
    singles = [stage_load(stage, mapping) for stage in stages]
    if sum(load.cores for load in singles) <= target.cores:
        return (mapping,)
    ends = _cut_places(mapping.graph, stages)
    loads = [_together(singles[first:last]) for first, last in pairwise(ends)]
    large = [
        _too_large(stages[first], load.cores, target)
        for first, load in zip(ends[:-1], loads, strict=True)
        if load.cores > target.cores
    ]
    if large:
        raise PimError(*large)
    handed = handed_cycles(mapping.graph, stages, target)
    write = target.crossbar.rows * target.events.cell_set.cycles * target.device.write_repeats
    cuts = best_cuts(
        loads, target.cores, batch, write, lambda start, stop: handed(ends[start], ends[stop])
    )
    return tuple(_part(mapping, stages, ends[first], ends[last]) for first, last in pairwise(cuts))


def _cut_places(graph: Graph, stages: Sequence[Stage]) -> list[int]:
    """Numbers of stages before which a part may begin, 0 and the number of all included."""
    maker = {name: at for at, stage in enumerate(stages) for name in stage.head.results}
    places = set(range(len(stages) + 1))
    for at, stage in enumerate(stages):
        for name in graph.feedback().keys() & set(stage.head.inputs):
            places -= set(range(at + 1, maker[name] + 1))
    return sorted(places)


def _together(loads: Sequence[StageLoad]) -> StageLoad:
    """What stages add to a phase that has them all."""
    return StageLoad(
        sum(load.cores for load in loads),
        max(load.interval for load in loads),
        sum(load.first for load in loads),
    )


def best_cuts(
    loads: Sequence[StageLoad],
    cores: int,
    batch: int,
    write: int,
    handed: Callable[[int, int], int],
) -> tuple[int, ...]:
    """Boundaries 0, ..., len(loads) of the phases that take the fewest cycles for a batch.

    A phase i..j takes the writing of its crossbars, the way of the first row through its stages,
    and for each image the time of its slowest stage or of its traffic, ``handed(i, j)``.
    Exact for the given order of the stages, by dynamic programming over the last phase; each
    load must fit ``cores``. Ties go to the fewer phases. (papers.md 11.2)
    """
    best: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (0,))]
    for stop in range(1, len(loads) + 1):
        options = []
        for start in range(stop - 1, -1, -1):
            part = loads[start:stop]
            if sum(load.cores for load in part) > cores:
                break
            pace = max(max(load.interval for load in part), handed(start, stop))
            cycles = write + sum(load.first for load in part) + batch * pace
            before, count, cuts = best[start]
            options.append((before + cycles, count + 1, (*cuts, stop)))
        best.append(min(options))
    return best[-1][2]


def stage_load(stage: Stage, mapping: Mapping) -> StageLoad:
    """Cores and time of a stage: its busiest crossbar, or elements through a vector unit."""
    rows, columns, _ = mapping.graph.values[stage.head.output].shape
    row = max(
        columns * _window_cycles(worker, stage.head, mapping.target) for worker in stage.workers
    )
    return StageLoad(len(stage.workers), rows * row, row)


def _window_cycles(worker: Worker, head: Node, target: Target) -> int:
    """Cycles of a core for one element of a row: a window of all its channels."""
    if worker.part is None:
        window = int(np.prod(head.kernel)) if isinstance(head, PoolNode) else 1
        return -(-window * (worker.channels[1] - worker.channels[0]) // target.vector.lanes)
    spans = worker.part.blocks.spans
    busy = np.bincount(spans.crossbar, span_cycles(spans.count, target))
    return int(busy.max(initial=0)) * target.inputs.bits


def handed_cycles(
    graph: Graph, stages: Sequence[Stage], target: Target
) -> Callable[[int, int], int]:
    """Cycles per image in which a part loads what earlier ones stored, and stores for later ones.

    Each value counts once in either direction, over all links of the global memory.
    """
    made = {
        name: at for at, stage in enumerate(stages) for node in stage.nodes for name in node.results
    }
    users: dict[str, list[int]] = {name: [] for name in made}
    for at, stage in enumerate(stages):
        for name in {name for node in stage.nodes for name in node.inputs} & made.keys():
            users[name].append(at)
    names = [name for name in made if users[name] and users[name][-1] > made[name]]
    origin = np.array([made[name] for name in names], np.int64)
    last = np.array([users[name][-1] for name in names], np.int64)
    size = np.array([_bytes(graph, name) for name in names], np.float64)
    reads = np.zeros((len(names), len(stages) + 1), np.int64)
    for index, name in enumerate(names):
        reads[index, np.array(users[name]) + 1] = 1
    reads = reads.cumsum(axis=1)
    memory = target.global_memory
    bytes_per_cycle = memory.links * memory.bandwidth_gb_s / target.clock_ghz

    def cycles(start: int, stop: int) -> int:
        loaded = (origin < start) & (reads[:, stop] > reads[:, start])
        stored = (origin >= start) & (origin < stop) & (last >= stop)
        return int(size[loaded | stored].sum() / bytes_per_cycle)

    return cycles


def _bytes(graph: Graph, name: str) -> int:
    value = graph.values[name]
    return int(np.prod(value.shape)) * DTYPES[value.dtype].itemsize


def _part(mapping: Mapping, stages: Sequence[Stage], first: int, last: int) -> Mapping:
    """Stages first..last as a mapping of their own."""
    graph = mapping.graph
    nodes = tuple(node for stage in stages[first:last] for node in stage.nodes)
    later = {name for stage in stages[last:] for node in stage.nodes for name in node.inputs}
    made = {name for node in nodes for name in node.results}
    taken = dict.fromkeys(name for node in nodes for name in node.inputs if name not in made)
    wanted = tuple(
        name for node in nodes for name in node.results if name in later or name in graph.outputs
    )
    handed = (taken.keys() - set(graph.inputs)) | (set(wanted) - set(graph.outputs))
    part = Graph(tuple(taken), wanted, nodes, graph.values, frozenset(handed))
    names = {node.name for node in nodes}
    layers = {name: layer for name, layer in mapping.layers.items() if name in names}
    return replace(mapping, graph=part, layers=layers)


def _too_large(stage: Stage, cores: int, target: Target) -> Diagnostic:
    return Diagnostic(
        "M608",
        f"`{stage.head.name}` alone needs {cores} cores; {target.name} has {target.cores}",
        Location(node=stage.head.name),
        f"`--tiles {cores}` is the smallest chip for it",
    )
