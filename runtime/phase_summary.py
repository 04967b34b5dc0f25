"""The figures of a model in phases: a batch goes through each phase, all writing charged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isa.phases import Phases
from isa.target import Target
from runtime.cost import GROUPS
from runtime.summary import summary


def phase_summary(phases: Phases, target: Target, images: int) -> dict[str, Any]:
    """As `runtime.summary.summary`, for batches of ``images`` images without an end.

    Each batch writes the weights of every phase and then streams through it; nothing overlaps
    with the writing, and a phase begins when the one before has ended. interval: time of a batch
    by image. latency: of the first image of a batch. energy_pj: per image, its share of the
    writing in "programming" (not in "dynamic"; energy_share is of both together). phases: the same
    figures of each phase.
    """
    found = [summary(program, target, images) for program in phases.programs]
    writing = [each["programming"]["time_ns"] for each in found]
    batch = sum(writing) + sum(each["makespan_ns"] for each in found)
    before_last = batch - found[-1]["makespan_ns"]
    interval = batch / images
    energy = _energy(found, interval, images)
    macs = sum(each["macs"] for each in found)
    bounds = [each["bound_interval_ns"] for each in found]
    slowest = bounds.index(max(bounds))
    programming_pj = sum(each["programming"]["energy_pj"] for each in found)
    return {
        "images": images,
        "interval_ns": interval,
        "bound_interval_ns": sum(bounds) + sum(writing) / images,
        "bound_by": f"phase {slowest}, {found[slowest]['bound_by']}",
        "latency_ns": before_last + found[-1]["latency_ns"],
        "makespan_ns": batch,
        "energy_pj": energy,
        "programming": {
            "energy_pj": programming_pj,
            "time_ns": sum(writing),
            "energy_share": energy["programming"] / (energy["programming"] + energy["dynamic"]),
            "time_share": sum(writing) / batch,
        },
        "area_mm2": found[0]["area_mm2"],
        "used_area_mm2": max(each["used_area_mm2"] for each in found),
        "macs": macs,
        "macs_per_s": macs / (interval * 1e-9),
        "tops_per_w": 2 * macs / energy["total"],
        "adc": found[0]["adc"],
        "input_skip": found[0]["input_skip"],
        "phases": [_phase(each) for each in found],
        "layers": [
            {**layer, "phase": number}
            for number, each in enumerate(found)
            for layer in each["layers"]
        ],
    }


def _energy(found: Sequence[dict[str, Any]], interval: float, images: int) -> dict[str, float]:
    """Energy of an image: groups summed over the phases, leakage over its share of the batch."""
    groups = {group: sum(each["energy_pj"][group] for each in found) for group in GROUPS}
    dynamic = sum(groups.values())
    leaking = found[0]["energy_pj"]["static"] / found[0]["interval_ns"]  # pJ per ns
    programming = sum(each["programming"]["energy_pj"] for each in found) / images
    static = leaking * interval
    return {
        **groups,
        "dynamic": dynamic,
        "programming": programming,
        "static": static,
        "total": dynamic + programming + static,
    }


def _phase(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "interval_ns": found["interval_ns"],
        "bound_interval_ns": found["bound_interval_ns"],
        "bound_by": found["bound_by"],
        "latency_ns": found["latency_ns"],
        "makespan_ns": found["makespan_ns"],
        "dynamic_pj": found["energy_pj"]["dynamic"],
        "programming": found["programming"],
        "utilization": found["utilization"],
    }
