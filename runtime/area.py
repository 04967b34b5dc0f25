"""Area and static power of a chip, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from isa.target import Target

UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class Part:
    """All parts of one kind on a chip. source: where the area and the power of one come from."""

    name: str
    count: int
    area_mm2: float
    static_mw: float
    source: str


@dataclass(frozen=True)
class Extent:
    """How much of a chip is meant: all of it, or what a program uses."""

    cores: int
    pes: int
    crossbars: int
    routers: int


def whole_chip(target: Target) -> Extent:
    h = target.hierarchy
    return Extent(
        target.cores,
        target.cores * h.pes_per_core,
        target.crossbars,
        h.mesh_width * h.mesh_height,
    )


def parts(target: Target, extent: Extent) -> tuple[Part, ...]:
    """Every kind of part in an extent of the chip, the converters first."""
    crossbar = target.crossbar
    counts = {
        "cell": extent.crossbars * crossbar.rows * crossbar.columns,
        "row": extent.crossbars * crossbar.rows,
        "column": extent.crossbars * crossbar.columns,
        "crossbar": extent.crossbars,
        "pe": extent.pes,
        "core": extent.cores,
        "router": extent.routers,
        "chip": 1,
    }
    converters = extent.crossbars * target.adc.per_crossbar
    found = [
        Part(
            "adc",
            converters,
            converters * target.adc_area_um2 / UM2_PER_MM2,
            converters * target.adc_static_mw,
            source_of(target, f"adc.area_um2.{target.adc.bits}"),
        )
    ]
    for name, component in target.components.items():
        count = counts[component.per]
        area, static = count * component.area_um2, count * component.static_mw
        source = source_of(target, f"components.{name}.area_um2")
        found.append(Part(name, count, area / UM2_PER_MM2, static, source))
    return tuple(found)


def area_mm2(target: Target, extent: Extent) -> float:
    return sum(part.area_mm2 for part in parts(target, extent))


def static_mw(target: Target, extent: Extent) -> float:
    return sum(part.static_mw for part in parts(target, extent))


def source_of(target: Target, path: str) -> str:
    """Where a number of the target comes from; the word that stands for its whole table else."""
    while path:
        if path in target.sources:
            return target.sources[path]
        path = path.rpartition(".")[0]
    return "not stated"
