"""The sheet: everything that the page shows about a program, gathered once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from isa import container, verify
from isa.folder import shapes_folder
from isa.program import Program
from isa.target import Target
from pimc.model_files import load_report
from pimc.report.documents import program_figures
from pimc.report.waits import in_order
from runtime.cost import Cost, price_program
from runtime.summary import summary
from runtime.timeline import Timeline
from runtime.timing import simulate


@dataclass(frozen=True, eq=False)
class Sheet:
    """A program, simulated and priced.

    name: of the folder. figures: ``runtime.summary``. size: what it takes of the chip. compiled:
    the folder's report.json, empty for a program that was assembled.
    """

    name: str
    program: Program
    target: Target
    timeline: Timeline
    cost: Cost
    figures: dict[str, Any]
    size: dict[str, int]
    compiled: dict[str, Any]

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """The layers of ``figures`` as ``in_order`` gives them; their place is their colour."""
        return in_order(self.figures, self.timeline)

    @property
    def layer_names(self) -> list[str]:
        return [layer["name"] for layer in self.layers]


def load_sheet(path: Path, images: int) -> Sheet:
    """Read, verify, simulate and price a program folder. Raises PimError."""
    loaded = container.load(path)
    verify.check(loaded.program, loaded.target, loaded.source)
    here = path.resolve()
    whole = shapes_folder(here)
    name = here.name if whole is None else f"{whole.name}/{here.name}"
    compiled = load_report(path)
    return make_sheet(name, loaded.program, loaded.target, images, compiled)


def make_sheet(
    name: str, program: Program, target: Target, images: int, compiled: dict[str, Any]
) -> Sheet:
    """The sheet of a program that is already verified."""
    timeline, cost = simulate(program, target, images), price_program(program, target)
    figures = summary(program, target, images, timeline, cost)
    size = program_figures(program, target)
    return Sheet(name, program, target, timeline, cost, figures, size, compiled)
