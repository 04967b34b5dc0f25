"""``pimc asm`` and ``pimc fmt``: programs written by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isa.diagnostics import Diagnostic, Location, PimError
from pimc.commands.options import read_target, target_options

if TYPE_CHECKING:
    from isa.program import Program
    from isa.source import Source

TEXT = click.argument("text", type=click.Path(path_type=Path, allow_dash=True))


@click.command()
@TEXT
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default NAME.pim.")
@target_options
def asm(text: Path, output: Path | None, target: str, overrides: tuple[str, ...]) -> None:
    """Check TEXT (inline tables only) against a target and make a program folder of it."""
    from dataclasses import replace

    from isa import container, verify

    program, source = _parse(text)
    chip = read_target(target, overrides)
    verify.check(replace(program, target=chip.name, target_sha256=chip.sha256), chip, source)
    folder = output or Path(f"{text.stem}.asm.pim")
    program = replace(program, target=chip.name, target_sha256=chip.sha256)
    container.save(folder, program, chip)
    click.echo(f"{folder}: {len(program.cores)} cores on {chip.name}")


@click.command()
@TEXT
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the text would change.")
def fmt(text: Path, check: bool) -> None:
    """Write TEXT in its canonical form; `-` reads stdin and writes stdout."""
    from isa.printer import print_program

    before = _read(text)
    after = print_program(_parse(text, before)[0])
    if check:
        if after != before:
            click.echo(f"{text} would change", err=True)
            sys.exit(1)
    elif str(text) == "-":
        click.echo(after, nl=False)
    elif after != before:
        draft = text.with_name(f".{text.name}.draft")
        draft.write_text(after)
        draft.replace(text)


def _parse(path: Path, text: str | None = None) -> tuple[Program, Source]:
    from isa.assembly import parse_with_source

    return parse_with_source(_read(path) if text is None else text, None, str(path))


def _read(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        at = Location(str(path))
        raise PimError(Diagnostic("C501", f"cannot read `{path}`: {reason}", at)) from error
