"""The text of the program by ONNX node, cut where it would make the page too large."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from isa.printer import core_lines, program_lines
from isa.program import Core, Program
from pimc.report.sheet import Sheet

MAX_CHARACTERS: Final = 600_000  # of all sections together
_LEAST: Final = 3_000  # of one section


class Line(NamedTuple):
    """A line of the text in the parts that are shown differently; together it is the line."""

    indent: str
    word: str
    rest: str
    comment: str


@dataclass(frozen=True)
class Section:
    """The cores of one layer. takes, gives: ONNX tensors on its channels. cut: lines left out."""

    name: str
    number: int | None
    cores: str
    takes: list[str]
    gives: list[str]
    lines: list[Line]
    cut: int
    command: str


def sections(sheet: Sheet) -> list[Section]:
    """The declarations, then every layer in the order in which they start."""
    names = sheet.layer_names
    room = max(_LEAST, MAX_CHARACTERS // (len(names) + 1))
    command = f"pimc inspect {shlex.quote(sheet.name)} --section code"
    kept, cut = _cut(_head_lines(sheet.program), room)
    found = [Section("declarations", None, "", [], [], kept, cut, command)]
    for number, name in enumerate(names):
        cores = _cores_of(sheet, name)
        kept, cut = _cut((line for core in cores for line in core_lines(core)), room)
        indices = {core.index for core in cores}
        takes, gives = _tensors(sheet.program, indices)
        which = _runs(sorted(indices))
        only = f"{command} --layer {shlex.quote(name)}"
        found.append(Section(name, number, which, takes, gives, kept, cut, only))
    return found


def _head_lines(program: Program) -> Iterator[str]:
    """The lines before the first core."""
    for line in program_lines(program):
        if line.startswith(".core"):
            return
        yield line


def _cores_of(sheet: Sheet, layer: str) -> list[Core]:
    """Cores that count for a layer, or hold a matrix of it."""
    return [
        table.view.core
        for table in sheet.timeline.tables
        if table.view.layer == layer or any(m.layer == layer for m in table.view.core.matrices)
    ]


def _tensors(program: Program, cores: set[int]) -> tuple[list[str], list[str]]:
    """ONNX names of the tensors that cores get from others and give to others."""
    names = {tensor.name: tensor.onnx_name for tensor in program.tensors}
    takes, gives = dict[str, None](), dict[str, None]()
    for channel in program.channels:
        if channel.carries is not None and (channel.source in cores) != (channel.target in cores):
            side = gives if channel.source in cores else takes
            side[names[channel.carries[0]]] = None
    return list(takes), list(gives)


def _cut(lines: Iterator[str], room: int) -> tuple[list[Line], int]:
    """The first lines that fit into ``room`` characters, and how many are left out."""
    kept: list[Line] = []
    cut = 0
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            cut += 1
        else:
            kept.append(_parts(line))
    return kept, cut


def _parts(line: str) -> Line:
    bare = line.lstrip(" ")
    code, mark, comment = bare.partition("  ; ")  # printed before quotes could hold one
    word, space, rest = code.partition(" ")
    return Line(line[: len(line) - len(bare)], word, space + rest, mark + comment)


def _runs(numbers: list[int]) -> str:
    """``core 3`` or ``cores 8-15, 20``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"core{'s' if len(numbers) != 1 else ''} {text}"
