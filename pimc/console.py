"""Console: results to stdout, everything else to stderr, errors to exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from isa.codes import EXIT_INTERNAL, EXIT_REJECTED
from isa.diagnostics import Diagnostic, Location, PimError
from isa.drafts import drafted_file
from pimc import interrupts


class Commands(click.Group):
    """The command group: turns what commands raise into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PimError as error:
            click.echo(error.render(color=_has_color()), err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo(interrupts.MESSAGE, err=True)
            ctx.exit(interrupts.EXIT_CODE)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if interrupts.seen:  # somebody made another exception of it
                click.echo(interrupts.MESSAGE, err=True)
                ctx.exit(interrupts.EXIT_CODE)
            elif isinstance(error, OSError) and error.filename is not None:
                click.echo(_refused(error).render(color=_has_color()), err=True)
                ctx.exit(EXIT_REJECTED)
            _report_bug(error)
            ctx.exit(EXIT_INTERNAL)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Ctrl-C while the arguments are read ends as it does later."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:
            click.echo(interrupts.MESSAGE, err=True)
            raise click.exceptions.Exit(interrupts.EXIT_CODE) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are declared, which is the order in which they are used."""
        return list(self.commands)


def _refused(error: OSError) -> Diagnostic:
    """What the system says about a path: too long a name, a loop of links, no permission."""
    path = str(error.filename)
    message = f"`{path}` cannot be used: {error.strerror}"
    return Diagnostic("C502", message, Location(path), "check the path and its permissions")


def _report_bug(error: Exception) -> None:
    """An internal error without a traceback, unless PIMC_DEBUG asks for one."""
    what = f"{type(error).__name__}: {error}"
    hint = "please report it with the command and the input; PIMC_DEBUG=1 shows where it happened"
    finding = Diagnostic("I999", f"pimc failed: {what}", hint=hint)
    click.echo(finding.render(color=_has_color()), err=True)
    if os.environ.get("PIMC_DEBUG") == "1":
        traceback.print_exception(error)


def _has_color() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def show_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, default=str))


def show_warnings(warnings: Sequence[Diagnostic]) -> None:
    for warning in warnings:
        click.echo(warning.render(color=_has_color()), err=True)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table on stdout; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(headers))]

    def line(values: Sequence[str]) -> str:
        padded = zip(values, widths, right, strict=True)
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in padded).rstrip()

    click.echo(line(list(headers)))
    for row in cells:
        click.echo(line(row))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@contextmanager
def phases(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr that names the current phase; nothing off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda phase: None
        return
    from rich.console import Console  # late: drawing is not for every command

    with Console(stderr=True).status("starting") as status:
        yield lambda phase: status.update(phase)


@contextmanager
def counting(label: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; nothing off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def write_text(file: Path, text: str) -> None:
    """Replace a file, all of it or nothing. Raises PimError C509."""
    with drafted_file(file) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")
