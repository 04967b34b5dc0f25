"""The figures of a simulated program in one document: time, energy, area, utilization, layers."""

from __future__ import annotations

from typing import Any

from isa.diagnostics import Diagnostic, PimError
from isa.program import Program
from isa.target import Target
from runtime.area import Extent, parts, whole_chip
from runtime.cost import Cost, LayerCost, price_program
from runtime.timeline import LayerTime, Timeline
from runtime.timing import simulate


def summary(
    program: Program,
    target: Target,
    images: int = 1,
    timeline: Timeline | None = None,
    cost: Cost | None = None,
) -> dict[str, Any]:
    """What `pimc simulate --json` prints; energies in pJ per image, times in ns, area in mm2.

    timeline, cost: where they are there already; else the program is simulated and priced.
    Raises PimError I999 where time, energy and area contradict each other.
    """
    timeline = simulate(program, target, images) if timeline is None else timeline
    cost = price_program(program, target) if cost is None else cost
    check_times(timeline)
    ns = timeline.cycle_ns
    interval, (bound, bound_by) = timeline.interval * ns, timeline.bound
    chip, energy = whole_chip(target), _energy(cost, target, interval)
    return {
        "images": timeline.images,
        "interval_ns": interval,
        "bound_interval_ns": bound * ns,
        "bound_by": bound_by,
        "latency_ns": timeline.latency * ns,
        "makespan_ns": timeline.makespan * ns,
        "energy_pj": energy,
        "programming": {
            "energy_pj": cost.programming_pj(cost.total),
            "time_ns": cost.programming_cycles * ns,
        },
        "area_mm2": _areas(target, chip),
        "used_area_mm2": _areas(target, cost.used)["total"],
        "utilization": _utilization(timeline, cost, chip),
        "macs": cost.total.macs,
        "macs_per_s": cost.total.macs / (interval * 1e-9),
        "tops_per_w": _tops_per_w(cost, energy["total"]),
        "tops_per_w_dynamic": _tops_per_w(cost, energy["dynamic"]),
        "adc": f"{target.adc.bits} bits: {cost.prices['adc_conversion'].source}",
        "input_skip": {"target": target.inputs.skip, "taken": cost.takes_skips},
        "layers": _layers(timeline, cost),
    }


def check_times(timeline: Timeline) -> None:
    """Raise PimError I999 where a time is shorter than the busiest unit, or an end is before 0."""
    busiest = timeline.bound[0]
    if timeline.interval < busiest or timeline.makespan < busiest * timeline.images:
        message = f"{timeline.interval} cycles between images, but a unit works {busiest}"
        raise PimError(Diagnostic("I999", f"time model: {message}"))
    for unit in timeline.all_units():
        accounted = unit.busy + sum(unit.stalls.values())
        if unit.starts[-1] > accounted or unit.starts[0] < 0 or unit.busy < 0:
            message = f"core {unit.core} {unit.name}: busy and stalled cycles do not add up"
            raise PimError(Diagnostic("I999", f"time model: {message}"))


def _energy(cost: Cost, target: Target, interval_ns: float) -> dict[str, float]:
    """Groups of dynamic energy, their sum, and leakage of the whole chip over an interval."""
    groups = cost.groups(cost.total)
    dynamic = sum(groups.values())
    leaking = [sum(part.static_mw for part in parts(target, extent))
               for extent in (whole_chip(target), cost.used)]  # fmt: skip
    static, gated = (milliwatt * interval_ns for milliwatt in leaking)  # mW x ns = pJ
    return {
        **groups,
        "dynamic": dynamic,
        "static": static,
        "static_if_gated": gated,
        "total": dynamic + static,
    }


def _tops_per_w(cost: Cost, energy_pj: float) -> float:
    """Operations per pJ, two to a product."""
    return 2 * cost.total.macs / energy_pj if energy_pj else 0.0


def _areas(target: Target, extent: Extent) -> dict[str, float]:
    found = {part.name: part.area_mm2 for part in parts(target, extent)}
    return {**found, "total": sum(found.values())}


def _utilization(timeline: Timeline, cost: Cost, chip: Extent) -> dict[str, float]:
    """Shares of 1. matrix_time: of the steady state that the matrix units of used cores work."""
    crossbar = cost.target.crossbar
    busy = [unit.busy for unit in timeline.all_units() if unit.kind == "matrix"]
    elapsed = timeline.interval * timeline.images
    cells = cost.used.crossbars * crossbar.rows * crossbar.columns
    return {
        "cores": cost.used.cores / chip.cores,
        "crossbars": cost.used.crossbars / chip.crossbars,
        "cells": cost.cells / cells if cells else 0.0,
        "matrix_time": sum(busy) / len(busy) / elapsed if busy else 0.0,
    }


def _layers(timeline: Timeline, cost: Cost) -> list[dict[str, Any]]:
    """One entry per layer, in the order in which layers start."""
    times = timeline.layer_times()
    order = sorted(times.values(), key=lambda time: time.first or 0)
    return [_layer(time, cost.layers.get(time.name), cost, timeline) for time in order]


def _layer(
    time: LayerTime, priced: LayerCost | None, cost: Cost, timeline: Timeline
) -> dict[str, Any]:
    ns = timeline.cycle_ns
    layer = LayerCost(time.name) if priced is None else priced
    groups = cost.groups(layer)
    return {
        "name": time.name,
        "cores": time.cores,
        "crossbars": layer.crossbars,
        "macs": layer.macs,
        "fires": layer.fires,
        "fires_skipped": layer.fires_skipped,
        "interval_ns": time.interval * ns,
        "first_start_ns": (time.first or 0) * ns,
        "first_end_ns": time.last * ns,
        "busy_ns": {kind: cycles / timeline.images * ns for kind, cycles in time.busy.items()},
        "stall_ns": {reason: cycles * ns for reason, cycles in time.stalls.items()},
        "energy_pj": {**groups, "dynamic": sum(groups.values())},
        "programming_pj": cost.programming_pj(layer),
    }
