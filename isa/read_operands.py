"""Reader of instructions: the typed fields of a class decide what its operands may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from isa.catalog import CATALOG
from isa.instruction import Instruction, OperandField, operand_fields
from isa.operands import Region, Span
from isa.syntax_tree import (
    Attribute,
    Axis,
    Box,
    Call,
    Items,
    Node,
    Number,
    Range,
    SyntaxFault,
    whole_numbers,
)
from isa.validate import did_you_mean

_EXPECTED: Final = {
    "region": "a region like `name[row, columns, channels]`",
    "matrix": "the name of a matrix",
    "channel": "the name of a channel",
    "table": "the name of a table",
    "partition": "the name of a partition",
    "int": "a whole number",
    "float": "a number",
    "pair": "a pair like `[3 3]`",
}
_AXES: Final = ("row", "column", "channel")


@dataclass(frozen=True)
class Signature:
    """The operands of an instruction class, by position and by name."""

    cls: type[Instruction]
    positional: tuple[OperandField, ...]
    named: dict[str, OperandField]


@cache
def signature(mnemonic: str) -> Signature | None:
    """The signature of a mnemonic, None for an unknown one."""
    cls = CATALOG.get(mnemonic)
    if cls is None:
        return None
    fields = operand_fields(cls)
    positional = tuple(field for field in fields if field.positional)
    return Signature(cls, positional, {f.name: f for f in fields if not f.positional})


def read_call(call: Call, faults: list[SyntaxFault]) -> Instruction | None:
    """The instruction of a line, or None after noting in ``faults`` all that is wrong."""
    known = signature(call.mnemonic)
    if known is None:
        hint = did_you_mean(call.mnemonic, list(CATALOG)) or f"known: {', '.join(CATALOG)}"
        message, end = f"unknown instruction `{call.mnemonic}`", call.column + len(call.mnemonic)
        faults.append(SyntaxFault("E302", message, call.column, end, hint))
        return None
    before = len(faults)
    values: dict[str, Any] = {}
    given = [operand for operand in call.operands if not isinstance(operand, Attribute)]
    _check_count(call, known, given, faults)
    for field, node in zip(known.positional, given, strict=False):
        _note(faults, values, field, node)
    for operand in call.operands:
        if isinstance(operand, Attribute):
            _read_named(call, known, operand, values, faults)
    return known.cls(**values) if len(faults) == before else None


def _check_count(
    call: Call, known: Signature, given: list[Node], faults: list[SyntaxFault]
) -> None:
    if len(given) == len(known.positional):
        return
    wanted = ", ".join(field.name for field in known.positional)
    message = f"`{call.mnemonic}` has {len(known.positional)} operands, found {len(given)}"
    extra = given[len(known.positional) :]
    place = (extra[0].column, extra[-1].end) if extra else (call.column, call.end)
    faults.append(SyntaxFault("E304", message, *place, f"write `{call.mnemonic} {wanted}`"))


def _read_named(
    call: Call, known: Signature, operand: Attribute, values: dict[str, Any],
    faults: list[SyntaxFault],
) -> None:  # fmt: skip
    key_end = operand.column + len(operand.key)
    field = known.named.get(operand.key)
    if field is None:
        if any(f.name == operand.key for f in known.positional):
            message = f"`{operand.key}` is given by its position, without its name"
            hint = None
        else:
            message = f"`{call.mnemonic}` has no operand `{operand.key}`"
            names = ", ".join(known.named)
            hint = did_you_mean(operand.key, list(known.named)) or (
                f"it has {names}" if names else "it has none by name"
            )
        faults.append(SyntaxFault("E305", message, operand.column, key_end, hint))
    elif operand.key in values:
        message = f"`{operand.key}` is given twice"
        faults.append(SyntaxFault("E305", message, operand.column, key_end))
    else:
        _note(faults, values, field, operand.value)


def _note(
    faults: list[SyntaxFault], values: dict[str, Any], field: OperandField, node: Node
) -> None:
    try:
        values[field.name] = read_operand(field, node)
    except SyntaxFault as fault:
        faults.append(fault)


def read_operand(field: OperandField, node: Node) -> Any:
    """The value of one operand. Raises SyntaxFault E306 or E307 when it is of the wrong kind."""
    if field.kind == "region" and isinstance(node, Box):
        return read_region(node)
    if (
        field.kind in ("matrix", "channel", "table", "partition")
        and isinstance(node, Box)
        and node.is_bare
    ):
        return node.name.text
    if field.kind == "int" and isinstance(node, Number) and isinstance(node.value, int):
        return node.value
    if field.kind == "float" and isinstance(node, Number):
        return single(node.value)
    if field.kind == "pair" and isinstance(node, Items):
        numbers = whole_numbers(node)
        if len(numbers) == 2:
            return (numbers[0], numbers[1])
    message = f"`{field.name}`: expected {_EXPECTED[field.kind]}, found {describe(node)}"
    raise SyntaxFault("E306", message, node.column, node.end)


def single(value: float) -> float:
    """The single-precision number next to ``value``; all real operands are such numbers."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def describe(node: Node) -> str:
    """What a piece of a line is, in words."""
    if isinstance(node, Box):
        return f"the region of `{node.name.text}`" if node.axes else f"the name `{node.name.text}`"
    if isinstance(node, Number):
        return f"the number `{node.value}`"
    if isinstance(node, Items):
        return f"a list of {len(node.items)}"
    if isinstance(node, Range):
        return f"the range `{node.start}..{node.stop}`"
    return "something else"


def read_region(box: Box) -> Region:
    """A Region of a box. Raises SyntaxFault E307 for a wrong axis."""
    if not box.axes and not box.is_bare:
        hint = f"write `{box.name.text}` for all of it"
        raise SyntaxFault("E307", "a region without axes", box.column, box.end, hint)
    if len(box.axes) > 3:
        message = f"{len(box.axes)} axes; a region has rows, columns and channels"
        raise SyntaxFault("E307", message, box.axes[3].column, box.axes[-1].end)
    spans = [read_span(axis, name) for axis, name in zip(box.axes, _AXES, strict=False)]
    return Region(box.name.text, *spans)


def read_span(axis: Axis, what: str) -> Span | None:
    """A Span of an axis, None for ``*``. Raises SyntaxFault E307."""
    if axis.ring:
        raise SyntaxFault("E307", "`ring` stands in `.buffer` only", axis.column, axis.end)
    if axis.start is None or axis.stop is None:
        return None if axis.start is None else Span(axis.start)
    if axis.start.terms != axis.stop.terms:
        message = f"`{axis.start}..{axis.stop}` has no constant number of {what}s"
        hint = f"write both ends with the same variables, as in `{axis.start}..{axis.start + 3}`"
        raise SyntaxFault("E307", message, axis.column, axis.end, hint)
    count = axis.stop.constant - axis.start.constant
    if count < 1:
        message = f"`{axis.start}..{axis.stop}` is empty"
        hint = f"the end is not part of a range; `{axis.start}..{axis.start + 1}` is one {what}"
        raise SyntaxFault("E307", message, axis.column, axis.end, hint)
    return Span(axis.start, count)
