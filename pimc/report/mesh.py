"""The mesh: which core holds which layer, and how many bytes of an image each link carries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pimc.report.sheet import Sheet
from pimc.report.units import engineering, share

PITCH: Final = 108  # pixels from router to router
ROUTER: Final = 64
_OFFSET: Final = 8  # of the two directions of a link from its middle
_THICKEST: Final = 9.0
_BETWEEN: Final = re.compile(r"(\d+),(\d+) to (\d+),(\d+)")
_MARGIN: Final = 14


@dataclass(frozen=True)
class CoreBox:
    """A core; number: of its layer, None where it is not used."""

    x: float
    y: float
    side: float
    index: int
    number: int | None
    title: str


@dataclass(frozen=True)
class Arrow:
    """A link. points: of its outline, as SVG writes them."""

    points: str
    title: str


@dataclass(frozen=True)
class MeshFigure:
    """routers: (x, y). busiest: what the thickest link carries. is_cut: only the used corner."""

    width: int
    height: int
    routers: list[tuple[int, int]]
    cores: list[CoreBox]
    links: list[Arrow]
    busiest: str
    is_cut: bool


def mesh(sheet: Sheet) -> MeshFigure:
    """The part of the mesh that is used, with all links that carried something."""
    hierarchy = sheet.target.hierarchy
    used = [sheet.target.router_of(core.index) for core in sheet.program.cores]
    across, down = (1 + max(place[axis] for place in used) for axis in (0, 1))
    links = _links(sheet)
    return MeshFigure(
        across * PITCH - (PITCH - ROUTER) + 2 * _MARGIN,
        down * PITCH - (PITCH - ROUTER) + 2 * _MARGIN,
        [_corner(x, y) for y in range(down) for x in range(across)],
        _cores(sheet, across, down),
        [arrow for arrow, _ in links],
        engineering(max((carried for _, carried in links), default=0.0), "B"),
        (across, down) != (hierarchy.mesh_width, hierarchy.mesh_height),
    )


def _corner(x: int, y: int) -> tuple[int, int]:
    return _MARGIN + x * PITCH, _MARGIN + y * PITCH


def _cores(sheet: Sheet, across: int, down: int) -> list[CoreBox]:
    """All cores at the routers that are drawn, the unused ones too."""
    numbers = {name: number for number, name in enumerate(sheet.layer_names)}
    layers = {table.core: table.view.layer for table in sheet.timeline.tables}
    target = sheet.target
    concentration = target.hierarchy.concentration
    per_side = max(1, int(concentration**0.5 + 0.999))
    side = (ROUTER - 8) / per_side
    found = []
    for index in range(target.cores):
        x, y = target.router_of(index)
        if x >= across or y >= down:
            continue
        row, column = divmod(index % concentration, per_side)
        left, top = _corner(x, y)
        layer = layers.get(index)
        title = f"core {index}: {'not used' if layer is None else layer}"
        place = (left + 4 + column * side + 1, top + 4 + row * side + 1)
        number = None if layer is None else numbers.get(layer)
        found.append(CoreBox(*place, side - 2, index, number, title))
    return found


Way = tuple[int, int, int, int]  # x and y of a router, then of the next one


def link_bytes(sheet: Sheet) -> dict[Way, float]:
    """Bytes that each link between routers carries for an image, padding of flits included."""
    per_flit = sheet.target.network.flit_bits / 8 / sheet.timeline.images
    found: dict[Way, float] = {}
    for link in sheet.timeline.links:
        between = _BETWEEN.fullmatch(link.name)
        if between is not None and link.busy:
            x0, y0, x1, y1 = (int(number) for number in between.groups())
            found[x0, y0, x1, y1] = link.busy * per_flit
    return found


def _links(sheet: Sheet) -> list[tuple[Arrow, float]]:
    """Arrows between routers and the bytes that each carries for an image."""
    carried = link_bytes(sheet)
    most = max(carried.values(), default=0.0)
    interval_bytes = sheet.timeline.interval * sheet.target.network.flit_bits / 8
    found = []
    for (x0, y0, x1, y1), size in carried.items():
        title = f"{x0},{y0} to {x1},{y1}: {engineering(size, 'B')} an image, "
        title += f"busy {share(size / interval_bytes)} of the time"
        points = _outline((x0, y0), (x1, y1), max(0.8, size / most * _THICKEST))
        found.append((Arrow(points, title), size))
    return found


def _outline(source: tuple[int, int], sink: tuple[int, int], width: float) -> str:
    """An arrow from router to router on the right side of its way, drawn along x and turned."""
    (x0, y0), (x1, y1) = source, sink
    dx, dy = x1 - x0, y1 - y0
    left, top = _corner(x0, y0)
    half, length, wing = width / 2, PITCH - ROUTER - 6, width / 2 + 3.2
    neck = length - wing * 1.3
    shape = (
        *((0, -half), (neck, -half), (neck, -wing), (length, 0)),
        *((neck, wing), (neck, half), (0, half)),
    )
    middle_x, middle_y = left + ROUTER / 2, top + ROUTER / 2
    points = []
    for along, across in shape:
        a, b = along + ROUTER / 2 + 3, across + _OFFSET
        points.append(f"{middle_x + a * dx - b * dy:.1f},{middle_y + a * dy + b * dx:.1f}")
    return " ".join(points)
