"""``pimc simulate`` and ``pimc reproduce``: figures for architects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pimc.commands.options import (
    SHAPE_FORM,
    bind_option,
    check_place,
    chosen,
    json_option,
    override_option,
    read_bindings,
    read_pairs,
    read_shapes,
    shape_option,
)
from pimc.commands.phases import show_figures, simulate_phases
from pimc.console import show_json, show_table
from pimc.report import document

if TYPE_CHECKING:
    from isa.program import Program
    from isa.target import Target
    from pimc.data import Feeds
    from runtime.input_zeros import InputZeros, ZeroCounts
    from runtime.skips import Skips
    from runtime.timeline import Timeline

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
@click.option(
    "--input", "source", type=click.Path(path_type=Path), help="Samples, npz: run on them as well."
)
@click.option("--samples", type=click.IntRange(min=1), help="The first so many of --input.")
@click.option("--no-overlap", is_flag=True, help="Also the time of an image layer after layer.")
@override_option
@shape_option
@json_option
def simulate(
    program: Path,
    images: int,
    trace: Path | None,
    source: Path | None,
    samples: int | None,
    no_overlap: bool,
    overrides: tuple[str, ...],
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulate PROGRAM in time: interval, latency, energy, area, utilization.

    With --input, the energy of the array comes from the one bits of a run, and the operation
    units whose inputs are all zero are counted. Where the target skips those (--set
    inputs.skip=group-bit, or group), times and energies are those without them; image k of
    --images then takes the times of sample k, and after the last one of the first again.
    """
    from isa import container, verify
    from isa.folder import PHASES_FILE, phase_folder
    from pimc.data import read_data
    from runtime.trace import write_trace
    from runtime.unpipelined import layer_by_layer

    if trace is not None:
        check_place(trace, False, source)
    if samples is not None and source is None:
        raise click.UsageError("--samples needs --input")
    feeds = None if source is None else read_data(source, samples)
    program = chosen(program, shapes, feeds)
    if (program / PHASES_FILE).is_file():
        if trace is not None or source is not None or no_overlap or overrides:
            hint = f"give one phase, {program / phase_folder(0)}"
            options = "--trace, --input, --no-overlap, --set"
            raise click.UsageError(f"{options} take one program: {hint}")
        simulate_phases(program, images, as_json)
        return
    loaded = container.load(program)
    target = loaded.target.with_overrides(read_pairs(overrides, "--set", "KEY=VALUE"))
    text = replace(loaded.program, target_sha256=target.sha256)
    verify.check(text, target, loaded.source)
    found, timeline, zeros, skips = _simulate(text, target, images, feeds)
    if trace is not None:
        write_trace(timeline, trace)
    if no_overlap:
        alone = layer_by_layer(text, target, skips)
        found["no_overlap"] = {
            "interval_ns": sum(alone.values()) * timeline.cycle_ns,
            "layers": {name: cycles * timeline.cycle_ns for name, cycles in alone.items()},
        }
    if as_json:
        show_json(document("simulate", found, target, (program, source)))
    else:
        _show(found, timeline, zeros)


def _simulate(
    program: Program, target: Target, images: int, feeds: Feeds | None
) -> tuple[dict[str, Any], Timeline, dict[str, ZeroCounts], Skips | None]:
    """Figures and times; what a run on the samples ``feeds`` has counted and skipped."""
    from runtime.cost import price_program
    from runtime.input_zeros import counts_by_layer
    from runtime.skips import skips_of
    from runtime.summary import summary
    from runtime.timing import simulate

    zeros: dict[str, ZeroCounts] = {}
    skips = None
    if feeds is not None:
        crossbars = _run_counting(program, target, feeds)
        zeros, skips = counts_by_layer(program, crossbars), skips_of(program, target, crossbars)
    timeline = simulate(program, target, images, skips)
    ones = {name: counts.ones for name, counts in zeros.items()}
    cost = price_program(program, target, ones, skips)
    found = summary(program, target, images, timeline, cost)
    if feeds is not None:
        found["input_zeros"] = {name: counts.as_json() for name, counts in zeros.items()}
    return found, timeline, zeros, skips


def _show(found: dict[str, Any], timeline: Timeline, zeros: dict[str, ZeroCounts]) -> None:
    """Print the figures of a simulation for people."""
    from pimc.report.waits import link_waits, wait_table

    show_figures(found)
    if "no_overlap" in found:
        apart = found["no_overlap"]["interval_ns"]
        click.echo(
            f"layer after layer, without overlap: one image every {apart / 1e3:,.1f} us, "
            f"{apart / found['interval_ns']:.2f} times as long"
        )
    click.echo("an average matrix unit of each layer works and waits, us per image")
    show_table(*wait_table(found, timeline))
    for link, waited_ns in link_waits(timeline)[:WORST_LINKS]:
        click.echo(f"messages wait {waited_ns / 1e3:,.2f} us per image for link {link}")
    skip = found["input_skip"]
    said = f"inputs.skip = {skip['target']}: " if skip["taken"] else "not "
    if zeros:
        click.echo(
            f"operation units with zero inputs, % of all fires ({said}skipped in the figures)"
        )
        show_table(("layer", "all bits zero", "bit by bit"), _zero_rows(zeros))


def _run_counting(
    program: Program, target: Target, feeds: Feeds
) -> dict[int, dict[str, InputZeros]]:
    """Run a program on samples; its crossbars have counted the zeros among their inputs."""
    from pimc.data import check_feeds, ports, to_machine
    from pimc.host import host_of
    from runtime.input_zeros import counting_crossbars
    from runtime.machine import Machine

    check_feeds(program, feeds)
    crossbars = counting_crossbars(program, target, keeps_times=True)
    inputs = ports(program, "input")
    machine = Machine(program, target, crossbars, host_of(program))
    machine.run({tensor.name: to_machine(tensor, feeds[tensor.onnx_name]) for tensor in inputs})
    return crossbars


def _zero_rows(zeros: dict[str, ZeroCounts]) -> list[tuple[str, str, str]]:
    return [
        (
            name,
            f"{100 * counts.group.fires_skipped / max(1, counts.fires):.2f}",
            f"{100 * counts.group_bit.fires_skipped / max(1, counts.fires):.2f}",
        )
        for name, counts in zeros.items()
    ]


@click.command()
@click.argument("paper", type=click.Choice(PAPERS))
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A network for pattpim. Repeatable.",
)
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar=SHAPE_FORM,
    help="Full shape of an input with dynamic axes, of one --model.",
)
@bind_option
@json_option
def reproduce(
    paper: str,
    models: tuple[Path, ...],
    shapes: tuple[str, ...],
    bind: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compute the published tables of PAPER again, published and ours side by side.

    pattpim measures real weights: give --model, a float, QDQ or QOperator ONNX file, repeatedly.
    """
    if paper == "pattpim" and not models:
        raise click.UsageError("pattpim measures real weights: give --model FILE.onnx")
    (shape, *others) = read_shapes(shapes)
    if others or ((shapes or bind) and len(models) != 1):
        raise click.UsageError("--input-shape and --bind are for one --model, in one shape")
    tables = _tables(paper, models, shape, bind)
    if as_json:
        show_json(document("reproduce", {"tables": [table.as_json() for table in tables]}))
    else:
        for table in tables:
            click.echo(table.render())
            click.echo()


def _tables(
    paper: str, models: tuple[Path, ...], shape: dict[str, tuple[int, ...]], bind: tuple[str, ...]
) -> tuple[Any, ...]:
    if paper == "prap-pim":
        from pimc.reproduce import prap_pim

        return prap_pim.tables()
    if paper == "yu":
        from pimc.reproduce import yu

        return yu.tables()
    from passes.graph import MatrixNode
    from passes.weights import layer_weights
    from pimc.frontend.build import FrontendOptions, import_model
    from pimc.reproduce import pattpim

    networks, options = {}, FrontendOptions(shape, bind=read_bindings(bind))
    for model in models:
        graph = import_model(model, None, options).graph
        layers = {}
        for node in graph.nodes:
            if isinstance(node, MatrixNode) and node.groups == 1:
                rows, columns, _ = graph.values[node.output].shape
                values = layer_weights(node).values[0].astype("int8")
                layers[node.name] = pattpim.Layer(values, rows * columns)
        networks[model.stem] = layers
    return pattpim.tables(networks)
