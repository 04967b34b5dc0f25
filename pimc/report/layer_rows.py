"""The per-layer table: what each layer takes, does, waits for and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pimc.report.sheet import Sheet
from pimc.report.units import plain, share
from pimc.report.waits import WAITS, LayerPace, layer_paces


@dataclass(frozen=True)
class Cell:
    """One number of the table. value: what the table sorts by, and what tests add up."""

    value: float
    text: str


@dataclass(frozen=True)
class Column:
    """A column. has_sum: the last line of the table adds it up."""

    name: str
    unit: str
    title: str
    of: Callable[[dict[str, Any]], float]
    text: Callable[[float], str]
    has_sum: bool = True


@dataclass(frozen=True)
class LayerRow:
    """One layer. number: its place in the order in which layers start."""

    number: int
    name: str
    cells: list[Cell]
    pace: LayerPace
    parts: list[tuple[str, float]]  # of its time, busy first; shares of 1


def _us(value_ns: float) -> str:
    return plain(value_ns / 1e3) if value_ns >= 1e3 else f"{value_ns / 1e3:.2g}"


def _uj(value_pj: float) -> str:
    return plain(value_pj / 1e6)


COLUMNS: Final = (
    Column("cores", "", "Cores that hold the layer", lambda x: x["cores"], plain, False),
    Column("crossbars", "", "Crossbars with cells of the layer", lambda x: x["crossbars"], plain),
    Column("blocks", "", "Operation-unit blocks that fire", lambda x: x["blocks"], plain),
    Column("cells", "", "Stored cells", lambda x: x["cells"], plain),
    Column("routes", "", "Routes of a window", lambda x: x["routes"], plain),
    Column("MACs", "", "Products of an image", lambda x: x["macs"], plain),
    Column("fires", "", "Operation units fired for an image", lambda x: x["fires"], plain),
    Column("busiest", "µs", "Time of the busiest unit per image", lambda x: x["interval_ns"],
           _us, False),
    Column("starts", "µs", "First computation of the first image",
           lambda x: x["first_work_ns"], _us, False),
    Column("works", "", "Share of the steady state in which an average matrix unit works",
           lambda x: x["pace"].utilization, share, False),
    Column("energy", "µJ", "Dynamic energy of an image", lambda x: x["energy_pj"]["dynamic"], _uj),
)  # fmt: skip


def layer_rows(sheet: Sheet) -> list[LayerRow]:
    """One row per layer, in the order in which they start."""
    stored = _stored(sheet)
    rows = []
    paces = layer_paces(sheet.figures, sheet.timeline)
    for number, layer in enumerate(sheet.layers):
        pace = paces[layer["name"]]
        facts = {**layer, **stored.get(layer["name"], _NOTHING), "pace": pace}
        values = [float(column.of(facts)) for column in COLUMNS]
        cells = [Cell(v, c.text(v)) for v, c in zip(values, COLUMNS, strict=True)]
        rows.append(LayerRow(number, layer["name"], cells, pace, _parts(pace)))
    return rows


def totals(rows: list[LayerRow]) -> list[Cell | None]:
    """The last line: sums of the columns that have one."""
    found: list[Cell | None] = []
    for index, column in enumerate(COLUMNS):
        value = sum(row.cells[index].value for row in rows)
        found.append(Cell(value, column.text(value)) if column.has_sum else None)
    return found


_NOTHING: Final = {"blocks": 0, "cells": 0, "routes": 0}


def _stored(sheet: Sheet) -> dict[str, Counter[str]]:
    """Blocks, cells and routes of each layer; the simulation's own views hold them."""
    found: dict[str, Counter[str]] = {}
    for table in sheet.timeline.tables:
        for name, matrix in table.view.matrices.items():
            work, layer = table.view.work(name), found.setdefault(matrix.layer, Counter())
            layer.update({"blocks": work.units, "cells": work.cells, "routes": work.routes})
    return found


def _parts(pace: LayerPace) -> list[tuple[str, float]]:
    """How an average unit of the layer spends its time, busy first."""
    spent = {"busy": pace.busy_ns, **{wait: pace.waits_ns[wait] for wait in WAITS}}
    total = sum(spent.values())
    return [(name, value / total if total else 0.0) for name, value in spent.items()]
