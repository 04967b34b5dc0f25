"""``pimc compile``: a model file becomes a proved program folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isa.codes import EXIT_VERIFICATION_FAILED
from pimc.commands.compiled import show_compiled, show_shapes
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
    read_tiles,
    target_options,
)
from pimc.console import counting, phases, show_json, show_warnings
from pimc.report import input_hashes, rounded

if TYPE_CHECKING:
    from pimc.check import Verification
    from pimc.data import Feeds
    from pimc.driver import Compiled


@click.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default NAME.pim.")
@target_options
@click.option("--tiles", metavar="N|auto", help="Cores of the chip; auto grows it until all fits.")
@click.option(
    "--calib",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Samples for the ranges, npz. Repeatable, for samples of several input shapes.",
)
@click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How ranges come from the samples.",
)
@click.option("--seed", default=0, show_default=True, help="Of random samples, without --calib.")
@model_shapes_option
@bind_option
@click.option(
    "--mapping",
    default="ou-tile",
    show_default=True,
    help="How weights become blocks: ou-tile, row-compress, row-compress-output, "
    "row-compress-dedup, kernel-reorder, kernel-reorder-dedup, plane-skip, filter-dedup, "
    "pattern-dedup, best, best-latency, best-area. All are exact; docs/mapping.md explains them.",
)
@click.option(
    "--optimize",
    type=click.Choice(["energy", "latency", "area"]),
    help="Short for --mapping best, best-latency, best-area.",
)
@click.option(
    "--mode",
    type=click.Choice(["throughput", "latency"]),
    help="What to build for. throughput: the shortest interval between images, --replicate "
    "min-max. latency: one image alone, the same and --optimize latency where no mapping is "
    "chosen, and --phases for a batch of one. Without it: one copy of each layer.",
)
@click.option(
    "--compress",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Lossy: prune or tie weights first, as in `pimc compress`, refitted on --calib. "
    "Repeatable.",
)
@click.option(
    "--place",
    type=click.Choice(["none", "descent", "faq", "best"]),
    default="descent",
    show_default=True,
    help="Of cores on the mesh, for few bytes times hops: as numbered, by swaps, by SciPy's FAQ "
    "and swaps, or the better of the two.",
)
@click.option(
    "--phases",
    type=click.Choice(["never", "auto"]),
    default="never",
    show_default=True,
    help="auto: a model that does not fit runs in parts, the crossbars written anew for each.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Images that share the writing, when --phases chooses the parts.",
)
@click.option(
    "--replicate",
    type=click.Choice(["none", "min-max", "greedy", "uniform", "isaac"]),
    default="none",
    show_default=True,
    help="Give the cores that are left to copies of layers, which take turns at output rows: for "
    "the shortest interval between images, always to the slowest layer, the same to all, or in "
    "the ratio of the output areas.",
)
@click.option(
    "--crossbar-budget",
    type=click.IntRange(min=1),
    help="Crossbars that all copies together may take; default all of the chip.",
)
@click.option(
    "--no-host", is_flag=True, help="Refuse what the chip cannot do, instead of using the host."
)
@click.option("--allow-clipping", is_flag=True, help="Compile although the ADC may saturate.")
@click.option(
    "--verify",
    "data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Samples to verify on, npz. Repeatable, for samples of several input shapes.",
)
@click.option("--samples", type=click.IntRange(min=1), help="Verify on the first so many.")
@click.option("--timing", is_flag=True, help="Seconds of each phase, on stderr.")
@json_option
@quiet_option
def compile_command(**arguments: Any) -> None:
    """Compile MODEL (float, QDQ or QOperator ONNX) to a program folder."""
    output = arguments["output"] or Path(arguments["model"].stem + ".pim")
    check_place(output, is_folder=True)
    from pimc.shapes import save_compiled, shapes_report

    sets, compiled = _compile(arguments)
    feeds = _samples(compiled, sets)
    weights = bound_files(arguments["bind"])
    files = (arguments["model"], *arguments["calib"], *arguments["data"], *weights)
    inputs = input_hashes(files)
    is_equal = True
    for one, samples in zip(compiled, feeds, strict=True):
        one.report["inputs"] = inputs
        if samples is not None:
            found = _verify(one, samples, arguments)
            one.report["verify"] = found.as_json()
            is_equal &= found.is_equal
        one.report["program"] = str(output)
    report = compiled[0].report if len(compiled) == 1 else shapes_report(compiled)
    save_compiled(output, compiled, report)
    if arguments["timing"]:
        report["timing_s"] = rounded(compiled[0].seconds)
        for phase, seconds in compiled[0].seconds.items():
            click.echo(f"{seconds:8.3f} s  {phase}", err=True)
    if arguments["as_json"]:
        show_json(report)
    elif len(compiled) == 1:
        show_compiled(report)
    else:
        show_shapes(report)
    if not is_equal:
        sys.exit(EXIT_VERIFICATION_FAILED)


def _compile(arguments: dict[str, Any]) -> tuple[list[Feeds], tuple[Compiled, ...]]:
    """Read the inputs and compile; the samples of --verify are read before, to fail early."""
    target = read_target(arguments["target"], arguments["overrides"])
    shapes, tiles = read_shapes(arguments["shapes"]), read_tiles(arguments["tiles"])
    if tiles == "auto" and arguments["phases"] == "auto":
        raise click.UsageError("--phases auto is for a chip of fixed size, --tiles auto grows it")
    from pimc.compress import parse_compression
    from pimc.data import read_data
    from pimc.driver import CompileOptions, compile_shapes
    from pimc.frontend.build import FrontendOptions

    sets = [read_data(file, arguments["samples"]) for file in arguments["data"]]
    calibration = [read_data(file) for file in arguments["calib"]]
    frontend = FrontendOptions(
        calibration_method=arguments["calib_method"],
        seed=arguments["seed"],
        use_host=not arguments["no_host"],
        bind=read_bindings(arguments["bind"]),
    )
    specs = tuple(parse_compression(spec) for spec in arguments["specs"])
    options = CompileOptions(
        frontend,
        _mapping(arguments["mapping"], arguments["optimize"], arguments["mode"]),
        tiles,
        arguments["allow_clipping"],
        specs,
        arguments["place"],
        arguments["phases"],
        _batch(arguments["batch"], arguments["mode"]),
        _replicate(arguments["replicate"], arguments["mode"]),
        arguments["crossbar_budget"],
    )
    with phases(arguments["quiet"]) as progress:
        model = arguments["model"]
        compiled = compile_shapes(model, shapes, target, calibration, options, progress)
    show_warnings(list(dict.fromkeys(w for each in compiled for w in each.warnings)))
    available = compiled[0].target.cores
    if tiles == "auto" and available != target.cores:
        click.echo(f"note: the mesh grew from {target.cores} to {available} cores", err=True)
    if (count := max(each.report["phases"] for each in compiled)) > 1:
        click.echo(
            f"note: {target.name} is too small; the model runs in {count} phases, chosen for "
            f"batches of {options.batch} images, and the crossbars are written anew for each",
            err=True,
        )
    return sets, compiled


def _replicate(policy: str, mode: str | None) -> str:
    """The policy that was asked for; min-max where only a mode was."""
    given = click.get_current_context().get_parameter_source("replicate")
    return "min-max" if mode is not None and given is ParameterSource.DEFAULT else policy


def _batch(images: int, mode: str | None) -> int:
    """Images that --phases is for; one alone in latency mode, unless a batch is given."""
    given = click.get_current_context().get_parameter_source("batch")
    return 1 if mode == "latency" and given is ParameterSource.DEFAULT else images


def _mapping(name: str, optimize: str | None, mode: str | None) -> str:
    """The mapping that three options ask for together."""
    given = click.get_current_context().get_parameter_source("mapping")
    if optimize is None and mode == "latency" and given is ParameterSource.DEFAULT:
        return "best-latency"
    if optimize is None:
        return name
    if given is not ParameterSource.DEFAULT and name != "best":
        raise click.UsageError(f"--optimize chooses the mapping; --mapping {name} does, too")
    return "best" if optimize == "energy" else f"best-{optimize}"


def _samples(compiled: tuple[Compiled, ...], sets: list[Feeds]) -> list[Feeds | None]:
    """The samples of each program; a single one takes what is given, or says why not."""
    from isa.shape_container import shape_of
    from pimc.data import check_feeds
    from pimc.shapes import samples_by_shape

    for feeds in sets if len(compiled) == 1 else ():
        check_feeds(compiled[0].program, feeds)
    return samples_by_shape([shape_of(each.whole) for each in compiled], sets)


def _verify(compiled: Compiled, feeds: Feeds, arguments: dict[str, Any]) -> Verification:
    from pimc.check import verify_program

    with counting("verify", arguments["quiet"]) as progress:
        return verify_program(
            compiled.whole,
            compiled.target,
            compiled.reference,
            compiled.float_model,
            feeds,
            per_layer=True,
            progress=progress,
        )
