"""References: writes ``docs/cli.md`` from the commands and ``docs/errors.md`` from the codes.

Run ``python -m pimc.reference`` in the repository after a change of either; a test holds that the
files are up to date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from isa.codes import FAMILIES, exit_code_of
from pimc.cli import main as pimc_group

NOTE: Final = "<!-- Written by `python -m pimc.reference`; change {}, not this file. -->"
CLI_HEAD: Final = """
# The command line

Results go to stdout; progress, warnings and errors go to stderr. With `--json` stdout is one JSON
document that names its `schema`, `pimc_version`, `command`, `target` (with `target_sha256`) and the
SHA-256 of its `inputs`. Progress is only drawn on a terminal; `NO_COLOR` turns colours off.
`PIMC_DEBUG=1` adds the traceback to an internal error.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | verification failed: an integer differs, or a proof does not hold |
| 2 | usage: an option or a name is wrong |
| 3 | input rejected: model, data, program or target description |
| 4 | the model does not fit the target |
| 70 | internal error: a bug in pimc |
| 130 | interrupted |
"""
ERRORS_HEAD: Final = """
# Errors

Every refusal carries a code; `pimc explain CODE` prints its entry. The letter says who speaks, and
the family decides the exit code. One message may carry many findings: all that is wrong is said at
once, and the gravest family decides.
"""


def cli_reference() -> str:
    """The text of ``docs/cli.md``."""
    lines = [NOTE.format("the commands"), *CLI_HEAD.splitlines()]
    for command, context in _commands(pimc_group, click.Context(pimc_group, info_name="pimc")):
        lines += _command(command, context)
    return "\n".join(lines) + "\n"


def errors_reference() -> str:
    """The text of ``docs/errors.md``."""
    lines = [NOTE.format("`isa/codes.py`"), *ERRORS_HEAD.splitlines()]
    for prefix, (what, exit_code, entries) in FAMILIES.items():
        lines += ["", f"## {prefix}xx: {what} (exit code {exit_code})"]
        for code, entry in sorted(entries.items()):
            own = exit_code_of(code)
            lines += ["", f"### {code}: {entry.title}", "", entry.explanation]
            lines += [] if own == exit_code else ["", f"Exit code {own}."]
    return "\n".join(lines) + "\n"


def _commands(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command that does something, with subcommands, in the order of the help page."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
        else:
            yield command, inner


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("", f"## `{context.command_path}`", "", f"    {context.command_path} {usage}", "")
    yield from inspect.cleandoc(command.help or "").splitlines()
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        yield from ("", "| option | what it does |", "| --- | --- |")
    for option in options:
        text = option.help or ""
        if option.show_default and option.default is not None:
            text += f" Default: `{option.default}`."
        yield f"| `{_cell(_form(option))}` | {_cell(text)} |"


def _form(option: click.Option) -> str:
    """How an option is written; click's own text of it differs from version to version."""
    names = ", ".join((*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or option.type.name.split()[0].upper()}"


def _cell(text: str) -> str:
    """One line for a table: a bar would end the cell."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def main(folder: Path = Path("docs")) -> None:
    """Write both documents into ``folder``."""
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


def documents() -> dict[str, str]:
    """Text by file name."""
    return {"cli.md": cli_reference(), "errors.md": errors_reference()}


if __name__ == "__main__":
    main()
