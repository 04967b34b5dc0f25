"""Result tables: a published number beside ours, with its kind, gap and assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["exact", "reproduced", "reconstructed", "measured"]
Band = tuple[float, float]

HEADER: Final = ("", "published", "ours", "gap", "corrected", "unit", "kind", "note")
_NUMERIC: Final = frozenset({"published", "ours", "gap", "corrected"})


@dataclass(frozen=True)
class Row:
    """One number of a published table.

    published: the number, or the lowest and highest of a claimed range, or None where nothing was
    published. ours: computed under the paper's own rules. corrected: the same with the known
    faults of those rules mended, None where there is none to mend. kind: ``exact`` (a count),
    ``reproduced`` (a closed form with published parameters), ``reconstructed`` (our reading of a
    paper whose body was not available), ``measured`` (on the weights handed in).
    """

    label: str
    published: float | Band | None
    ours: float
    corrected: float | None
    kind: Kind
    unit: str = "x"
    note: str = ""

    @property
    def gap(self) -> float | None:
        """Relative distance to the published number or to the nearer edge of its band.

        0.01 is 1 % too much; 0 inside the band; None where nothing was published.
        """
        if self.published is None:
            return None
        if isinstance(self.published, tuple):
            nearest = min(max(self.ours, self.published[0]), self.published[1])
        else:
            nearest = self.published
        return self.ours / nearest - 1 if nearest else self.ours

    def cells(self) -> tuple[str, ...]:
        """Return the printed cells, in the order of `HEADER`.

        A measured row prints no gap: it stands beside the published number, on other weights.
        """
        gap = None if self.kind == "measured" else self.gap
        inside = isinstance(self.published, tuple) and gap == 0
        return (
            self.label,
            _format(self.published),
            _format(self.ours),
            "" if gap is None else "inside" if inside else f"{gap:+.2%}",
            _format(self.corrected),
            self.unit,
            self.kind,
            self.note,
        )

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object; a band becomes a list of two numbers."""
        published = self.published
        return {
            "label": self.label,
            "published": list(published) if isinstance(published, tuple) else published,
            "ours": self.ours,
            "gap": self.gap,
            "corrected": self.corrected,
            "unit": self.unit,
            "kind": self.kind,
            "note": self.note,
        }


@dataclass(frozen=True)
class Table:
    """Rows under one title, with the assumptions that every row rests on."""

    title: str
    assumptions: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, label: str) -> Row:
        """Return the row of that label; raises KeyError when there is none."""
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(label)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of `HEADER` under which at least one row has something to say."""
        used = zip(*(row.cells() for row in self.rows), strict=True)
        return tuple(name for name, column in zip(HEADER, used, strict=True) if any(column))

    def cells(self) -> list[tuple[str, ...]]:
        """Return the printed cells of all rows, cut to `columns`; for rich or plain printing."""
        keep = [HEADER.index(name) for name in self.columns]
        return [tuple(row.cells()[i] for i in keep) for row in self.rows]

    def render(self) -> str:
        """Return the table as plain text without a final newline, numbers to the right."""
        grid = [self.columns, *self.cells()]
        widths = [max(len(line[i]) for line in grid) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                text.rjust(width) if name in _NUMERIC else text.ljust(width)
                for name, text, width in zip(self.columns, line, widths, strict=True)
            ).rstrip()
            for line in grid
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *(f"  - {text}" for text in self.assumptions), *lines])

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object: title, assumptions, rows."""
        return {
            "title": self.title,
            "assumptions": list(self.assumptions),
            "rows": [row.as_json() for row in self.rows],
        }


def _format(value: float | Band | None) -> str:
    """Print three decimals below 100 and whole, grouped numbers from there on."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"{value[0]:g}..{value[1]:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.1f}"
    return f"{value:.3f}"
