"""The sheet: everything that the page shows about a program, gathered once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from isa import container, verify
from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import Program
from isa.target import Target
from pimc.report.documents import program_figures
from pimc.report.waits import in_order
from runtime.cost import Cost, price_program
from runtime.summary import summary
from runtime.timeline import Timeline
from runtime.timing import simulate

COMPILE_REPORT: Final = "report.json"


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
    compiled = _compile_report(path / COMPILE_REPORT)
    return make_sheet(path.resolve().name, loaded.program, loaded.target, images, compiled)


def make_sheet(
    name: str, program: Program, target: Target, images: int, compiled: dict[str, Any]
) -> Sheet:
    """The sheet of a program that is already verified."""
    timeline, cost = simulate(program, target, images), price_program(program, target)
    figures = summary(program, target, images, timeline, cost)
    size = program_figures(program, target)
    return Sheet(name, program, target, timeline, cost, figures, size, compiled)


def _compile_report(file: Path) -> dict[str, Any]:
    """report.json of the folder. Raises PimError C502 for one that is damaged."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(file, "expected a JSON object")
    return found


def _damaged(file: Path, why: str) -> PimError:
    hint = "compile again, or remove the file: the report then says nothing about verification"
    return PimError(Diagnostic("C502", f"cannot read `{file}`: {why}", Location(str(file)), hint))
