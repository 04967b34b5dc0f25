"""The figure of `pimc compare`: bars per scheme, beside one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from isa.diagnostics import Diagnostic, PimError
from isa.drafts import drafted_file
from passes.estimate import MappingCost
from pimc.compare import Row

Part = tuple[str, Callable[[MappingCost], float]]
# title with unit, and the parts that are stacked in a bar
PANELS: Final[tuple[tuple[str, tuple[Part, ...]], ...]] = (
    ("stored cells, millions", (("cells", lambda cost: cost.stored_cells / 1e6),)),
    (
        "energy of an image, uJ",
        (
            ("fires and conversions", lambda cost: cost.fire_pj / 1e6),
            ("table reads", lambda cost: cost.index_pj / 1e6),
            ("combining sums", lambda cost: cost.combine_pj / 1e6),
            ("accumulators", lambda cost: cost.accumulate_pj / 1e6),
        ),
    ),
    (
        "time of an image on dense's crossbars, us",
        (("time", lambda cost: cost.time_equal_crossbars_ns / 1e3),),
    ),
    (
        "area, mm2",
        (
            ("crossbars", lambda cost: cost.crossbar_area_um2 / 1e6),
            ("tables and side buffers", lambda cost: cost.table_area_um2 / 1e6),
        ),
    ),
)
FORMATS: Final = (".svg", ".png", ".pdf")
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # told apart by everyone (Okabe, Ito)


def check_figure(path: Path) -> None:
    """Refuse what would fail after the work: PimError U901 for a suffix, U904 for no matplotlib."""
    if path.suffix not in FORMATS:
        message = f"--figure `{path}`: no known kind of image"
        raise PimError(Diagnostic("U901", message, hint=f"end it in {', '.join(FORMATS)}"))
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        hint = "install it with `pip install 'pimc[report]'`"
        raise PimError(Diagnostic("U904", "figures need matplotlib", hint=hint)) from error


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write the bars of all rows to ``path``. Raises PimError C509 where that fails."""
    from matplotlib.figure import Figure  # late: an extra, and slow to load

    figure = Figure(figsize=(10, 2.2 + 0.5 * len(rows)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2, sharey=True)
    for panel, (name, parts) in zip(axes.flat, PANELS, strict=True):
        _bars(panel, rows, parts)
        panel.set_title(name, fontsize="medium")
    axes[0, 0].invert_yaxis()
    with drafted_file(path) as draft:
        figure.savefig(draft, dpi=150)


def _bars(panel: Any, rows: Sequence[Row], parts: Sequence[Part]) -> None:
    """Stacked bars, a line per row; their sums at their ends, relative to the first row."""
    names = [row.scheme + " (lossy)" * row.is_lossy for row in rows]
    ends = [0.0] * len(rows)
    for (label, value), colour in zip(parts, COLOURS, strict=False):
        widths = [value(row.cost) for row in rows]
        panel.barh(names, widths, left=ends, color=colour, label=label)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for line, end in enumerate(ends):
        share = f" {ends[0] / end:.2f}x" if line and end else ""
        size = f"{end:,.0f}" if end >= 1000 else f"{end:.3g}"
        panel.text(end, line, f" {size}{share}", va="center", fontsize="small")
    panel.set_xlim(0, 1.3 * max(*ends, 1e-9))
    panel.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        panel.legend(
            fontsize="x-small",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=3,
            ncols=4,
        )
