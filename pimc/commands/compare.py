"""``pimc compare``: mapping schemes side by side, as a table, as JSON and as a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from pimc.commands.options import (
    bind_option,
    bound_files,
    check_place,
    json_option,
    model_shapes_option,
    quiet_option,
    read_bindings,
    read_shapes,
    read_target,
    target_options,
)
from pimc.console import phases, show_json, show_table, show_warnings
from pimc.report import document

if TYPE_CHECKING:
    from isa.diagnostics import Diagnostic
    from isa.shapes import Shape
    from isa.target import Target
    from pimc.ablation import Ablation, Step
    from pimc.compare import Row, Trial
    from pimc.data import Feeds

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
    "--calib",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Samples for the ranges and for refits, npz. Repeatable, for samples of several input "
    "shapes.",
)
@model_shapes_option
@bind_option
@click.option(
    "--compress",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="What `prap` does to the weights, as in `pimc compress`. Repeatable.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Samples to run each program on, npz; with `labels` also its accuracy. Repeatable, for "
    "samples of several input shapes.",
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
    "bring or cost, one after another. Takes --optimize, --calib, --bind and one --input-shape.",
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

        _one_shape(arguments, "--figure draws")
        check_place(figure, is_folder=False)
        check_figure(figure)
    with phases(arguments["quiet"]) as progress:
        found = _compared(arguments, target, progress)
    show_warnings(list(dict.fromkeys(warning for each in found for warning in each.warnings)))
    if figure is not None:
        draw(found[0].rows, f"{arguments['model'].stem} on {target.name}", figure)
    if arguments["as_json"]:
        tables: list[dict[str, Any]] = [
            {"input_shape": each.sizes, "rows": [row.as_json() for row in each.rows]}
            for each in found
        ]
        _show_document(arguments, target, tables[0] if len(found) == 1 else {"shapes": tables})
        return
    for each in found:
        if len(found) > 1:
            click.echo(f"input shape {each.shape}:")
        _show_rows(each.rows)


class _Table(NamedTuple):
    """What was found for one input shape."""

    shape: Shape
    warnings: tuple[Diagnostic, ...]
    rows: list[Row]

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        return {name: each.full for name, each in self.shape.inputs.items()}


def _compared(
    arguments: dict[str, Any], target: Target, progress: Callable[[str], None]
) -> list[_Table]:
    from pimc.compare import compare_schemes, scheme_names
    from pimc.frontend.build import FrontendOptions, import_shapes
    from pimc.shapes import input_shape, samples_by_shape

    trial, shapes = _trial(arguments), read_shapes(arguments["shapes"])
    calibration, data = _samples(arguments)
    names = arguments["schemes"].split(",") if arguments["schemes"] else scheme_names()
    progress("import")
    bound = FrontendOptions(bind=read_bindings(arguments["bind"]))
    imported = import_shapes(arguments["model"], shapes, calibration, bound)
    known = [input_shape(each.graph) for each in imported]
    refits, runs = (samples_by_shape(known, sets) for sets in (calibration, data))
    found = []
    for at, each in enumerate(imported):
        own = replace(
            trial,
            calibration=refits[at],
            data=runs[at],
            frontend=FrontendOptions(input_shapes=shapes[at]),
        )
        rows = compare_schemes(each, target, names, own, progress)
        found.append(_Table(known[at], each.warnings, rows))
    return found


def _samples(arguments: dict[str, Any]) -> tuple[list[Feeds], list[Feeds]]:
    """Of --calib, without labels, and of --data."""
    from pimc.data import LABELS, read_data

    calibration = [read_data(file) for file in arguments["calib"]]
    for feeds in calibration:
        feeds.pop(LABELS, None)
    is_run = arguments["samples"] != 0
    data = [read_data(file, arguments["samples"]) for file in arguments["data"] if is_run]
    return calibration, data


def _one_shape(arguments: dict[str, Any], who: str) -> dict[str, tuple[int, ...]]:
    """The one input shape. Raises click.UsageError where several are given."""
    (shape, *others) = read_shapes(arguments["shapes"])
    if others:
        raise click.UsageError(f"{who} one input shape, and several are given; give one")
    return shape


def _show_document(arguments: dict[str, Any], target: Target, figures: dict[str, Any]) -> None:
    files = (arguments["model"], *arguments["calib"], *arguments["data"])
    inputs = (*files, *map(Path, bound_files(arguments["bind"])))
    show_json(document("compare", {"model": str(arguments["model"]), **figures}, target, inputs))


def _ablation(arguments: dict[str, Any], target: Target) -> None:
    """The two tables of `--ablation`. Raises click.UsageError for options it does not take."""
    from pimc.ablation import ablation
    from pimc.frontend.build import FrontendOptions
    from pimc.shapes import joined

    _refuse_other_options()
    shape = _one_shape(arguments, "--ablation compares")
    frontend = FrontendOptions(shape, bind=read_bindings(arguments["bind"]))
    calibration, _ = _samples(arguments)
    mapping = {"energy": "best"}.get(arguments["optimize"], f"best-{arguments['optimize']}")
    with phases(arguments["quiet"]) as progress:
        samples = joined(calibration) if calibration else None
        found = ablation(arguments["model"], target, samples, mapping, progress, frontend)
    if arguments["as_json"]:
        _show_document(arguments, target, found.as_json())
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
    """What every scheme is tried on, without samples."""
    from pimc.compare import Trial
    from pimc.compress import parse_compression

    samples = 1 if arguments["samples"] is None else arguments["samples"]
    specs = tuple(parse_compression(spec) for spec in arguments["specs"])
    return Trial(arguments["optimize"], samples, lossy=specs)


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
