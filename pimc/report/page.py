"""The page: one self-contained HTML file about a program."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from isa.diagnostics import Diagnostic, PimError
from pimc.report.baseline import Baseline, compare_sheets, layers_one_by_one_ns
from pimc.report.breakdown import area_bars, energy_bars, part_rows, priced_events, total_bar
from pimc.report.colors import GROUP_COLORS, WAIT_COLORS, ramp
from pimc.report.gantt import gantt
from pimc.report.layer_rows import COLUMNS, layer_rows, totals
from pimc.report.listing import sections
from pimc.report.mesh import mesh
from pimc.report.occupancy import occupancy
from pimc.report.sheet import Sheet
from pimc.report.units import engineering, plain, share
from pimc.report.waits import link_waits
from pimc.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE: Final = "report.html.jinja"
SCRIPT: Final = "sort.js"


def render_page(templates: Environment, sheet: Sheet, against: Baseline) -> str:
    """The page of a program, compared with another one where there is one.

    Every text is escaped, and a content policy lets no script run but the page's own, whose hash
    it names.
    """
    template = templates.get_template(TEMPLATE)
    script = files("pimc.report").joinpath("templates", SCRIPT).read_text(encoding="utf-8")
    context = _context(sheet, against)
    return template.render(**context, script=script, script_hash=_csp_hash(script)) + "\n"


def _csp_hash(script: str) -> str:
    """What a content security policy calls a script that stands in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def environment() -> Environment:
    """The templates. Raises PimError U904 where jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        hint = "pip install 'pimc[report]'"
        message = "`pimc report` needs the package jinja2, which is not installed"
        raise PimError(Diagnostic("U904", message, hint=hint)) from error
    environment = Environment(
        loader=PackageLoader("pimc.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"si": engineering, "share": share, "plain": plain}
    return environment


def _context(sheet: Sheet, against: Baseline) -> dict[str, Any]:
    """Everything that the template names."""
    rows = layer_rows(sheet)
    return {
        "sheet": sheet,
        "version": VERSION,
        "target": sheet.target,
        "figures": sheet.figures,
        "size": sheet.size,
        "compiled": sheet.compiled,
        "inputs": [t for t in sheet.program.tensors if t.role == "input"],
        "outputs": [t for t in sheet.program.tensors if t.role == "output"],
        "comparison": compare_sheets(sheet, against.sheet),
        "one_by_one_ns": layers_one_by_one_ns(sheet.figures),
        "other": against.sheet,
        "other_is": against.text,
        "columns": COLUMNS,
        "rows": rows,
        "totals": totals(rows),
        "layer_colors": ramp(len(rows)),
        "group_colors": GROUP_COLORS,
        "wait_colors": WAIT_COLORS,
        "links": link_waits(sheet.timeline)[:6],
        "gantt": gantt(sheet),
        "occupancy": occupancy(sheet),
        "mesh": mesh(sheet),
        "total_bar": total_bar(sheet),
        "energy_bars": energy_bars(sheet),
        "area_bars": area_bars(sheet),
        "parts": part_rows(sheet),
        "events": priced_events(sheet),
        "sections": sections(sheet),
    }
