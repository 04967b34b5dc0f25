"""The baseline: the same network mapped plainly, one copy of each layer, simulated alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isa.diagnostics import PimError
from pimc.driver import CompileOptions, compile_model
from pimc.frontend.build import FrontendOptions
from pimc.report.sheet import Sheet, load_sheet, make_sheet

DENSE: Final = "dense"
REFERENCE: Final = "reference.onnx"
DOES_NOT_FIT: Final = "M6"


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


def dense_sheet(path: Path, sheet: Sheet) -> Sheet | None:
    """The folder's reference model, compiled with the plain tiling for the same chip.

    None where the folder has no reference model. Where the plain mapping does not fit the chip,
    the chip's mesh grows. Raises PimError for any other reason.
    """
    model = path / REFERENCE
    if not model.is_file():
        return None
    options = CompileOptions(FrontendOptions())
    try:
        compiled = compile_model(str(model), sheet.target, None, options)
    except PimError as error:
        if not all(finding.code.startswith(DOES_NOT_FIT) for finding in error.diagnostics):
            raise
        compiled = compile_model(
            str(model), sheet.target, None, CompileOptions(FrontendOptions(), tiles="auto")
        )
    images = sheet.timeline.images
    return make_sheet(DENSE, compiled.program, compiled.target, images, compiled.report)


def other_sheet(against: str, path: Path, sheet: Sheet) -> Sheet | None:
    """What to compare with: None for "none", the plain mapping for "dense", else a program."""
    if against == "none":
        return None
    if against == DENSE:
        return dense_sheet(path, sheet)
    return load_sheet(Path(against), sheet.timeline.images)


def comparison_text(sheet: Sheet, other: Sheet | None, against: str) -> str:
    """What the comparison is with, or why there is none."""
    if other is None:
        why = "Nothing was to be compared with." if against == "none" else ""
        return why or "The folder has no reference model, so the plain mapping cannot be made."
    if against != DENSE:
        return f"the program {other.name}"
    chip = "the same chip"
    if other.target.cores != sheet.target.cores:
        chip = f"the same chip grown from {sheet.target.cores} to {other.target.cores} cores"
    return f"the same network mapped plainly, one copy of each layer, on {chip}"


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
