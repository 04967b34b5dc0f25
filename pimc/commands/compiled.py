"""What `pimc compile` and `pimc verify` print for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from pimc.console import show_table

SIZES: Final = ("cores", "crossbars", "OU blocks", "stored columns", "instructions")
_CELLS: Final = {
    True: "the crossbars hold the same cells for every shape",
    False: "another shape needs other cells to be written",
}


def show_compiled(report: dict[str, Any]) -> None:
    click.echo(f"{report['program']}: {report['layers']} weight layers on {report['target']}")
    show_table((*SIZES, "seconds"), [(*_sizes(report), report["compile_s"])])
    _show_bound(report)
    if "compression" in report:
        _show_compression(report["compression"])
    from pimc.placement import placement_lines

    for line in placement_lines(report["placement"]):
        click.echo(line)
    click.echo("reconstructs: the programmed blocks give back every integer weight")
    if "verify" in report:
        show_verification(report["verify"])


def show_shapes(report: dict[str, Any]) -> None:
    """The lines of several programs, one for each input shape."""
    from pimc.placement import placement_lines

    programs = report["shapes"]
    names = [_shape_text(each["input_shape"]) for each in programs]
    layers = max(each["layers"] for each in programs)
    click.echo(
        f"{programs[0]['program']}: {layers} weight layers on {report['target']}, programs for "
        f"{len(programs)} input shapes, {report['compile_s']} seconds"
    )
    rows = [(name, *_sizes(each)) for name, each in zip(names, programs, strict=True)]
    show_table(("input shape", *SIZES), rows)
    _show_bound(programs[0])
    if "compression" in programs[0]:
        _show_compression(programs[0]["compression"])
    for name, each in zip(names, programs, strict=True):
        for line in placement_lines(each["placement"]):
            click.echo(f"{name}  {line}")
    shared = report["shared"]
    click.echo(
        f"shared: {shared['array_bytes']:,} bytes of arrays stored once, {shared['own_bytes']:,} "
        f"of single programs; {_CELLS[shared['same_cells']]}"
    )
    click.echo("reconstructs: the programmed blocks of each give back every integer weight")
    for name, each in zip(names, programs, strict=True):
        if any("verify" in other for other in programs):
            click.echo(f"{name}:" if "verify" in each else f"{name}: not verified, no such samples")
        if "verify" in each:
            show_verification(each["verify"])


def _shape_text(shape: Mapping[str, Sequence[int]]) -> str:
    return ",".join(f"{name}={','.join(map(str, sizes))}" for name, sizes in shape.items())


def _sizes(report: dict[str, Any]) -> tuple[Any, ...]:
    """The columns ``SIZES`` of one program."""
    cores = f"{report['cores']} of {report['cores_available']}"
    names = ("crossbars", "ou_blocks", "stored_columns", "instructions")
    return (cores, *(report[name] for name in names))


def _show_bound(report: dict[str, Any]) -> None:
    bound = report.get("bound", {}).items()
    if bound:
        texts = (f"`{n}` [{', '.join(map(str, found['shape']))}]" for n, found in bound)
        click.echo(f"bound: {', '.join(texts)}; no inputs of the program any more")


def _show_compression(done: dict[str, Any]) -> None:
    errors = [layer["error_after"] or 0.0 for layer in done["layers"]]
    click.echo(
        f"LOSSY: {' '.join(done['specs'])} left {done['kept']:,} of {done['weights']:,} weights, "
        f"{done['stored']:,} stored; output error of a layer up to {max(errors):.1%}"
    )


def _show_floats(found: dict[str, Any]) -> None:
    """How near the tensors are that nothing quantized: to the reference, and to the model."""
    from pimc.check import FLOAT_TOLERANCE  # loads onnxruntime

    floats = found.get("float_layers", [])
    if not floats:
        return
    largest = max(layer["max_relative_diff"] for layer in floats)
    click.echo(
        f"floats: largest difference {largest:.1e} of the largest magnitude, {FLOAT_TOLERANCE:.0e} "
        f"allowed, over {len(floats)} tensors"
    )
    for layer in floats:
        if layer["max_relative_diff"] > FLOAT_TOLERANCE:
            click.echo(f"  {layer['max_relative_diff']:.1e}  {layer['name']}")
    for output in found.get("float_outputs", []):
        if output["max_relative_diff"] is not None:
            click.echo(
                f"`{output['name']}` against the float model: largest difference "
                f"{output['max_relative_diff']:.1e} of the largest magnitude"
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
    _show_floats(found)
    if "float_top1_agreement" in found:
        noise = found["float_sqnr_db"]
        quality = "no difference" if noise is None else f"SQNR {noise:.1f} dB"
        agreement = found["float_top1_agreement"]
        top1 = "" if agreement is None else f"top-1 agreement {agreement:.1%}, "
        click.echo(f"against the float model: {top1}{quality}")
    if "float_error" in found:
        what = "note on" if "float_top1_agreement" in found else "not compared with"
        click.echo(f"{what} the float model: {found['float_error']}")
    if "accuracy" in found:
        known = (("float", "float_accuracy"), ("reference", "reference_accuracy"))
        others = ", ".join(f"{name} {found[key]:.1%}" for name, key in known if key in found)
        click.echo(f"accuracy {found['accuracy']:.1%} ({others})")
