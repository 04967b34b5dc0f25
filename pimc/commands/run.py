"""``pimc run`` and ``pimc verify``: execute a program folder's text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isa.codes import EXIT_VERIFICATION_FAILED
from pimc.commands.compiled import show_verification
from pimc.commands.noise import device_option, verify_with_noise
from pimc.commands.options import (
    check_place,
    chosen,
    jobs_option,
    json_option,
    quiet_option,
    shape_option,
)
from pimc.console import counting, show_json, show_table, show_warnings
from pimc.report import document

if TYPE_CHECKING:
    from isa.container import LoadedPhases

PROGRAM = click.argument("program", type=click.Path(path_type=Path))


@click.command("run")
@PROGRAM
@click.option("--input", "source", type=click.Path(path_type=Path), help="Samples, npz.")
@click.option("--output", type=click.Path(path_type=Path), help="Outputs, npz.")
@click.option("--fill", type=click.Choice(["random"]), help="Random samples instead of --input.")
@click.option("--samples", type=click.IntRange(min=1), help="The first so many samples.")
@click.option("--seed", default=0, show_default=True, help="Of --fill random.")
@shape_option
@jobs_option
@json_option
def run_command(
    program: Path,
    source: Path | None,
    output: Path | None,
    fill: str | None,
    samples: int | None,
    seed: int,
    shapes: tuple[str, ...],
    jobs: int,
    as_json: bool,
) -> None:
    """Run PROGRAM on samples and write its outputs."""
    if (source is None) == (fill is None):
        raise click.UsageError("give samples with --input FILE.npz, or --fill random")
    from pimc import api
    from pimc.data import random_feeds, read_data, write_data

    if output is not None:
        check_place(output, False, source)
    given = None if source is None else read_data(source, samples)
    program = chosen(program, shapes, given)
    loaded = api.load(program)
    feeds = random_feeds(loaded.program, samples or 1, seed) if given is None else given
    outputs, counters = loaded.run_and_count(feeds, jobs)
    if output is not None:
        write_data(output, outputs)
    sizes = {name: list(values.shape) for name, values in outputs.items()}
    if as_json:
        written = None if output is None else str(output)
        figures = {
            "program": str(program),
            "outputs": sizes,
            "written": written,
            "counters": counters.as_json(),
        }
        show_json(document("run", figures, loaded.target, (program, source)))
    else:
        show_table(("output", "shape", "largest"), _rows(outputs))


def _rows(outputs: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, "x".join(map(str, values.shape)), f"{float(abs(values).max()):.6g}")
        for name, values in outputs.items()
    ]


@click.command("verify")
@PROGRAM
@click.option(
    "--data", type=click.Path(path_type=Path), help="Samples, npz; random ones if absent."
)
@click.option("--samples", type=click.IntRange(min=1), help="The first so many; 16 random ones.")
@click.option("--per-layer", is_flag=True, help="List every tensor that was compared.")
@click.option("--noise", is_flag=True, help="On a device with imperfections; see docs/device.md.")
@device_option
@click.option(
    "--trials", type=click.IntRange(min=1), default=1, show_default=True, help="Devices to draw."
)
@click.option("--seed", default=0, show_default=True, help="Of the devices.")
@shape_option
@jobs_option
@json_option
@quiet_option
def verify_command(**arguments: Any) -> None:
    """Compare PROGRAM with onnxruntime on its reference model, and with the float model.

    Every inner tensor is compared; exit code 1 when any integer differs, or a float32 by more
    than 1e-5 of the largest magnitude. With --noise, PROGRAM
    runs on devices with imperfections instead, and is compared with its own exact run: accuracy
    with 95 % intervals, differences in quantization steps (LSB), saturated conversions.
    """
    if not arguments["noise"]:
        given = click.get_current_context().get_parameter_source
        for option in ("device", "trials", "seed"):
            if given(option) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"--{option} needs --noise")
    from isa import container
    from isa import verify as verifier
    from pimc.data import random_feeds, random_warning, read_data

    data = arguments["data"]
    samples = None if data is None else read_data(data, arguments["samples"])
    program = chosen(arguments["program"], arguments["shapes"], samples)
    loaded = container.load_phases(program)
    verifier.check_phases(loaded.phases, loaded.target, loaded.sources)
    if samples is None:
        show_warnings([random_warning()])
    feeds = samples or random_feeds(loaded.program, arguments["samples"] or 16, seed=0)
    if arguments["noise"]:
        verify_with_noise(program, container.load(program), feeds, arguments)
    else:
        _verify_exactly(program, loaded, feeds, arguments)


def _verify_exactly(
    program: Path, loaded: LoadedPhases, feeds: dict[str, Any], arguments: dict[str, Any]
) -> None:
    from pimc.check import verify_program
    from pimc.model_files import load_models

    data, as_json = arguments["data"], arguments["as_json"]
    reference, float_model = load_models(program)
    with counting("verify", arguments["quiet"] or as_json) as progress:
        found = verify_program(
            loaded.whole,
            loaded.target,
            reference,
            float_model,
            feeds,
            per_layer=True,
            progress=progress,
            jobs=arguments["jobs"],
        )
    figures = {"program": str(program), "random": data is None, **found.as_json()}
    report = document("verify", figures, loaded.target, (program, data))
    if as_json:
        show_json(report)
    else:
        if arguments["per_layer"]:
            rows = [(layer["name"], layer["max_abs_diff_lsb"]) for layer in report["layers"]]
            show_table(("tensor", "largest difference, LSB"), rows)
            near = [
                (layer["name"], f"{layer['max_relative_diff']:.1e}")
                for layer in report.get("float_layers", [])
            ]
            if near:
                show_table(("float tensor", "largest difference / largest magnitude"), near)
        show_verification(report)
    if not found.is_equal:
        sys.exit(EXIT_VERIFICATION_FAILED)
