"""``pimc compress``: lossy transforms of a float model, with what they cost in accuracy."""

from __future__ import annotations

from pathlib import Path

import click

from isa.diagnostics import Diagnostic, Location, PimError
from isa.drafts import drafted_file
from pimc.commands.options import (
    bind_option,
    bound_files,
    check_place,
    json_option,
    quiet_option,
    read_bindings,
)
from pimc.console import phases, show_json
from pimc.report import document


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help=".onnx file.")
@click.option(
    "--calib", required=True, type=click.Path(path_type=Path), help="Samples to refit on, npz."
)
@click.option("--data", type=click.Path(path_type=Path), help="Labelled samples for accuracy, npz.")
@click.option("--no-compensation", is_flag=True, help="Leave the kept weights as they are.")
@bind_option
@json_option
@quiet_option
def compress(
    model: Path,
    specs: tuple[str, ...],
    output: Path,
    calib: Path,
    data: Path | None,
    no_compensation: bool,
    bind: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Prune or tie the weights of MODEL, refit what is left, and write a new ONNX file.

    SPEC is `pattern:keep=4,patterns=8`, `identical:t=0.6`, `similar:t=0.375,joint=yes` or
    `channel:keep=0.65`. Lossy: the report gives each layer's error and the accuracy before,
    without and with the refit. Axes that MODEL leaves open are as long as those of the samples.
    """
    import pimc.compress as compression
    from pimc.data import LABELS, read_data
    from pimc.frontend.bound import with_bound
    from pimc.frontend.load import load_model

    check_place(output, False, model, calib, data)
    wanted = [compression.parse_compression(spec) for spec in specs]
    samples, bound = read_data(calib), read_bindings(bind)
    labelled = None
    if data is not None:
        test = read_data(data)
        if LABELS not in test:
            hint = f"add an array `{LABELS}` with one class per sample"
            raise PimError(Diagnostic("U951", f"`{data}` has no labels", Location(str(data)), hint))
        labels = test.pop(LABELS)
        labelled = compression.Labelled(test, labels)
    with phases(quiet) as progress:
        progress("compress")
        whole = with_bound(load_model(model), bound)
        done = compression.compress(
            whole, samples, wanted, labelled, compensate=not no_compensation
        )
    with drafted_file(output) as draft:
        draft.write_bytes(done.model.SerializeToString())
    if as_json:
        figures = {"output": str(output), "compression": done.report.as_json()}
        files = (model, calib, data, *map(Path, bound_files(bind)))
        show_json(document("compress", figures, None, files))
    else:
        click.echo(done.report.as_text())
