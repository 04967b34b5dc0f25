"""``pimc simulate`` and ``pimc reproduce``: figures for architects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pimc.commands.options import json_option
from pimc.console import show_json, show_table
from pimc.report import document

WORST_LINKS = 3  # that `simulate` names
PAPERS = ("prap-pim", "yu", "pattpim")


@click.command()
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images that stream through the chip.",
)
@click.option("--trace", type=click.Path(path_type=Path), help="Chrome trace, .json or .json.gz.")
@json_option
def simulate(program: Path, images: int, trace: Path | None, as_json: bool) -> None:
    """Simulate PROGRAM in time: interval, latency, energy, area, utilization."""
    from isa import container, verify
    from pimc.report.waits import link_waits, wait_table
    from runtime.summary import summary
    from runtime.timing import simulate as run
    from runtime.trace import write_trace

    loaded = container.load(program)
    verify.check(loaded.program, loaded.target, loaded.source)
    timeline = run(loaded.program, loaded.target, images)
    found = summary(loaded.program, loaded.target, images, timeline=timeline)
    if trace is not None:
        write_trace(timeline, trace)
    if as_json:
        show_json(document("simulate", found, loaded.target, (program,)))
        return
    click.echo(
        f"{images} images: one every {found['interval_ns'] / 1e3:,.1f} us (bound "
        f"{found['bound_interval_ns'] / 1e3:,.1f}, by {found['bound_by']}), the first after "
        f"{found['latency_ns'] / 1e3:,.1f} us; {found['area_mm2']['total']:.1f} mm2"
    )
    rows = [
        (name, f"{value / 1e6:.4g}")
        for name, value in found["energy_pj"].items()
        if isinstance(value, int | float)
    ]
    show_table(("energy of one image", "uJ"), rows)
    click.echo("an average matrix unit of each layer works and waits, us per image")
    show_table(*wait_table(found, timeline))
    for link, waited_ns in link_waits(timeline)[:WORST_LINKS]:
        click.echo(f"messages wait {waited_ns / 1e3:,.2f} us per image for link {link}")


@click.command()
@click.argument("paper", type=click.Choice(PAPERS))
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A network for pattpim. Repeatable.",
)
@json_option
def reproduce(paper: str, models: tuple[Path, ...], as_json: bool) -> None:
    """Compute the published tables of PAPER again, published and ours side by side.

    pattpim measures real weights: give --model, a float, QDQ or QOperator ONNX file, repeatedly.
    """
    if paper == "pattpim" and not models:
        raise click.UsageError("pattpim measures real weights: give --model FILE.onnx")
    tables = _tables(paper, models)
    if as_json:
        show_json(document("reproduce", {"tables": [table.as_json() for table in tables]}))
    else:
        for table in tables:
            click.echo(table.render())
            click.echo()


def _tables(paper: str, models: tuple[Path, ...]) -> tuple[Any, ...]:
    if paper == "prap-pim":
        from pimc.reproduce import prap_pim

        return prap_pim.tables()
    if paper == "yu":
        from pimc.reproduce import yu

        return yu.tables()
    from passes.graph import MatrixNode
    from passes.weights import layer_weights
    from pimc.frontend.build import import_model
    from pimc.reproduce import pattpim

    networks = {}
    for model in models:
        graph = import_model(model).graph
        layers = {}
        for node in graph.nodes:
            if isinstance(node, MatrixNode) and node.groups == 1:
                rows, columns, _ = graph.values[node.output].shape
                values = layer_weights(node).values[0].astype("int8")
                layers[node.name] = pattpim.Layer(values, rows * columns)
        networks[model.stem] = layers
    return pattpim.tables(networks)
