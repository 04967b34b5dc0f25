"""Mesh placement: give every core the place on the mesh from which its messages travel few hops.

A quadratic assignment problem: cores to places, bytes between cores times hops between places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from isa.diagnostics import Diagnostic, PimError
from isa.program import Program
from isa.target import Target
from passes.base import Pass
from passes.swap_descent import descend
from passes.traffic import Int64, Traffic, core_numbers, traffic

METHODS: Final = ("none", "descent", "faq", "best")
DEFAULT_METHOD: Final = "descent"
FAQ_SEATS: Final = 400  # beyond it, `best` leaves FAQ out: its time grows with the cube


@dataclass(frozen=True)
class MeshPlace(Pass[Program, Program]):
    """Number the cores anew, so that cores which exchange much share a router or are neighbours.

    Before -> after: cores numbered along the layers -> the number of a core is its place on the
    mesh (`Target.router_of`). Exact: yes; only numbers change, and the cores keep their order in
    the text. method: "none"; "descent", from a snake through the layers by improving swaps;
    "faq", by SciPy's fast approximate quadratic assignment, then swaps; "best" of both. A
    placement is only taken when it is better than the one before.
    """

    name: ClassVar[str] = "mesh-place"
    exact: ClassVar[bool] = True
    target: Target
    method: str = DEFAULT_METHOD

    def run(self, unit: Program) -> Program:
        """The placed program. Raises PimError U904 for "faq" without SciPy."""
        flow = traffic(unit)
        if self.method == "none" or not len(flow.size):
            return unit
        target = self.target.with_mesh(flow.cores)
        seats = Seats.on(target, flow.cores)
        best = given = core_numbers(unit)
        least = flow.byte_hops(given, target)
        for taken in self._trials(flow, seats):
            numbers = seats.numbers(taken)
            found = flow.byte_hops(numbers, target)
            if found < least:
                best, least = numbers, found
        return unit if best is given else renumbered(unit, best)

    def _trials(self, flow: Traffic, seats: Seats) -> Iterator[Int64]:
        """Seats of the cores, one array for each way of the method."""
        if self.method in ("descent", "best"):
            yield descend(flow, seats.router, seats.hops, np.arange(len(seats.router)))
        if self.method == "faq" or (self.method == "best" and len(seats.router) <= FAQ_SEATS):
            start = fast_assignment(flow, seats, is_needed=self.method == "faq")
            if start is not None:
                yield descend(flow, seats.router, seats.hops, start)


@dataclass(frozen=True, eq=False)
class Seats:
    """Places for cores in a near-square part of the mesh, along a snake through its routers.

    router: index of the router of each seat, int64 [seats]. first_core: number of the first core
    at each router, int64 [routers]. hops: between routers, as `Target.hops`.
    """

    router: Int64
    first_core: Int64
    hops: Int64

    @classmethod
    def on(cls, target: Target, cores: int) -> Seats:
        """The smallest part that holds ``cores``; the target must hold them."""
        h = target.hierarchy
        routers = -(-cores // h.concentration)
        width = min(h.mesh_width, math.isqrt(routers - 1) + 1)
        height = min(h.mesh_height, -(-routers // width))
        width = max(width, -(-routers // height))
        y, x = np.divmod(np.arange(width * height), width)
        x = np.where(y % 2 == 0, x, width - 1 - x)
        apart = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
        return cls(
            np.repeat(np.arange(width * height), h.concentration),
            (y * h.mesh_width + x) * h.concentration,
            np.maximum(apart, 1),
        )

    def numbers(self, seats: Int64) -> Int64:
        """Numbers of the cores that sit on ``seats``; at one router in the order of the cores."""
        router = self.router[seats]
        order = np.argsort(router, kind="stable")
        rank = np.empty_like(order)
        sorted_router = router[order]
        rank[order] = np.arange(len(order)) - np.searchsorted(sorted_router, sorted_router)
        return np.asarray(self.first_core[router] + rank)


def fast_assignment(flow: Traffic, seats: Seats, is_needed: bool) -> Int64 | None:
    """Seats by SciPy's FAQ (Vogelstein et al. 2015), int64 [seats]; None where SciPy is absent.

    Raises PimError U904 where it is absent and needed.
    """
    try:
        from scipy.optimize import quadratic_assignment  # late: an extra, and slow to load
    except ImportError:
        if not is_needed:
            return None
        hint = "install it with `pip install 'pimc[place]'`, or use `--place descent`"
        message = "`--place faq` needs the package scipy, which is not installed"
        raise PimError(Diagnostic("U904", message, hint=hint)) from None
    count = len(seats.router)
    sent = np.zeros((count, count))
    sent[flow.first, flow.second] = sent[flow.second, flow.first] = flow.size
    apart = seats.hops[np.ix_(seats.router, seats.router)]
    found = quadratic_assignment(sent, apart, options={"rng": np.random.default_rng(0)})
    return np.asarray(found.col_ind, np.int64)


def placed_like(program: Program, model: Program) -> Program | None:
    """The program with each core where ``model`` has the one with the same matrices.

    None where the cores of the two do not correspond one by one.
    """
    ours, theirs = (
        [(core.layer, [matrix.name for matrix in core.matrices]) for core in each.cores]
        for each in (program, model)
    )
    return renumbered(program, core_numbers(model)) if ours == theirs else None


def renumbered(program: Program, numbers: Int64) -> Program:
    """The program with new numbers for its cores, given in their order."""
    number = {core.index: int(n) for core, n in zip(program.cores, numbers, strict=True)}
    return replace(
        program,
        cores=tuple(replace(core, index=number[core.index]) for core in program.cores),
        channels=tuple(
            replace(c, source=number[c.source], target=number[c.target]) for c in program.channels
        ),
    )
