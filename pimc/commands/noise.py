"""``pimc verify --noise`` and ``pimc sweep-adc``: what imperfections and narrow ADCs cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pimc.commands.options import chosen, json_option, quiet_option, read_pairs, shape_option
from pimc.console import counting, show_json, show_table
from pimc.report import document

if TYPE_CHECKING:
    from isa.container import Loaded
    from pimc.data import Feeds

DEVICE_FORM = "KEY=VALUE"

device_option = click.option(
    "--device",
    "device",
    multiple=True,
    metavar=DEVICE_FORM,
    help="Set a number of the target's [nonideal] section, e.g. programming.sigma=0.05. "
    "Repeatable.",
)


def verify_with_noise(
    path: Path,
    loaded: Loaded,
    feeds: Feeds,
    arguments: dict[str, Any],
) -> None:
    """Run a program on devices and show what became of its accuracy."""
    from pimc.noise import noise_report

    overrides = read_pairs(arguments["device"], "--device", DEVICE_FORM)
    target = loaded.target.with_nonideal(overrides)
    with counting("verify", arguments["quiet"] or arguments["as_json"]) as progress:
        found = noise_report(
            loaded.program,
            target,
            feeds,
            arguments["trials"],
            arguments["seed"],
            progress,
            jobs=arguments["jobs"],
        )
    nonideal = target.nonideal.model_dump()
    figures = {"program": str(path), "nonideal": nonideal, "seed": arguments["seed"]}
    report = document("verify", figures | found.as_json(), target, (path, arguments["data"]))
    if arguments["as_json"]:
        show_json(report)
    else:
        _show(report, arguments["per_layer"])


def _show(report: dict[str, Any], per_layer: bool) -> None:
    if per_layer:
        show_table(
            ("tensor", "mean LSB", "rms LSB", "largest LSB"),
            [
                (t["name"], f"{t['mean_lsb']:.3f}", f"{t['rms_lsb']:.3f}", t["max_abs_lsb"])
                for t in report["tensors"]
            ],
        )
        show_table(
            ("layer", "conversions", "saturated"),
            [
                (n["name"], n["conversions"], _percent(n["saturated_share"]))
                for n in report["layers"]
            ],
        )
    trials = f"{report['trials']} device{'s' if report['trials'] > 1 else ''}"
    click.echo(f"with noise: {report['samples']} samples on {trials}, seed {report['seed']}")
    click.echo(f"same answer as the exact machine: {_interval(report['exact_top1_agreement'])}")
    if "accuracy" in report:
        exact = _percent(report["exact_accuracy"])
        click.echo(f"accuracy {_interval(report['accuracy'])}; exact {exact}")


def _interval(share: dict[str, Any]) -> str:
    low, high = share["interval_images"]
    text = f"{_percent(share['mean'])} (95 %: {_percent(low)}..{_percent(high)} over images"
    if share["interval_devices"] is not None:
        low, high = share["interval_devices"]
        text += f", {_percent(low)}..{_percent(high)} over devices"
    return text + ")"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


@click.command("sweep-adc")
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Samples, npz.")
@click.option("--samples", type=click.IntRange(min=1), help="The first so many.")
@click.option(
    "--accuracy-loss",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Percentage points that a narrower ADC may lose.",
)
@shape_option
@json_option
@quiet_option
def sweep_adc(
    program: Path,
    data: Path,
    samples: int | None,
    accuracy_loss: float,
    shapes: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the fewest ADC bits for PROGRAM: without loss by proof, with a loss by measurement.

    The proof is the largest sum that any column of a layer can give. Narrower ADCs saturate, and
    each width is run on the samples; without labels, the exact answers count as right.
    """
    from isa import container
    from isa import verify as verifier
    from pimc.adc_sweep import fewest_bits, proved_bits, sweep
    from pimc.data import read_data

    feeds = read_data(data, samples)
    program = chosen(program, shapes, feeds)
    loaded = container.load(program)
    verifier.check(loaded.program, loaded.target, loaded.source)
    with counting("sweep", quiet or as_json) as progress:
        steps = sweep(loaded.program, loaded.target, feeds, progress)
    needs = proved_bits(loaded.program)
    fewest = fewest_bits(steps, accuracy_loss / 100)
    if as_json:
        figures = {
            "program": str(program),
            "samples": steps[0].samples,
            "proved_bits": steps[0].bits,
            "accuracy_loss": accuracy_loss,
            "measured_bits": fewest,
            "layers": [vars(need) for need in needs],
            "steps": [step.as_json() for step in steps],
        }
        show_json(document("sweep-adc", figures, loaded.target, (program, data)))
        return
    rows = [(need.layer, need.largest_sum, need.bits) for need in needs]
    show_table(("layer", "largest sum", "bits by proof"), rows)
    click.echo()
    table = []
    for step in steps:
        low, high = step.as_json()["interval_images"]
        shares = (step.saturated_share, step.accuracy, low, high)
        table.append((step.bits, *map(_percent, shares)))
    show_table(("bits", "saturated", "accuracy", "95 % from", "to"), table)
    click.echo(
        f"without loss, by proof: {steps[0].bits} bits; "
        f"losing at most {accuracy_loss:g} points on {steps[0].samples} samples: {fewest} bits"
    )
