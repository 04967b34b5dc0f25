"""``pimc asm`` and ``pimc fmt``: programs written or changed by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isa.codes import EXIT_VERIFICATION_FAILED
from isa.diagnostics import Diagnostic, Location, PimError
from pimc.commands.options import json_option, override_option, read_target
from pimc.console import show_json, write_text
from pimc.report import document, program_figures

if TYPE_CHECKING:
    from isa.program import Program
    from isa.source import Source
    from isa.target import Target

TEXT = click.argument("text", type=click.Path(path_type=Path, allow_dash=True))
STDIN = Path("-")


@click.command()
@TEXT
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default NAME.asm.")
@click.option(
    "--target", metavar="NAME|FILE.toml", help="The chip; default: the one that the text names."
)
@override_option
@json_option
def asm(
    text: Path, output: Path | None, target: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Check the program TEXT against a target and make a program folder of it.

    Arrays that do not stand in the text are taken from an `arrays.npz` beside it, so the text of
    a compiled program can be changed and assembled again.
    """
    from dataclasses import replace

    from isa import container, verify

    program, source = _parse(text, _read(text))
    chip = _chip(text, target, overrides, program.target)
    if target is not None or overrides or not program.target_sha256:
        program = replace(program, target=chip.name, target_sha256=chip.sha256)
    verify.check(program, chip, source)
    folder = output or Path(f"{'program' if text == STDIN else text.stem}.asm")
    container.save(folder, program, chip)
    if as_json:
        figures = {"program": str(folder), **program_figures(program, chip)}
        show_json(document("asm", figures, chip, [text]))
    else:
        click.echo(f"{folder}: {len(program.cores)} cores on {chip.name}")


@click.command()
@TEXT
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the text would change.")
@click.option("--drop-comments", is_flag=True, help="Go on although comments will be lost.")
def fmt(text: Path, check: bool, drop_comments: bool) -> None:
    """Write TEXT in its canonical form; `-` reads stdin and writes stdout.

    The canonical form has no comments, so a text that has some is refused.
    """
    from isa.printer import print_program

    before = _read(text)
    after = print_program(_parse(text, before)[0])
    comment = None if drop_comments or check else _first_comment(before)
    if comment is not None:
        line, column, written = comment
        at = Location(str(text), line, column, len(written.rstrip()) - column + 1, written)
        hint = "`--drop-comments` goes on without them"
        raise PimError(Diagnostic("U903", "the text has comments, which would be lost", at, hint))
    if check:
        if after != before:
            click.echo(f"{text} would change", err=True)
            sys.exit(EXIT_VERIFICATION_FAILED)
    elif text == STDIN:
        click.echo(after, nl=False)
    elif after != before:
        write_text(text, after)


def _chip(text: Path, name: str | None, overrides: tuple[str, ...], named: str) -> Target:
    """The target of the options, else the description beside the text, else the one it names."""
    from isa.folder import TARGET_FILE
    from isa.target import DEFAULT_TARGET, Target

    beside = text.with_name(TARGET_FILE)
    if name is None and not overrides and text != STDIN and beside.is_file():
        return Target.from_json(_read(beside), str(beside))
    return read_target(name or named or DEFAULT_TARGET, overrides)


def _first_comment(text: str) -> tuple[int, int, str] | None:
    """Line and column, from 1, of the first `;` outside of quotes, and the line it stands in."""
    for number, line in enumerate(text.splitlines(), 1):
        is_quoted = is_escaped = False
        for column, char in enumerate(line, 1):
            if char == ";" and not is_quoted:
                return number, column, line
            if char == '"' and not is_escaped:
                is_quoted = not is_quoted
            is_escaped = is_quoted and char == "\\" and not is_escaped
    return None


def _parse(path: Path, text: str) -> tuple[Program, Source]:
    """The program of a text, with the data file beside it if there is one."""
    from isa.assembly import parse_with_source
    from isa.diagnostics import Findings
    from isa.npz import read_npz
    from isa.printer import DATA_FILE

    arrays = None
    data = path.with_name(DATA_FILE)
    if path != STDIN and data.is_file():
        findings = Findings()
        arrays = read_npz(data, findings)
        findings.raise_if_any()
    return parse_with_source(text, arrays, str(path))


def _read(path: Path) -> str:
    try:
        if path != STDIN and path.exists() and not path.is_file():
            raise OSError(0, "it is no plain file")
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is no UTF-8 text"
    raise PimError(Diagnostic("C502", f"cannot read `{path}`: {reason}", Location(str(path))))
