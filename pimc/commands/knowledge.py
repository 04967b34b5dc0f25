"""What pimc knows: targets, operators, error codes, and this machine."""

from __future__ import annotations

import platform

import click

from isa.diagnostics import Diagnostic, PimError
from pimc.commands.options import json_option, read_target
from pimc.console import show_json, show_table
from pimc.report import document
from pimc.version import VERSION

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "lark", "pydantic")


@click.group()
def targets() -> None:
    """The chips that programs are compiled for."""


@targets.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The shipped targets, the default first."""
    from isa.target import list_targets, load_target

    chips = [load_target(name) for name in list_targets()]
    rows = [
        (
            chip.name,
            chip.cores,
            chip.crossbars_per_core,
            f"{chip.crossbar.rows}x{chip.crossbar.columns}x{chip.crossbar.cell_bits}",
            f"{chip.ou.rows}x{chip.ou.columns}",
            chip.adc.bits,
            chip.description,
        )
        for chip in chips
    ]
    headers = ("name", "cores", "crossbars/core", "crossbar", "OU", "ADC bits", "description")
    if as_json:
        keys = [header.replace(" ", "_").replace("/", "_per_") for header in headers]
        listed = [dict(zip(keys, row, strict=True)) for row in rows]
        show_json(document("targets", {"targets": listed}))
    else:
        show_table(headers, rows)


@targets.command("show")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@json_option
def show_command(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """All numbers of a target, with units and sources."""
    chip = read_target(name, overrides)
    click.echo(chip.to_json() if as_json else chip.to_toml(), nl=False)


@targets.command("schema")
def schema_command() -> None:
    """The JSON Schema of target files, for editors."""
    from isa.target import target_schema

    show_json(target_schema())


@click.command()
@json_option
def ops(as_json: bool) -> None:
    """The ONNX operators that compile, and where they run."""
    from pimc.frontend.supported import supported_ops

    rows = [(name, *where) for name, where in supported_ops().items()]
    if as_json:
        listed = [dict(zip(("op", "runs", "limits"), row, strict=True)) for row in rows]
        show_json(document("ops", {"ops": listed}))
    else:
        show_table(("op", "runs as", "limits"), rows)


@click.command()
@click.argument("code")
def explain(code: str) -> None:
    """What an error code means and what to do."""
    from isa.codes import all_codes, exit_code_of

    known = all_codes()
    if code.upper() not in known:
        from difflib import get_close_matches

        near = get_close_matches(code.upper(), known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else "codes look like F204 or V412"
        raise PimError(Diagnostic("U902", f"there is no error code `{code}`", hint=hint))
    found = known[code.upper()]
    click.echo(f"{code.upper()}: {found.title}\n")
    click.echo(click.wrap_text(found.explanation, 100))
    click.echo(f"\nA command that ends with it has exit code {exit_code_of(code.upper())}.")


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Versions, processor features, and which crossbar kernel runs."""
    from importlib.metadata import PackageNotFoundError, version

    from runtime.engine import in_c
    from runtime.kernel import describe_kernel

    facts: dict[str, object] = {
        "pimc": VERSION,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
    kernel = describe_kernel()
    facts["kernel"] = kernel.pop("kernel")
    facts |= {f"kernel_{key}": value for key, value in kernel.items()}
    facts["instructions_in_c"] = " ".join(in_c()) if facts["kernel"] == "c" else "none"
    if as_json:
        show_json(document("doctor", facts))
    else:
        show_table(
            ("what", "found"), [(key.replace("_", " "), str(value)) for key, value in facts.items()]
        )
