"""The pipeline over the first images: when each layer works, and how many of its units at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pimc.report.sheet import Sheet
from pimc.report.units import engineering
from pimc.report.waits import COMPUTING
from runtime.timeline import Timeline, UnitTime

IMAGES: Final = 4  # shown at most
LEFT, WIDTH, ROW, TOP = 190, 1080, 22, 26
_BINS: Final = 445  # two pixels each
_BAR: Final = 17  # height of a layer that works with all its units

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """One image on one layer. path: of the area of its work. x, width: from first to last."""

    image: int
    x: float
    width: float
    path: str
    title: str


@dataclass(frozen=True)
class GanttRow:
    name: str
    number: int
    y: int
    works: list[Work]


@dataclass(frozen=True)
class Gantt:
    """ticks: (x, text). ends: (x, text) of each image's end."""

    images: int
    width: int
    height: int
    rows: list[GanttRow]
    ticks: list[tuple[float, str]]
    ends: list[tuple[float, str]]


def gantt(sheet: Sheet) -> Gantt:
    """The chart of the first images, one row per layer in the order of their start."""
    timeline = sheet.timeline
    images = min(IMAGES, timeline.images)
    scale = Scale(timeline.image_ends[images - 1], timeline.cycle_ns)
    units = defaultdict[str, list[UnitTime]](list)
    for unit in timeline.all_units():
        units[unit.layer].append(unit)
    rows = []
    for number, name in enumerate(sheet.layer_names):
        y = TOP + number * ROW
        works = [_work(timeline, units[name], image, scale, y) for image in range(images)]
        rows.append(GanttRow(name, number, y, works))
    height = TOP + len(rows) * ROW + 30
    ends = [
        (scale.x(end), f"image {image + 1}: {scale.text(end)}")
        for image, end in enumerate(timeline.image_ends[:images])
    ]
    return Gantt(images, WIDTH, height, rows, scale.ticks(), ends)


@dataclass(frozen=True)
class Scale:
    """The time axis. stop: cycles at its right end."""

    stop: int
    cycle_ns: float

    def x(self, cycle: float) -> float:
        return round(LEFT + cycle / self.stop * (WIDTH - LEFT), 1)

    def text(self, cycles: float) -> str:
        return engineering(cycles * self.cycle_ns * 1e-9, "s")

    def ticks(self) -> list[tuple[float, str]]:
        """Round times, five to ten of them."""
        seconds = self.stop * self.cycle_ns * 1e-9
        decade = 10.0 ** np.floor(np.log10(seconds / 5))
        step = next(f * decade for f in (1, 2, 5, 10) if seconds / (f * decade) <= 10)
        count = int(seconds / step) + 1
        return [
            (round(LEFT + n * step / seconds * (WIDTH - LEFT), 1), engineering(n * step, "s"))
            for n in range(count)
        ]


def _work(timeline: Timeline, units: list[UnitTime], image: int, scale: Scale, y: int) -> Work:
    """One image on the units of one layer."""
    units = [unit for unit in units if unit.kind in COMPUTING] or units
    bounds = [_of_image(timeline, unit, image) for unit in units]
    first = min(float(begin[0]) for begin, _ in bounds)
    last = max(float(end.max()) for _, end in bounds)
    working = [b for b, unit in zip(bounds, units, strict=True) if unit.kind == "matrix"] or bounds
    edges = np.linspace(0, scale.stop, _BINS + 1)
    shares = sum(work_shares(begin, end, edges) for begin, end in working) / len(working)
    x = scale.x(first)
    title = f"image {image + 1}: {scale.text(first)} to {scale.text(last)}"
    return Work(image, x, round(scale.x(last) - x, 1), _area(np.asarray(shares), y), title)


def _of_image(timeline: Timeline, unit: UnitTime, image: int) -> tuple[Floats, Floats]:
    """Begins and ends of the work of a unit on an image, in cycles; a unit does one at a time."""
    count = len(unit.starts) // timeline.images
    span = slice(image * count, (image + 1) * count)
    begin, end = np.asarray(unit.starts[span], float), np.asarray(unit.ends[span], float)
    end[:-1] = np.minimum(end[:-1], begin[1:])
    return begin, end


def work_shares(begin: Floats, end: Floats, edges: Floats) -> Floats:
    """Share of each bin in which a unit works, float [bins]."""
    times = np.stack([begin, end], axis=1).ravel()
    worked = np.cumsum(end - begin)
    so_far = np.stack([worked - (end - begin), worked], axis=1).ravel()
    shares: Floats = np.diff(np.interp(edges, times, so_far)) / (edges[1] - edges[0])
    return shares


def _area(shares: Floats, y: int) -> str:
    """An SVG path of steps above the row's base line; nothing where nothing works."""
    height = np.round(shares * _BAR).astype(int)
    height[(shares > 0) & (height < 2)] = 2
    changes = np.flatnonzero(np.diff(height, prepend=0, append=0))
    if not len(changes):
        return ""
    pixel = (WIDTH - LEFT) / _BINS
    base, parts, level = y + ROW - 3, [], 0
    for at in changes.tolist():
        x = round(LEFT + at * pixel)
        after = int(height[at]) if at < _BINS else 0
        parts.append(f"M{x} {base}V{base - after}" if level == 0 else f"H{x}V{base - after}")
        if after == 0:
            parts[-1] += "Z"
        level = after
    return "".join(parts)
