"""Reader of instructions: the typed fields of a class decide what its operands may be.

Two readers of one meaning. `read_call` takes the tree of a whole line and says what is wrong with
it, operand by operand. `FastReader` cuts a plain line at its commas, reads each distinct operand
text once, and knows nothing of errors: it gives up on whatever it does not understand at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from isa.catalog import CATALOG
from isa.instruction import Instruction, OperandField, operand_fields
from isa.operands import Affine, Region, Span
from isa.syntax import (
    RESERVED,
    Attribute,
    Axis,
    Box,
    Call,
    Items,
    Node,
    Number,
    Range,
    SyntaxFault,
    read_operand_text,
    whole_numbers,
)
from isa.validate import did_you_mean

_EXPECTED: Final = {
    "region": "a region like `name[row, columns, channels]`",
    "matrix": "the name of a matrix",
    "channel": "the name of a channel",
    "table": "the name of a table",
    "int": "a whole number",
    "float": "a number",
    "pair": "a pair like `[3 3]`",
}
_AXES: Final = ("row", "column", "channel")
_PLAIN_LINE: Final = re.compile(r'[ \t]*([A-Za-z]\w*)[ \t]+([^";{}\r]+)')
_COMMA: Final = re.compile(r",(?![^\[\]]*\])")
_NAMES: Final = ("matrix", "channel", "table")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_REGION: Final = re.compile(
    r"([A-Za-z_][A-Za-z0-9_.]*)(?:[ \t]*\[([^\[\],]+(?:,[^\[\],]+){0,2})\])?"
)
_INT: Final = re.compile(r"-?[0-9]{1,17}")
_RANGE: Final = re.compile(r"([0-9]{1,17})(?:\.\.([0-9]{1,17}))?")
_FAST_LENGTH: Final = 300  # characters; longer lines take the other way, so no line is quadratic


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
    if field.kind in ("matrix", "channel", "table") and isinstance(node, Box) and node.is_bare:
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


class FastReader:
    """Reader of plain lines, for programs of many thousands of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def read(self, line: str) -> Instruction | None:
        """The instruction of a line, or None when the line needs the full reader."""
        if len(line) > _FAST_LENGTH or (match := _PLAIN_LINE.fullmatch(line)) is None:
            return None
        known = signature(match[1])
        if known is None:
            return None
        texts = [text.strip(" \t") for text in _COMMA.split(match[2])]
        count = len(known.positional)
        if len(texts) < count:
            return None
        try:
            values = [
                self._operand(field, text)
                for field, text in zip(known.positional, texts, strict=False)
            ]
            if len(texts) == count:
                return known.cls(*values)
            return known.cls(*values, **self._named(known, texts[count:]))
        except SyntaxFault:
            return None

    def _named(self, known: Signature, texts: list[str]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            field = known.named.get(key.rstrip(" \t"))
            if not equals or field is None or field.name in named:
                raise SyntaxFault("E305", "left to the full reader", 1)
            named[field.name] = self._operand(field, value.strip(" \t"))
        return named

    def _operand(self, field: OperandField, text: str) -> Any:
        key = (field.kind, text)
        value = self._known.get(key)
        if value is None:
            value = self._known[key] = self._read(field, text)
        return value

    def _read(self, field: OperandField, text: str) -> Any:
        """A plain operand by its pattern, any other one by the grammar."""
        if field.kind in _NAMES and _is_name(text):
            return text
        if field.kind == "region" and (match := _REGION.fullmatch(text)) and _is_name(match[1]):
            axes = () if match[2] is None else match[2].split(",")
            return Region(match[1], *(self._axis(axis.strip(" \t")) for axis in axes))
        if field.kind == "int" and _INT.fullmatch(text):
            return int(text)
        node = read_operand_text(text)
        if node is None:
            raise SyntaxFault("E301", "left to the full reader", 1)
        return read_operand(field, node)

    def _axis(self, text: str) -> Span | None:
        if text == "*":
            return None
        key = ("axis", text)
        span: Span | None = self._known.get(key)
        if span is None:
            if (match := _RANGE.fullmatch(text)) is not None:
                start, stop = int(match[1]), int(match[2] or int(match[1]) + 1)
                if start >= stop:
                    raise SyntaxFault("E307", "left to the full reader", 1)
                span = Span(Affine(start), stop - start)
            else:
                node = read_operand_text(f"r[{text}]")
                if not isinstance(node, Box) or len(node.axes) != 1:
                    raise SyntaxFault("E301", "left to the full reader", 1)
                span = read_span(node.axes[0], "row")
            self._known[key] = span
        return span


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text not in RESERVED and len(text) < 64
