"""``pimc compile``: a model file becomes a proved program folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isa.codes import EXIT_VERIFICATION_FAILED
from pimc.commands.options import (
    check_place,
    json_option,
    quiet_option,
    read_shapes,
    read_target,
    read_tiles,
    target_options,
)
from pimc.console import counting, phases, show_json, show_table, show_warnings
from pimc.report import input_hashes, rounded

if TYPE_CHECKING:
    from pimc.check import Verification
    from pimc.driver import Compiled


@click.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default NAME.pim.")
@target_options
@click.option("--tiles", metavar="N|auto", help="Cores of the chip; auto grows it until all fits.")
@click.option("--calib", type=click.Path(path_type=Path), help="Samples for the ranges, npz.")
@click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How ranges come from the samples.",
)
@click.option("--seed", default=0, show_default=True, help="Of random samples, without --calib.")
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="NAME=1,3,224,224",
    help="Full shape of an input with dynamic axes. Repeatable.",
)
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
    "--verify", "data", type=click.Path(path_type=Path), help="Samples to verify on, npz."
)
@click.option("--samples", type=click.IntRange(min=1), help="Verify on the first so many.")
@click.option("--timing", is_flag=True, help="Seconds of each phase, on stderr.")
@json_option
@quiet_option
def compile_command(**arguments: Any) -> None:
    """Compile MODEL (float, QDQ or QOperator ONNX) to a program folder."""
    output = arguments["output"] or Path(arguments["model"].stem + ".pim")
    check_place(output, is_folder=True)
    feeds, compiled = _compile(arguments)
    report = compiled.report
    found = _verify(compiled, feeds, arguments) if feeds is not None else None
    if found is not None:
        report["verify"] = found.as_json()
    report["program"] = str(output)
    compiled.save(output)
    if arguments["timing"]:
        report["timing_s"] = rounded(compiled.seconds)
        for phase, seconds in compiled.seconds.items():
            click.echo(f"{seconds:8.3f} s  {phase}", err=True)
    if arguments["as_json"]:
        show_json(report)
    else:
        _show(report)
    if found is not None and not found.is_equal:
        sys.exit(EXIT_VERIFICATION_FAILED)


def _compile(arguments: dict[str, Any]) -> tuple[Any, Compiled]:
    """Read the inputs and compile; the samples of --verify are read before, to fail early."""
    target = read_target(arguments["target"], arguments["overrides"])
    shapes, tiles = read_shapes(arguments["shapes"]), read_tiles(arguments["tiles"])
    if tiles == "auto" and arguments["phases"] == "auto":
        raise click.UsageError("--phases auto is for a chip of fixed size, --tiles auto grows it")
    from pimc.compress import parse_compression
    from pimc.data import LABELS, read_data
    from pimc.driver import CompileOptions, compile_model
    from pimc.frontend.build import FrontendOptions

    feeds = calibration = None
    if arguments["data"] is not None:
        feeds = read_data(arguments["data"], arguments["samples"])
    if arguments["calib"] is not None:
        calibration = read_data(arguments["calib"])
        calibration.pop(LABELS, None)
    frontend = FrontendOptions(
        input_shapes=shapes,
        calibration_method=arguments["calib_method"],
        seed=arguments["seed"],
        use_host=not arguments["no_host"],
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
        compiled = compile_model(arguments["model"], target, calibration, options, progress)
    show_warnings(compiled.warnings)
    given = (arguments["model"], arguments["calib"], arguments["data"])
    compiled.report["inputs"] = input_hashes(given)
    available = compiled.target.cores
    if tiles == "auto" and available != target.cores:
        click.echo(f"note: the mesh grew from {target.cores} to {available} cores", err=True)
    if (count := compiled.report["phases"]) > 1:
        click.echo(
            f"note: {target.name} is too small; the model runs in {count} phases, chosen for "
            f"batches of {options.batch} images, and the crossbars are written anew for each",
            err=True,
        )
    return feeds, compiled


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


def _verify(compiled: Compiled, feeds: Any, arguments: dict[str, Any]) -> Verification:
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


def _show(report: dict[str, Any]) -> None:
    click.echo(f"{report['program']}: {report['layers']} weight layers on {report['target']}")
    show_table(
        ("cores", "crossbars", "OU blocks", "stored columns", "instructions", "seconds"),
        [
            (
                f"{report['cores']} of {report['cores_available']}",
                report["crossbars"],
                report["ou_blocks"],
                report["stored_columns"],
                report["instructions"],
                report["compile_s"],
            )
        ],
    )
    if "compression" in report:
        _show_compression(report["compression"])
    from pimc.placement import placement_lines

    for line in placement_lines(report["placement"]):
        click.echo(line)
    click.echo("reconstructs: the programmed blocks give back every integer weight")
    if "verify" in report:
        show_verification(report["verify"])


def _show_compression(done: dict[str, Any]) -> None:
    errors = [layer["error_after"] or 0.0 for layer in done["layers"]]
    click.echo(
        f"LOSSY: {' '.join(done['specs'])} left {done['kept']:,} of {done['weights']:,} weights, "
        f"{done['stored']:,} stored; output error of a layer up to {max(errors):.1%}"
    )


def show_verification(found: dict[str, Any]) -> None:
    """The lines that `compile --verify` and `verify` print."""
    verdict = "equal" if found["equal"] else "DIFFERENT"
    click.echo(
        f"{verdict}: largest difference from onnxruntime {found['max_abs_diff_lsb']} LSB over "
        f"{len(found['layers'])} tensors, {found['samples']} samples"
    )
    for layer in found["layers"]:
        if layer["max_abs_diff_lsb"]:
            click.echo(f"  {layer['max_abs_diff_lsb']:3} LSB  {layer['name']}")
    if "float_top1_agreement" in found:
        noise = found["float_sqnr_db"]
        quality = "no difference" if noise is None else f"SQNR {noise:.1f} dB"
        agreement = found["float_top1_agreement"]
        top1 = "" if agreement is None else f"top-1 agreement {agreement:.1%}, "
        click.echo(f"against the float model: {top1}{quality}")
    if "float_error" in found:
        click.echo(f"not compared with the float model: {found['float_error']}")
    if "accuracy" in found:
        known = (("float", "float_accuracy"), ("reference", "reference_accuracy"))
        others = ", ".join(f"{name} {found[key]:.1%}" for name, key in known if key in found)
        click.echo(f"accuracy {found['accuracy']:.1%} ({others})")
