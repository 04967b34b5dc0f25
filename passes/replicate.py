"""Replication: how many copies of each layer make the slowest layer of the pipeline fastest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """One layer as replication sees it.

    rounds: what is divided among the copies (output rows of one image). cycles: time of one
    round on one copy. crossbars: what one copy takes. area_ratio: by how much the layer's output
    shrinks against the layer before it (stride times pool, squared), for ISAAC's rule.
    """

    rounds: int
    cycles: int
    crossbars: int
    area_ratio: float = 1.0

    def interval(self, copies: int) -> int:
        """Cycles between images when ``copies`` share the rounds."""
        return -(-self.rounds // copies) * self.cycles


def initiation_interval(loads: Sequence[Load], copies: Sequence[int]) -> int:
    """Cycles between images of the whole pipeline: those of its slowest layer."""
    return max(load.interval(count) for load, count in zip(loads, copies, strict=True))


def crossbars_used(loads: Sequence[Load], copies: Sequence[int]) -> int:
    return sum(load.crossbars * count for load, count in zip(loads, copies, strict=True))


def min_max(loads: Sequence[Load], budget: int) -> tuple[int, ...]:
    """Copies with the smallest initiation interval that ``budget`` crossbars allow.

    Exact: the interval is one of ``cycles * ceil(rounds / copies)``; whether an interval can be
    reached is monotone in it, so bisection over the candidates finds the optimum (papers.md
    11.2). Among the choices with that interval, the one with the fewest crossbars. One copy each
    when even that exceeds the budget.
    """
    if not loads:
        return ()
    candidates = sorted({load.interval(r) for load in loads for r in _useful(load.rounds)})
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        copies = _copies_for(loads, candidates[middle])
        if copies is not None and crossbars_used(loads, copies) <= budget:
            high = middle
        else:
            low = middle + 1
    best = _copies_for(loads, candidates[low])
    if best is None or crossbars_used(loads, best) > budget:
        return (1,) * len(loads)
    return best


def _useful(rounds: int) -> list[int]:
    """One number of copies for each value that ceil(rounds / copies) takes."""
    found, copies = [], 1
    while copies <= rounds:
        share = -(-rounds // copies)
        found.append(-(-rounds // share))
        copies = -(-rounds // (share - 1)) if share > 1 else rounds + 1
    return found or [1]


def _copies_for(loads: Sequence[Load], interval: int) -> tuple[int, ...] | None:
    """The fewest copies with which no layer takes longer than ``interval``; None if impossible."""
    copies = []
    for load in loads:
        per_copy = interval // load.cycles if load.cycles else load.rounds
        if per_copy == 0:
            return None
        copies.append(max(1, -(-load.rounds // per_copy)))
    return tuple(copies)


def greedy(loads: Sequence[Load], budget: int) -> tuple[int, ...]:
    """A copy more for the slowest layer, again and again, while it fits (PIMCOMP's balance)."""
    copies = [1] * len(loads)
    left = budget - crossbars_used(loads, copies)
    heap = [(-load.interval(1), index) for index, load in enumerate(loads)]
    heapq.heapify(heap)
    while heap:
        _, index = heapq.heappop(heap)
        load = loads[index]
        if load.crossbars > left or copies[index] >= load.rounds:
            break  # the slowest layer cannot be helped, so nothing can
        copies[index] += 1
        left -= load.crossbars
        heapq.heappush(heap, (-load.interval(copies[index]), index))
    return tuple(copies)


def uniform(loads: Sequence[Load], budget: int) -> tuple[int, ...]:
    """The same number of copies of every layer, as many as fit."""
    single = max(1, crossbars_used(loads, [1] * len(loads)))
    count = max(1, budget // single)
    return tuple(min(count, max(1, load.rounds)) for load in loads)


def isaac(loads: Sequence[Load], budget: int) -> tuple[int, ...]:
    """Copies in the ratio of the output areas, backwards from the last layer, scaled to fit."""
    wish = [1.0] * len(loads)
    for index in range(len(loads) - 2, -1, -1):
        wish[index] = wish[index + 1] * loads[index + 1].area_ratio
    copies, low, high = (1,) * len(loads), 0.0, float(max(1, budget))
    for _ in range(40):
        scale = (low + high) / 2
        trial = tuple(
            min(max(1, int(share * scale)), max(1, load.rounds))
            for share, load in zip(wish, loads, strict=True)
        )
        if crossbars_used(loads, trial) <= budget:
            copies, low = trial, scale
        else:
            high = scale
    return copies


def none(loads: Sequence[Load], budget: int) -> tuple[int, ...]:
    """One copy of every layer, whatever the budget."""
    return (1,) * len(loads)


POLICIES: dict[str, Callable[[Sequence[Load], int], tuple[int, ...]]] = {
    "none": none,
    "min-max": min_max,
    "greedy": greedy,
    "uniform": uniform,
    "isaac": isaac,
}
