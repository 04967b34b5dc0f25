"""Where energy and area go: stacked bars, and the price of every event with its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pimc.report.colors import GROUP_COLORS, ramp
from pimc.report.sheet import Sheet
from pimc.report.units import engineering, plain, share
from runtime.area import parts, whole_chip
from runtime.cost import GROUP_OF, GROUPS

LEFT, WIDTH = 190, 1080
BAR: Final = 16


@dataclass(frozen=True)
class Piece:
    """A part of a bar."""

    name: str
    value: float
    color: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class Bar:
    """A stacked bar. text: what all of it is."""

    name: str
    number: int | None
    text: str
    pieces: list[Piece]


@dataclass(frozen=True)
class Priced:
    """A kind of event: count per image, price, energy per image."""

    event: str
    group: str
    count: str
    price: str
    energy: str
    energy_pj: float
    source: str


@dataclass(frozen=True)
class PartRow:
    """A kind of part of the chip."""

    name: str
    color: str
    count: str
    area_mm2: float
    area: str
    share: str
    static: str
    source: str
    is_large: bool  # enough to be named beside the bar


def stacked(
    name: str,
    number: int | None,
    items: Iterable[tuple[str, float, str]],
    longest: float,
    unit: tuple[float, str],
) -> Bar:
    """A bar of (name, value, colour) pieces; ``longest`` fills the width. unit: factor, name."""
    pieces, x, total = [], float(LEFT), 0.0
    room = WIDTH - LEFT - 90
    listed = list(items)
    whole = sum(value for _, value, _ in listed)
    for piece, value, color in listed:
        width = value / longest * room if longest else 0.0
        text = engineering(value * unit[0], unit[1])
        title = f"{name}: {piece} {text}, {share(value / whole if whole else 0.0)}"
        pieces.append(Piece(piece, value, color, round(x, 2), round(_drawn(width), 2), title))
        x, total = x + width, total + value
    return Bar(name, number, engineering(total * unit[0], unit[1]), pieces)


def _drawn(width: float) -> float:
    """A gap after a piece that is wide enough to show one."""
    return width - 0.8 if width > 3 else width


def energy_bars(sheet: Sheet) -> list[Bar]:
    """Dynamic energy of each layer by group."""
    layers = sheet.layers
    longest = max((layer["energy_pj"]["dynamic"] for layer in layers), default=0.0)
    return [
        stacked(layer["name"], number, _groups(layer["energy_pj"]), longest, (1e-12, "J"))
        for number, layer in enumerate(layers)
    ]


def total_bar(sheet: Sheet) -> Bar:
    """Dynamic energy of an image by group."""
    energy = sheet.figures["energy_pj"]
    return stacked("all layers", None, _groups(energy), energy["dynamic"], (1e-12, "J"))


def area_bars(sheet: Sheet) -> list[Bar]:
    """Area of the chip and of what the program uses, by kind of part."""
    colors = _part_colors(sheet)
    found = []
    extents = (("whole chip", whole_chip(sheet.target)), ("used", sheet.cost.used))
    longest = sheet.figures["area_mm2"]["total"]
    for name, extent in extents:
        items = [(p.name, p.area_mm2, colors[p.name]) for p in parts(sheet.target, extent)]
        found.append(stacked(name, None, items, longest, (1, "mm²")))
    return found


def part_rows(sheet: Sheet) -> list[PartRow]:
    """Every kind of part of the chip with area, leakage and source, the largest first."""
    colors, total = _part_colors(sheet), sheet.figures["area_mm2"]["total"]
    found = sorted(parts(sheet.target, whole_chip(sheet.target)), key=lambda p: -p.area_mm2)
    return [
        PartRow(
            part.name,
            colors[part.name],
            plain(part.count),
            part.area_mm2,
            plain(part.area_mm2),
            share(part.area_mm2 / total),
            engineering(part.static_mw * 1e-3, "W"),
            part.source,
            part.area_mm2 >= 0.01 * total,
        )
        for part in found
    ]


def priced_events(sheet: Sheet) -> list[Priced]:
    """Every kind of event that an image causes, the dearest first."""
    prices, found = sheet.cost.prices, []
    for event, count in sheet.cost.total.events.items():
        if count:
            price = prices[event]
            energy = count * price.energy_pj
            texts = (engineering(price.energy_pj * 1e-12, "J"), engineering(energy * 1e-12, "J"))
            row = Priced(event, GROUP_OF[event], plain(count), *texts, energy, price.source)
            found.append(row)
    return sorted(found, key=lambda row: -row.energy_pj)


def _groups(energy: dict[str, float]) -> list[tuple[str, float, str]]:
    return [(group, energy[group], GROUP_COLORS[group]) for group in GROUPS]


def _part_colors(sheet: Sheet) -> dict[str, str]:
    names: Sequence[str] = [part.name for part in parts(sheet.target, sheet.cost.used)]
    return dict(zip(names, ramp(len(names)), strict=True))
