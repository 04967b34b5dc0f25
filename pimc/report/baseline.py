"""The baseline: the same network mapped plainly, one copy of each layer, simulated alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from isa.diagnostics import PimError
from pimc.driver import Compiled, CompileOptions, compile_model
from pimc.frontend.build import FrontendOptions
from pimc.model_files import reference_file
from pimc.report.sheet import Sheet, load_sheet, make_sheet

DENSE: Final = "dense"
PLAIN: Final = "ou-tile"
TOO_MANY_CORES: Final = "M602"


@dataclass(frozen=True)
class Figure:
    """One line of the comparison, in SI units. better: "less", "more" or "" where neither is."""

    name: str
    value: float
    unit: str
    better: str
    other: float | None = None

    @property
    def gain(self) -> float | None:
        """How many times better than the baseline."""
        if not self.other or not self.value or not self.better:
            return None
        return self.other / self.value if self.better == "less" else self.value / self.other


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a program is compared with. text: what it is, or why there is none."""

    sheet: Sheet | None
    text: str


def baseline(against: str, path: Path, sheet: Sheet) -> Baseline:
    """Nothing for "none", the plain mapping for "dense", else the program folder ``against``.

    path: the folder of ``sheet``. Raises PimError for a program that cannot be read.
    """
    if against == "none":
        return Baseline(None, "Compared with nothing, as asked.")
    if against == DENSE:
        return dense_baseline(path, sheet)
    other = load_sheet(Path(against), sheet.timeline.images)
    return Baseline(other, f"Against the program {other.name}, simulated and priced alike.")


def dense_baseline(path: Path, sheet: Sheet) -> Baseline:
    """The folder's reference model, compiled with the plain tiling for the same chip.

    Where it does not fit the chip, the chip's mesh grows. There is none where the folder has no
    reference model or where that does not compile again; the page then says why.
    """
    model = reference_file(path)
    if not model.is_file():
        return Baseline(None, f"No plain mapping to compare with: the folder has no {model.name}.")
    try:
        compiled = _compile_plainly(model, sheet)
    except PimError as error:
        why = error.diagnostics[0]
        return Baseline(None, f"No plain mapping to compare with: {why.code}, {why.message}.")
    images, chip = sheet.timeline.images, "the same chip"
    if compiled.target.cores != sheet.target.cores:
        chip += f" grown from {sheet.target.cores} to {compiled.target.cores} cores"
    text = f"Against the same network mapped plainly, one copy of each layer, on {chip}"
    other = make_sheet(DENSE, compiled.program, compiled.target, images, compiled.report)
    return Baseline(other, f"{text}, simulated and priced alike.")


def _compile_plainly(model: Path, sheet: Sheet) -> Compiled:
    clips = sheet.compiled.get("may_clip") is True
    frontend = FrontendOptions(is_reference=True)
    options = CompileOptions(frontend, mapping=PLAIN, allow_clipping=clips)
    try:
        return compile_model(str(model), sheet.target, None, options)
    except PimError as error:
        if {finding.code for finding in error.diagnostics} != {TOO_MANY_CORES}:
            raise
    return compile_model(str(model), sheet.target, None, replace(options, tiles="auto"))


def compare_sheets(sheet: Sheet, other: Sheet | None) -> list[Figure]:
    """The lines of the comparison; the first ones are the pipeline's own."""
    ours = _figures(sheet)
    theirs = {} if other is None else _figures(other)
    return [
        Figure(name, *line, theirs[name][0] if name in theirs else None)
        for name, line in ours.items()
    ]


def layers_one_by_one_ns(figures: dict[str, Any]) -> float:
    """Time of an image when no two layers work at once: at least the busiest units' times."""
    return float(sum(layer["interval_ns"] for layer in figures["layers"]))


def _figures(sheet: Sheet) -> dict[str, tuple[float, str, str]]:
    """Value, unit and what is better, by name."""
    found, energy, cost = sheet.figures, sheet.figures["energy_pj"], sheet.cost
    return {
        "Interval between images": (found["interval_ns"] * 1e-9, "s", "less"),
        "Bound of the busiest unit": (found["bound_interval_ns"] * 1e-9, "s", "less"),
        "Latency of one image": (found["latency_ns"] * 1e-9, "s", "less"),
        "Layers one after another, at least": (layers_one_by_one_ns(found) * 1e-9, "s", "less"),
        "Dynamic energy of an image": (energy["dynamic"] * 1e-12, "J", "less"),
        "Static energy, whole chip": (energy["static"] * 1e-12, "J", "less"),
        "Static energy, idle parts gated": (energy["static_if_gated"] * 1e-12, "J", "less"),
        "Area used": (found["used_area_mm2"], "mm²", "less"),
        "Crossbars": (sheet.size["crossbars"], "", "less"),
        "Stored columns": (sheet.size["stored_columns"], "", "less"),
        "Stored cells": (cost.cells, "", "less"),
        "OU fires of an image": (cost.total.fires, "", "less"),
        "Conversions of an image": (cost.total.events.get("adc_conversion", 0), "", "less"),
        "MACs per second": (found["macs_per_s"], "MAC/s", "more"),
        "TOPS/W, dynamic": (found["tops_per_w_dynamic"], "", "more"),
    }
