"""What a layer waits for, in an architect's words: the reasons of the simulation, grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.timeline import Timeline

# a message that is late because of a busy link is a wait for input; the links' own waits say where
WAITS: Final[dict[str, tuple[str, ...]]] = {
    "input": ("channel empty",),
    "space": ("channel full",),
    "memory": ("global memory",),
    "own units": ("matrix", "vector", "memory", "receive", "send"),
    "issue": ("issue",),
}
COMPUTING: Final = ("matrix", "vector")  # units that do more than move


@dataclass(frozen=True)
class LayerPace:
    """An average matrix unit of a layer (of all its units where it has no matrix); ns per image.

    busy_ns: it works. waits_ns: it stands idle before an instruction, by the keys of ``WAITS``,
    averaged over all images, so that the filling of the pipeline is in it. utilization: share of
    the steady state in which it works.
    """

    name: str
    busy_ns: float
    waits_ns: dict[str, float]
    utilization: float


def in_order(figures: Mapping[str, Any], timeline: Timeline) -> list[dict[str, Any]]:
    """The layers of ``runtime.summary.summary`` in the order in which they begin to compute.

    ``first_work_ns`` is added to each: buffers are filled long before anything arrives, so the
    first instruction would not tell them apart.
    """
    first = dict[str, float]()
    for unit in timeline.all_units():
        if unit.kind in COMPUTING:
            start = unit.starts[0] * timeline.cycle_ns
            first[unit.layer] = min(start, first.get(unit.layer, start))
    found = [
        {**layer, "first_work_ns": first.get(layer["name"], layer["first_start_ns"])}
        for layer in figures["layers"]
    ]
    return sorted(found, key=lambda layer: float(layer["first_work_ns"]))


def layer_paces(figures: Mapping[str, Any], timeline: Timeline) -> dict[str, LayerPace]:
    """By layer of ``figures``, which is ``runtime.summary.summary`` of ``timeline``."""
    counted: dict[tuple[str, str], int] = {}
    for unit in timeline.all_units():
        for kind in (unit.kind, "all"):
            counted[unit.layer, kind] = counted.get((unit.layer, kind), 0) + 1
    found = {}
    for layer in figures["layers"]:
        busy, stalls = layer["busy_ns"], layer["stall_ns"]
        kind = "matrix" if "matrix" in busy else "all"
        units = counted[layer["name"], kind]
        mean = (busy["matrix"] if kind == "matrix" else sum(busy.values())) / units
        waits = {
            wait: sum(stalls.get(reason, 0.0) for reason in reasons) / units
            for wait, reasons in WAITS.items()
        }
        utilization = mean / figures["interval_ns"]
        found[layer["name"]] = LayerPace(layer["name"], mean, waits, utilization)
    return found


def link_waits(timeline: Timeline) -> list[tuple[str, float]]:
    """Links that messages had to wait for: name and ns per image, the worst first."""
    ns = timeline.cycle_ns / timeline.images
    links = (*timeline.links, *timeline.global_links)
    waited = [(link.name, link.waited * ns) for link in links if link.waited]
    return sorted(waited, key=lambda item: (-item[1], item[0]))


def wait_table(
    figures: Mapping[str, Any], timeline: Timeline
) -> tuple[list[str], list[tuple[str | float, ...]]]:
    """Headers and lines for a terminal: layer by layer, microseconds per image.

    Waits that no layer has are left out.
    """
    paces = layer_paces(figures, timeline)
    waits = [wait for wait in WAITS if any(pace.waits_ns[wait] for pace in paces.values())]
    rows = list[tuple[str | float, ...]]()
    for layer in in_order(figures, timeline):
        pace = paces[layer["name"]]
        times = (pace.busy_ns, *(pace.waits_ns[wait] for wait in waits))
        works = round(100 * pace.utilization, 1)
        rows.append((pace.name, layer["cores"], works, *(round(ns / 1e3, 1) for ns in times)))
    return ["layer", "cores", "works %", "busy", *(f"for {wait}" for wait in waits)], rows
