"""Printer: a program as text, short and aligned; ``isa.reader`` reads it back to an equal one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from isa.diagnostics import Diagnostic, PimError
from isa.instruction import Instruction, OperandField, operand_fields
from isa.matrix_text import print_blocks
from isa.operands import Region
from isa.program import (
    Buffer,
    Channel,
    Core,
    Loop,
    Matrix,
    Partition,
    Program,
    Statement,
    Table,
    Tensor,
)
from isa.syntax_tree import RESERVED

DATA_FILE: Final = "arrays.npz"
MNEMONIC_WIDTH: Final = 7  # most mnemonics are no longer
_LINE: Final = 100
_VALUES_PER_LINE: Final = 16
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def print_program(program: Program) -> str:
    """The text of a program. Raises PimError E312 for a loop variable that is no identifier."""
    return "\n".join(program_lines(program)) + "\n"


def program_lines(program: Program) -> Iterator[str]:
    """The lines of the text of a program, without line ends."""
    yield ".pim 1"
    if program.target or program.target_sha256:
        sha256 = program.target_sha256
        digest = f" sha256={sha256 if _HASH.fullmatch(sha256) else quoted(sha256)}"
        yield f".target {name_text(program.target)}{digest if sha256 else ''}"
    if needs_data_file(program):
        yield f".data {DATA_FILE}"
    for block in (
        _aligned(_tensor_cells(tensor) for tensor in program.tensors),
        _table_lines(program.tables),
        _aligned(_channel_cells(channel) for channel in program.channels),
        (_partition_line(partition) for partition in program.partitions),
    ):
        lines = list(block)
        if lines:
            yield ""
        yield from lines
    for core in program.cores:
        yield ""
        yield from core_lines(core)


def needs_data_file(program: Program) -> bool:
    """Whether some table or matrix does not stand in the text."""
    return not all(t.inline for t in program.tables) or not all(
        m.inline for m in program.matrices()
    )


def core_lines(core: Core) -> Iterator[str]:
    """The lines of one core: matrices, buffers, stream."""
    yield f".core {core.index}" + (f" {quoted(core.layer)}" if core.layer else "")
    for matrix in core.matrices:
        yield from _matrix_lines(matrix, core)
    yield from ("  " + line for line in _aligned(_buffer_cells(b) for b in core.buffers))
    yield from body_lines(core.body, 1)


def body_lines(body: Sequence[Statement], depth: int) -> Iterator[str]:
    """The lines of a stream, indented by two spaces a level."""
    indent = "  " * depth
    for statement in body:
        if isinstance(statement, Loop):
            step = f" step {statement.step}" if statement.step != 1 else ""
            variable = _variable(statement.variable)
            yield f"{indent}loop {variable} = {statement.start}..{statement.stop}{step} {{"
            yield from body_lines(statement.body, depth + 1)
            yield f"{indent}}}"
        else:
            yield indent + instruction_text(statement)


def instruction_text(instruction: Instruction, width: int = MNEMONIC_WIDTH) -> str:
    """One instruction as it stands in the text; ``width``: of the mnemonic's column."""
    cls: Any = type(instruction)  # mypy finds no __hash__ in a class whose instances have one
    operands = []
    for field in _fields(cls):
        value = getattr(instruction, field.name)
        if field.positional:
            operands.append(operand_text(field.kind, value))
        elif value != field.default:
            operands.append(f"{field.name}={operand_text(field.kind, value)}")
    return f"{instruction.mnemonic:<{width}} {', '.join(operands)}".rstrip()


@cache
def _fields(cls: type[Any]) -> tuple[OperandField, ...]:
    return operand_fields(cls)


def operand_text(kind: str, value: object) -> str:
    """One operand; kind as in ``isa.instruction.OperandField``."""
    if isinstance(value, Region):
        return region_text(value)
    if kind == "float":
        return float_text(value)  # type: ignore[arg-type]
    if kind == "pair":
        return list_text(value)  # type: ignore[arg-type]
    return name_text(value) if isinstance(value, str) else str(value)


def region_text(region: Region) -> str:
    """A region; as ``str(region)``, with the name in quotes where that is needed."""
    axes = (region.rows, region.columns, region.channels)
    for axis in axes:
        for variable, _ in axis.start.terms if axis else ():
            _variable(variable)
    return name_text(region.name) + str(Region("", *axes))


def _variable(name: str) -> str:
    if _NAME.fullmatch(name) and name not in RESERVED and not _HASH.fullmatch(name):
        return name
    raise PimError(
        Diagnostic(
            "E312",
            f"loop variable {quoted(name)} cannot be written",
            hint="a loop variable is letters, digits and `_`, and no word of the text form",
        )
    )


def name_text(name: str) -> str:
    """A name: bare where it is an identifier, in quotes otherwise."""
    bare = _NAME.fullmatch(name) and name not in RESERVED and not _HASH.fullmatch(name)
    return name if bare else quoted(name)


def quoted(text: str) -> str:
    """A text in double quotes with JSON's escapes; characters that can be seen stay."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char.isprintable() and char not in '"\\':
        return char
    return json.dumps(char)[1:-1]


def float_text(value: float) -> str:
    """The shortest text of a single-precision number that reads back to the same one."""
    with np.errstate(over="ignore"):
        return str(np.float32(value))


def list_text(values: Iterable[int]) -> str:
    """Numbers in brackets, parted by spaces."""
    return f"[{' '.join(str(int(value)) for value in values)}]"


def shape_text(dtype: str, shape: Sequence[int], ring: bool = False) -> str:
    """A type and a shape: ``s8[24, 24, 6]``, ``s8[ring 5, 28, 1]``, ``f32[]``."""
    return f"{dtype}[{'ring ' if ring else ''}{', '.join(str(size) for size in shape)}]"


def _aligned(lines: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Lines of (directive, name, type, rest) with the first three in columns."""
    table = list(lines)
    widths = [max((len(line[i]) for line in table), default=0) for i in range(3)]
    for line in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False))
        yield " ".join([*cells, line[3]]).rstrip()


def _tensor_cells(tensor: Tensor) -> tuple[str, str, str, str]:
    role = ".tensor" if tensor.role == "inner" else f".{tensor.role}"
    rest = [f"of={quoted(tensor.onnx_name)}", f"shape={list_text(tensor.onnx_shape)}"]
    rest.append(f"order={list_text(tensor.order)}")
    if tensor.scale is not None:
        rest.append(f"scale={float_text(tensor.scale)}")
    if tensor.zero:
        rest.append(f"zero={tensor.zero}")
    if not tensor.batched:
        rest.append("batched=no")
    return role, name_text(tensor.name), shape_text(tensor.dtype, tensor.shape), " ".join(rest)


def _channel_cells(channel: Channel) -> tuple[str, str, str, str]:
    place = _place(channel.address)
    rest = [f"depth={channel.depth}", place]
    if channel.carries is not None:
        tensor, first, stop = channel.carries
        rest.append(f"carries={name_text(tensor)}[{first}..{stop}]")
    if channel.rows is not None:
        rest.append(f"rows=[{' '.join(map(str, channel.rows))}]")
    route = f"core {channel.source} -> {channel.target}"
    kind = f"{route} {shape_text(channel.dtype, channel.shape)}"
    return ".channel", name_text(channel.name), kind, " ".join(rest)


def _partition_line(partition: Partition) -> str:
    sides = (" ".join(map(name_text, names)) for names in (partition.inputs, partition.outputs))
    sha256 = partition.sha256
    digest = sha256 if _HASH.fullmatch(sha256) else quoted(sha256)
    return f".partition {name_text(partition.name)} {' -> '.join(sides)} sha256={digest}"


def _buffer_cells(buffer: Buffer) -> tuple[str, str, str, str]:
    fill = "" if buffer.fill is None else f" fill={buffer.fill}"
    kind = shape_text(buffer.dtype, buffer.shape, buffer.ring)
    return ".buffer", name_text(buffer.name), kind, f"{_place(buffer.address)}{fill}"


def _place(address: int | None) -> str:
    return "@global" if address is None else f"@0x{address:04x}"


def _table_lines(tables: Sequence[Table]) -> Iterator[str]:
    for head, table in zip(_aligned(_table_cells(t) for t in tables), tables, strict=True):
        if not table.inline:
            yield head
            continue
        values = _value_texts(table)
        line = f"{head} = [{' '.join(values)}]"
        if len(line) <= _LINE or len(values) <= 1:
            yield line
            continue
        yield f"{head} ="
        for first in range(0, len(values), _VALUES_PER_LINE):
            yield f"  [{' '.join(values[first : first + _VALUES_PER_LINE])}]"


def _table_cells(table: Table) -> tuple[str, str, str, str]:
    return ".table", name_text(table.name), shape_text(table.dtype, table.values.shape), ""


def _value_texts(table: Table) -> list[str]:
    values = table.values.ravel()
    if table.dtype == "f32":
        return [float_text(float(value)) for value in values]
    return [str(value) for value in values.tolist()]


def _matrix_lines(matrix: Matrix, core: Core) -> Iterator[str]:
    blocks = matrix.blocks
    head = f"  .matrix {name_text(matrix.name)}[{blocks.inputs}, {blocks.outputs}]"
    if matrix.layer != core.layer:
        head += f" layer={quoted(matrix.layer)}"
    head += f" inputs={matrix.inputs[0]}..{matrix.inputs[1]}"
    head += f" outputs={matrix.outputs[0]}..{matrix.outputs[1]}"
    if matrix.of:
        yield f"{head} of={name_text(matrix.of)}"
    elif matrix.inline:
        yield from print_blocks(head, blocks)
    else:
        yield f"{head}  ; {_counted(blocks.groups, 'row group')}, " + _counted(
            blocks.columns, "stored column"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
