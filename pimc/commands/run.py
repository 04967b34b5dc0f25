"""``pimc run`` and ``pimc verify``: execute a program folder's text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from isa.codes import EXIT_VERIFICATION_FAILED
from pimc.commands.compile import show_verification
from pimc.commands.options import check_place, json_option, quiet_option
from pimc.console import counting, show_json, show_table, show_warnings
from pimc.report import document

PROGRAM = click.argument("program", type=click.Path(path_type=Path))


@click.command("run")
@PROGRAM
@click.option("--input", "source", type=click.Path(path_type=Path), help="Samples, npz.")
@click.option("--output", type=click.Path(path_type=Path), help="Outputs, npz.")
@click.option("--fill", type=click.Choice(["random"]), help="Random samples instead of --input.")
@click.option("--samples", type=click.IntRange(min=1), help="The first so many samples.")
@click.option("--seed", default=0, show_default=True, help="Of --fill random.")
@json_option
def run_command(
    program: Path,
    source: Path | None,
    output: Path | None,
    fill: str | None,
    samples: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run PROGRAM on samples and write its outputs."""
    if (source is None) == (fill is None):
        raise click.UsageError("give samples with --input FILE.npz, or --fill random")
    from pimc import api
    from pimc.data import LABELS, random_feeds, read_data, write_data

    if output is not None:
        check_place(output, is_folder=False)
    loaded = api.load(program)
    if source is None:
        feeds = random_feeds(loaded.program, samples or 1, seed)
    else:
        feeds = read_data(source, samples)
        feeds.pop(LABELS, None)
    outputs = loaded.run(feeds)
    if output is not None:
        write_data(output, outputs)
    shapes = {name: list(values.shape) for name, values in outputs.items()}
    if as_json:
        written = None if output is None else str(output)
        figures = {"program": str(program), "outputs": shapes, "written": written}
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
@json_option
@quiet_option
def verify_command(
    program: Path,
    data: Path | None,
    samples: int | None,
    per_layer: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare PROGRAM with onnxruntime on its reference model, and with the float model.

    Every inner tensor is compared; exit code 1 when any integer differs.
    """
    from isa import container
    from isa import verify as verifier
    from pimc.check import verify_program
    from pimc.data import random_feeds, random_warning, read_data
    from pimc.driver import load_models

    loaded = container.load(program)
    verifier.check(loaded.program, loaded.target, loaded.source)
    reference, float_model = load_models(program)
    if data is None:
        show_warnings([random_warning()])
        feeds = random_feeds(loaded.program, samples or 16, seed=0)
    else:
        feeds = read_data(data, samples)
    with counting("verify", quiet or as_json) as progress:
        found = verify_program(
            loaded.program,
            loaded.target,
            reference,
            float_model,
            feeds,
            per_layer=True,
            progress=progress,
        )
    figures = {"program": str(program), "random": data is None, **found.as_json()}
    report = document("verify", figures, loaded.target, (program, data))
    if as_json:
        show_json(report)
    else:
        if per_layer:
            rows = [(layer["name"], layer["max_abs_diff_lsb"]) for layer in report["layers"]]
            show_table(("tensor", "largest difference, LSB"), rows)
        show_verification(report)
    if not found.is_equal:
        sys.exit(EXIT_VERIFICATION_FAILED)
