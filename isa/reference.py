"""The ISA reference: writes ``docs/isa.md`` from the classes, so that it cannot say otherwise.

Run ``python -m isa.reference`` in the repository after a change of the catalog; a test holds that
the file is up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from isa.catalog import CATALOG, Load
from isa.codes import FAMILIES
from isa.directive_fields import USAGE
from isa.instruction import Instruction, OperandField, operand_fields
from isa.printer import operand_text
from isa.reference_text import EXAMPLE, INTRODUCTION, MATRICES

OUTPUT: Final = Path("docs/isa.md")
UNITS: Final = {
    "matrix": "The crossbars of the core and their converters.",
    "vector": "Element-wise work on one row at a time.",
    "memory": "Moves within a core, and between a core and global memory.",
    "network": "Messages between cores, first in, first out.",
}
KINDS: Final = {
    "region": "region",
    "matrix": "name of a matrix of the core",
    "channel": "name of a channel",
    "table": "name of a table",
    "partition": "name of a partition",
    "int": "whole number",
    "float": "single-precision number",
    "pair": "pair `[rows columns]`",
}
FAMILIES_SHOWN: Final = ("E3", "V4", "C5")


def reference() -> str:
    """The text of ``docs/isa.md``."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "<!-- Written by `python -m isa.reference`; change the classes, not this file. -->"
    yield from INTRODUCTION.strip().splitlines()
    yield from ("", "## A complete program", "", "```", *EXAMPLE.strip().splitlines(), "```")
    yield from ("", "## Directives", "")
    yield from ("| directive | form |", "| --- | --- |")
    for name, usage in USAGE.items():
        yield f"| `{name}` | `{usage}` |"
    yield from ("", *MATRICES.strip().splitlines())
    yield from ("", "## Instructions")
    yield from _module_notes()
    for unit, what in UNITS.items():
        yield from ("", f"### Unit: {unit}", "", what)
        for cls in CATALOG.values():
            if cls.unit == unit:
                yield from _instruction(cls)
    yield from ("", "## The grammar of a line", "", "```lark")
    yield from (Path(__file__).parent / "pim.lark").read_text(encoding="utf-8").splitlines()
    yield from ("```", "", "## What can be wrong", "")
    yield from ("`pimc explain CODE` says more about each.", "")
    yield from ("| code | what is wrong |", "| --- | --- |")
    for family in FAMILIES_SHOWN:
        for code, entry in sorted(FAMILIES[family][2].items()):
            yield f"| {code} | {entry.title} |"


def _module_notes() -> Iterator[str]:
    """What the catalog says of all instructions together."""
    notes = inspect.getdoc(inspect.getmodule(Load)) or ""
    yield from ("", *_markdown(notes.partition("\n\n")[2]))


def _instruction(cls: type[Instruction]) -> Iterator[str]:
    fields = operand_fields(cls)
    yield from ("", f"#### `{cls.mnemonic}`", "", f"    {usage(cls)}", "")
    yield from _markdown(inspect.getdoc(cls) or "")
    yield from ("", "| operand | kind | access | default |", "| --- | --- | --- | --- |")
    for field in fields:
        access = {(True, True): "read, written", (True, False): "read", (False, True): "written"}
        shown = access.get((field.name in cls.reads, field.name in cls.writes), "")
        yield f"| {field.name} | {KINDS[field.kind]} | {shown} | {_default(field)} |"


def usage(cls: type[Instruction]) -> str:
    """How an instruction is written: operands in order, those with a default in brackets."""
    fields = operand_fields(cls)
    given = ", ".join(field.name for field in fields if field.positional)
    named = "".join(f" [, {f.name}={_default_text(f)}]" for f in fields if not f.positional)
    return f"{cls.mnemonic} {given}{named}"


def _default(field: OperandField) -> str:
    return "" if field.positional else f"`{_default_text(field)}`"


def _default_text(field: OperandField) -> str:
    return operand_text(field.kind, field.default)


def _markdown(text: str) -> list[str]:
    """A docstring as Markdown: double back quotes become single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL).splitlines()


def main() -> None:
    """Write the reference to the file named on the command line, or to ``docs/isa.md``."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
