"""Swap descent: improve an assignment of cores to seats by exchanging two of them at a time."""

from __future__ import annotations

from copy import copy
from typing import Final

import numpy as np

from passes.traffic import Int64, Traffic

SWEEPS: Final = 40  # through all cores, at most; a few suffice where a start is good
ROUNDS: Final = 20  # descents from a shaken best, at most
TRIALS: Final = 20_000  # of best exchanges, in all rounds, so that many cores take fewer rounds
SHAKEN: Final = 6  # cores that change seats before a round
MAX_SEATS: Final = 8192  # beyond it the start stands: tables are seats times routers
SEED: Final = 0


def descend(flow: Traffic, router: Int64, hops: Int64, start: Int64) -> Int64:
    """Seats of the cores, int64 [cores], where no exchange of two seats makes a better sum.

    Minimizes bytes times hops. router: of each seat, [seats]. hops: [routers, routers].
    start: a permutation of the seats; entry i is the seat of core i, or of nobody for
    i >= ``flow.cores``. In a random but fixed order, each core takes its best exchange, until
    none improves; then the same again from the best with a few cores shaken. Never worse than
    the start.
    """
    if len(router) > MAX_SEATS or not len(flow.size):
        return start[: flow.cores]
    random = np.random.default_rng(SEED)
    cores = np.unique([flow.first, flow.second])
    best = _State(flow, router, hops, start)
    left = TRIALS - _settle(best, random.permutation(cores).tolist())
    for _ in range(ROUNDS):
        if left <= 0 or best.total == flow.size.sum():  # all neighbours: no sum is smaller
            break
        trial = copy(best)
        for core in random.choice(cores, min(SHAKEN, len(cores)), replace=False).tolist():
            trial.swap(core, int(random.integers(len(router))))
        left -= _settle(trial, random.permutation(cores).tolist())
        if trial.total <= best.total:
            best = trial
    return best.seat[: flow.cores]


def _settle(state: _State, order: list[int]) -> int:
    """Sweep through the cores until none can be helped; how many were tried."""
    for sweep in range(SWEEPS):
        if sum(state.improve(core) for core in order) == 0:
            return (sweep + 1) * len(order)
    return SWEEPS * len(order)


class _State:
    """An assignment, and the cost of each of its cores at every router.

    total: bytes times hops. at: router of each core, [seats]; empty seats count as cores, too.
    cost: [seats, routers], bytes times hops of a core's messages if it alone moved there.
    """

    def __init__(self, flow: Traffic, router: Int64, hops: Int64, start: Int64) -> None:
        self.hops, self.seat = hops, start.copy()
        self.at: Int64 = router[start]
        apart = hops[self.at[flow.first], self.at[flow.second]]
        self.total = int((flow.size * apart).sum())
        self.near = np.diagonal(hops)  # between cores at one router
        self.index = np.arange(len(start))
        self.neighbours = _neighbours(flow, len(start))
        self.cost = np.zeros((len(start), len(hops)), np.int64)
        for core, (others, size) in enumerate(self.neighbours):
            self.cost[core] = size @ hops[self.at[others]]

    def __copy__(self) -> _State:
        twin = object.__new__(_State)
        twin.__dict__ |= self.__dict__
        twin.seat, twin.at, twin.cost = self.seat.copy(), self.at.copy(), self.cost.copy()
        return twin

    def improve(self, core: int) -> bool:
        """Exchange ``core`` with whom it helps most, if it helps at all."""
        change = self._changes(core)
        best = int(change.argmin())
        if change[best] >= 0:
            return False
        self._exchange(core, best, int(change[best]))
        return True

    def swap(self, a: int, b: int) -> None:
        """Exchange the seats of two cores, for better or worse."""
        if a != b:
            self._exchange(a, b, int(self._changes(a)[b]))

    def _changes(self, core: int) -> Int64:
        """What an exchange of ``core`` with each other one adds to the total, [seats]."""
        at, cost, here = self.at, self.cost, self.at[core]
        change = cost[core, at] - cost[core, here] + cost[:, here] - cost[self.index, at]
        others, size = self.neighbours[core]
        there = at[others]  # messages between the two keep their way
        change[others] += size * (2 * self.hops[here, there] - self.near[here] - self.near[there])
        return np.asarray(change)

    def _exchange(self, a: int, b: int, change: int) -> None:
        self.total += change
        moved = self.hops[self.at[b]] - self.hops[self.at[a]]
        for core, way in ((a, moved), (b, -moved)):
            others, size = self.neighbours[core]
            self.cost[others] += size[:, None] * way
        for table in (self.at, self.seat):
            table[a], table[b] = table[b], table[a]


def _neighbours(flow: Traffic, seats: int) -> list[tuple[Int64, Int64]]:
    """Of each core: those it exchanges messages with, and the bytes."""
    here = np.concatenate([flow.first, flow.second])
    there = np.concatenate([flow.second, flow.first])
    order = np.argsort(here, kind="stable")
    bounds = np.searchsorted(here[order], np.arange(seats + 1))
    there, size = there[order], np.concatenate([flow.size, flow.size])[order]
    return [
        (there[low:high], size[low:high])
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
