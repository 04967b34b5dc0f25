"""The pipeline on one page: which passes run, in which order, and why in that order."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from isa.diagnostics import Diagnostic, PimError
from isa.program import Program
from isa.target import Target
from passes.base import Pass
from passes.graph import Graph
from passes.mapping import Mapping
from passes.ou_tile import OuTile
from passes.schedule import Schedule
from passes.split import Split

MappingPass = Callable[[Target], Pass[Graph, Mapping]]
Observer = Callable[[str, object, float], None]  # pass name, the unit it made, seconds

MAPPINGS: dict[str, MappingPass] = {
    "ou-tile": OuTile,
}
DEFAULT_MAPPING = "ou-tile"


def pipeline(target: Target, mapping: str, grow: bool) -> tuple[Pass[Any, Any], ...]:
    """The passes from Graph to Program. Raises PimError U902 for an unknown mapping."""
    if mapping not in MAPPINGS:
        raise PimError(
            Diagnostic(
                "U902",
                f"there is no mapping `{mapping}`",
                hint=f"the mappings are {', '.join(MAPPINGS)}",
            )
        )
    return (
        MAPPINGS[mapping](target),  # first: what a layer stores decides how many cores it needs
        Split(),  # before schedule: each part becomes one core's stream
        Schedule(grow),  # last: queue depths follow from the finished streams
    )


def run_passes(graph: Graph, passes: tuple[Pass[Any, Any], ...], observe: Observer) -> Program:
    """Run passes one after another; ``observe`` hears of each (dump, clock and checks hook in)."""
    unit: Any = graph
    for step in passes:
        started = perf_counter()
        unit = step.run(unit)
        observe(step.name, unit, perf_counter() - started)
    if not isinstance(unit, Program):
        raise TypeError(f"the last pass made a {type(unit).__name__}, not a Program")
    return unit
