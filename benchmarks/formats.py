"""A table of forms: networks as onnxruntime's tools write them, compiled and compared.

    pip install onnxconverter-common onnxsim onnxslim    # for the forms that they write
    python -m benchmarks.formats models/resnet8_fmnist.onnx /tmp/networks/bert.onnx ...

A cell says what share of the multiplications the crossbars do and how far the program is from
onnxruntime on that very file, in dB. The integers are compared on two images: what is not 0 LSB is
said, and so is a refusal. Then follows what stays on the host.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper

import pimc
from benchmarks.forms import FORMS, Feeds, Form
from benchmarks.networks import on_host
from isa.diagnostics import PimError

SHAPES = {  # what the exported files leave open, besides the batch
    "bert": {"tokens": (1, 16)},
    "lstm_tagger": {"tokens": (1, 32)},
    "modelA_paper": {"x": (1, 100, 16)},
}
SAMPLES = 8  # for onnxruntime's calibrators and for pimc's
TOKENS = 50  # rows of a table that random numbers pick from


def samples_of(source: Path, count: int) -> list[Feeds]:
    """Seeded random inputs of a model, its open axes as in `SHAPES`."""
    random, shapes = np.random.default_rng(0), SHAPES.get(source.stem, {})
    found = []
    for _ in range(count):
        feeds: Feeds = {}
        for port in onnx.load(source).graph.input:
            tensor = port.type.tensor_type
            shape = shapes.get(port.name, [dim.dim_value or 1 for dim in tensor.shape.dim])
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            is_real = dtype.kind == "f"
            drawn = random.standard_normal(shape) if is_real else random.integers(0, TOKENS, shape)
            feeds[port.name] = drawn.astype(dtype)
        found.append(feeds)
    return found


def measure(source: Path, form: Form, folder: Path) -> tuple[str, str]:
    """One cell, and what stays on the host."""
    target = folder / f"{source.stem}.onnx"
    samples = samples_of(source, SAMPLES)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # calibrators tell their progress
            form(source, target, samples)
    except ImportError as error:
        return f"no {error.name}", ""
    except Exception as error:  # the tools stumble over some networks themselves
        return f"not written ({type(error).__name__})", ""
    feeds = {name: np.concatenate([each[name] for each in samples]) for name in samples[0]}
    try:
        program = pimc.compile(
            target, calibration=feeds, tiles="auto", input_shapes=SHAPES.get(source.stem)
        )
        found = program.verify({name: values[:2] for name, values in feeds.items()})
    except PimError as error:
        return f"refused: {error.diagnostics[0].message}", ""
    placement = program.report["placement"]
    return _cell(found, placement["mac_share"]["crossbars"]), on_host(placement["on_host"])


def _cell(found: dict[str, Any], share: float) -> str:
    parts = [] if found["equal"] else [f"{found['max_abs_diff_lsb']} LSB"]
    decibels = found.get("float_sqnr_db")
    exact = "exact" if "float_outputs" in found else "not run"
    parts += [f"{share:.0%}", exact if decibels is None else f"{decibels:.0f} dB"]
    return ", ".join(parts)


def table(sources: Sequence[Path], wanted: str) -> Iterator[str]:
    """The lines of the table, and of what stays on the host. wanted: a part of a form's name."""
    yield f"| form | {' | '.join(source.stem for source in sources)} |"
    yield f"|---|{'---|' * len(sources)}"
    rest = []
    for name, form in FORMS.items():
        if wanted not in name:
            continue
        cells = []
        for source in sources:
            with tempfile.TemporaryDirectory() as folder:
                cell, stays = measure(source, form, Path(folder))
            cells.append(cell)
            rest += [f"- {name}, {source.stem}: {stays}"] if stays else []
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield from rest


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("networks", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--form", default="", help="Only forms whose names hold this.")
def main(networks: tuple[Path, ...], form: str) -> None:
    logging.disable(logging.WARNING)  # the tools report on themselves
    for line in table(networks, form):
        click.echo(line)


if __name__ == "__main__":
    main()
