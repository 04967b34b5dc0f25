"""``pimc simulate`` of a model in phases, and the lines that every simulation prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pimc.console import show_json, show_table
from pimc.report import document


def simulate_phases(program: Path, images: int, as_json: bool) -> None:
    """A batch of ``images`` through every phase of the folder ``program``."""
    from isa import container, verify
    from runtime.phase_summary import phase_summary

    held = container.load_phases(program)
    verify.check_phases(held.phases, held.target, held.sources)
    found = phase_summary(held.phases, held.target, images)
    if as_json:
        show_json(document("simulate", found, held.target, (program,)))
        return
    show_figures(found)
    writing = found["programming"]
    click.echo(
        f"{len(found['phases'])} phases; a batch of {images} images writes all weights once: "
        f"{writing['energy_pj'] / 1e6:,.1f} uJ ({writing['energy_share']:.1%} of dynamic energy), "
        f"{writing['time_ns'] / 1e3:,.1f} us ({writing['time_share']:.1%} of its time)"
    )
    rows = [
        (number, *(f"{phase[key] / 1e3:,.1f}" for key in ("interval_ns", "makespan_ns")),
         f"{phase['programming']['time_ns'] / 1e3:,.1f}", phase["bound_by"])
        for number, phase in enumerate(found["phases"])
    ]  # fmt: skip
    show_table(("phase", "interval us", "batch us", "writing us", "slowest unit"), rows)


def show_figures(found: dict[str, Any]) -> None:
    """Interval, latency and energy of an image; whether skips are missing in them."""
    skip = found["input_skip"]
    click.echo(
        f"{found['images']} images: one every {found['interval_ns'] / 1e3:,.1f} us (bound "
        f"{found['bound_interval_ns'] / 1e3:,.1f}, by {found['bound_by']}), the first after "
        f"{found['latency_ns'] / 1e3:,.1f} us; {found['area_mm2']['total']:.1f} mm2"
    )
    rows = [
        (name, f"{value / 1e6:.4g}")
        for name, value in found["energy_pj"].items()
        if isinstance(value, int | float)
    ]
    show_table(("energy of one image", "uJ"), rows)
    if skip["target"] != "none" and not skip["taken"]:
        click.echo("the chip skips zero inputs, but without --input no skip is taken")
