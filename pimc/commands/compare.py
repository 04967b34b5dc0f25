"""``pimc compare``: mapping schemes side by side, as a table, as JSON and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pimc.commands.options import (
    check_place,
    json_option,
    quiet_option,
    read_target,
    target_options,
)
from pimc.console import phases, show_json, show_table, show_warnings
from pimc.report import document

if TYPE_CHECKING:
    from isa.target import Target
    from pimc.ablation import Ablation, Step
    from pimc.compare import Row, Trial

ABLATION_HEADERS = (
    "step", "cores", "crossbars", "us an image", "step", "all", "latency us", "energy uJ", "proved",
    "equal", "published",
)  # fmt: skip
INTERVAL_HEADERS = ("mapping", "none", "pipelined", "replicated", "all")
NOT_WITH_ABLATION = ("schemes", "specs", "data", "samples", "figure")
HEADERS = (
    "scheme", "columns", "crossbars", "conversions", "routes", "table bits",
    "energy uJ", "time us", "area mm2", "cells/", "energy/", "time/", "proved", "equal",
)  # fmt: skip


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--schemes",
    help="Comma-separated; all exact ones by default, dense first. `prap` is lossy: it prunes and "
    "ties the weights before they are mapped.",
)
@click.option(
    "--optimize",
    type=click.Choice(["energy", "latency", "area"]),
    default="energy",
    show_default=True,
    help="What `best` minimizes, also the one of --ablation.",
)
@click.option(
    "--calib", type=click.Path(path_type=Path), help="Samples for the ranges and for refits, npz."
)
@click.option(
    "--compress",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="What `prap` does to the weights, as in `pimc compress`. Repeatable.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Samples to run each program on, npz; with `labels` also its accuracy.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    help="Run on so many: the first of --data (all by default), else random ones (1 by default).",
)
@click.option(
    "--ablation",
    is_flag=True,
    help="Instead: what reuse, the pipeline within a PE, asynchronous layers and copies of layers "
    "bring or cost, one after another. Takes --optimize and --calib.",
)
@click.option("--figure", type=click.Path(path_type=Path), help="Bars, as .svg, .png or .pdf.")
@target_options
@json_option
@quiet_option
def compare(**arguments: Any) -> None:
    """Map MODEL by every exact scheme; prove, run and price each.

    Costs count every fire, conversion, route and table bit. Each scheme's program is run against
    onnxruntime. A lossy scheme (`prap`) is proved and run on the integers that it leaves.
    """
    target = read_target(arguments["target"], arguments["overrides"])
    if arguments["ablation"]:
        _ablation(arguments, target)
        return
    figure = arguments["figure"]
    if figure is not None:
        from pimc.compare_figure import check_figure, draw

        check_place(figure, is_folder=False)
        check_figure(figure)
    from pimc.compare import compare_schemes, scheme_names
    from pimc.frontend.build import import_model

    trial = _trial(arguments)
    names = arguments["schemes"].split(",") if arguments["schemes"] else scheme_names()
    with phases(arguments["quiet"]) as progress:
        progress("import")
        imported = import_model(arguments["model"], trial.calibration)
        rows = compare_schemes(imported, target, names, trial, progress)
    show_warnings(imported.warnings)
    if figure is not None:
        draw(rows, f"{arguments['model'].stem} on {target.name}", figure)
    if arguments["as_json"]:
        figures = {"model": str(arguments["model"]), "rows": [row.as_json() for row in rows]}
        inputs = (arguments["model"], arguments["calib"], arguments["data"])
        show_json(document("compare", figures, target, inputs))
    else:
        _show_rows(rows)


def _ablation(arguments: dict[str, Any], target: Target) -> None:
    """The two tables of `--ablation`. Raises click.UsageError for options it does not take."""
    from pimc.ablation import ablation

    _refuse_other_options()
    calibration = _trial(arguments).calibration
    mapping = {"energy": "best"}.get(arguments["optimize"], f"best-{arguments['optimize']}")
    with phases(arguments["quiet"]) as progress:
        found = ablation(arguments["model"], target, calibration, mapping, progress)
    if arguments["as_json"]:
        figures = {"model": str(arguments["model"]), **found.as_json()}
        inputs = (arguments["model"], arguments["calib"])
        show_json(document("compare", figures, target, inputs))
    else:
        _show_ablation(found)


def _refuse_other_options() -> None:
    """Raise click.UsageError where an option is given that `--ablation` has no use for."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in NOT_WITH_ABLATION
        and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(
            f"--ablation does not take {', '.join(given)}: it compares fixed steps, each run on "
            "one random image; drop the option, or --ablation"
        )


def _show_ablation(found: Ablation) -> None:
    lines = []
    for step in found.steps:
        lines.append((
            step.name, step.cores, step.crossbars, f"{step.time_ns / 1e3:,.1f}",
            f"{step.step_ratio:.2f}x", f"{step.ratio:.2f}x", f"{step.latency_ns / 1e3:,.1f}",
            f"{step.dynamic_pj / 1e6:.4g}", "yes" if step.reconstructs else "NO",
            "yes" if step.equal else "NO", _published(step),
        ))  # fmt: skip
    show_table(ABLATION_HEADERS, lines)
    figures = found.as_json()
    own = figures["reuse_and_pipeline"]
    click.echo(
        f"reuse ({found.steps[1].mapping}) and the pipeline within a PE here: {own['time']:.2f}x "
        f"the speed, {-own['energy_saved']:+.0%} energy, {-own['crossbars_saved']:+.0%} crossbars"
    )
    click.echo(figures["note"])
    for step in found.steps[1:]:
        if step.step_ratio < 0.995:
            click.echo(f"`{step.name}` costs time here: {step.step_ratio:.2f}x")
    click.echo("us between images with asynchronous layers:")
    show_table(
        INTERVAL_HEADERS,
        [
            (mapping, *(f"{ns / 1e3:,.1f}" for ns in intervals.values()))
            for mapping, intervals in found.intervals_ns.items()
        ],
    )


def _published(step: Step) -> str:
    """The published figures for a step and all before it, "-" where there are none."""
    paper = step.published
    if paper is None:
        return "-"
    return (
        f"{paper.time}x {-paper.energy_saved:+.0%} {-paper.crossbars_saved:+.0%} ({paper.source})"
    )


def _trial(arguments: dict[str, Any]) -> Trial:
    from pimc.compare import Trial
    from pimc.compress import parse_compression
    from pimc.data import read_data

    calibration = data = None
    samples = 1 if arguments["samples"] is None else arguments["samples"]
    if arguments["calib"] is not None:
        calibration = read_data(arguments["calib"])
    if arguments["data"] is not None and samples:
        data = read_data(arguments["data"], arguments["samples"])
    specs = tuple(parse_compression(spec) for spec in arguments["specs"])
    return Trial(arguments["optimize"], samples, calibration, data, specs)


def _show_rows(rows: list[Row]) -> None:
    from pimc.compare import ratios

    has_accuracy = any(row.accuracy is not None for row in rows)
    table = []
    for row, ratio in zip(rows, ratios(rows), strict=True):
        cost = row.cost
        line: tuple[object, ...] = (
            row.scheme + " (lossy)" * row.is_lossy,
            cost.stored_columns,
            cost.crossbars,
            cost.conversions,
            cost.route_adds,
            cost.table_bits,
            f"{cost.energy_pj / 1e6:.4g}",
            f"{cost.time_equal_crossbars_ns / 1e3:.4g}",
            f"{cost.area_um2 / 1e6:.3g}",
            f"{ratio['stored_cells']:.2f}x",
            f"{ratio['energy_pj']:.2f}x",
            f"{ratio['time_equal_crossbars_ns']:.2f}x",
            "yes" if row.reconstructs else "NO",
            {True: "yes", False: "NO", None: "-"}[row.equal],
        )
        if has_accuracy:
            line += ("-" if row.accuracy is None else f"{row.accuracy:.1%}",)
        table.append(line)
    show_table((*HEADERS, "accuracy") if has_accuracy else HEADERS, table)
    click.echo(
        f"cells/, energy/, time/: times better than {rows[0].scheme}; time with dense's crossbars"
    )
    _show_notes(rows)


def _show_notes(rows: list[Row]) -> None:
    """What the table cannot say: tables beyond the index memories, and what was lost."""
    beyond = [
        f"{row.scheme} {row.cost.table_bits / row.table_capacity_bits:.1f}x"
        for row in rows
        if row.cost.table_bits > row.table_capacity_bits > 0
    ]
    if beyond:
        click.echo(
            "tables need larger index memories than those of the cores that the crossbars fill, "
            f"which area mm2 counts: {', '.join(beyond)}"
        )
    for row in rows:
        if row.compression is not None:
            done = row.compression
            click.echo(
                f"{row.scheme}: lossy, {' '.join(done.specs)} left {done.kept:,} of "
                f"{done.weights:,} weights, {done.stored:,} stored; proved and equal on these"
            )
