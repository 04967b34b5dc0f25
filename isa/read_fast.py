"""Reader of plain instructions, for programs of many thousands of lines.

It cuts a line at its commas, reads each distinct operand text once, and knows nothing of errors:
whatever it does not understand at once is left to the grammar. A property test holds that both
read the same.
"""

from __future__ import annotations

import re
from typing import Any, Final

from isa.instruction import Instruction, OperandField
from isa.operands import Affine, Region, Span
from isa.read_operands import Signature, read_operand, read_span, signature
from isa.syntax import read_operand_text
from isa.syntax_tree import RESERVED, Box, SyntaxFault

_PLAIN_LINE: Final = re.compile(r'[ \t]*([A-Za-z]\w*)[ \t]+([^";{}\r]+)')
_COMMA: Final = re.compile(r",(?![^\[\]]*\])")
_NAMES: Final = ("matrix", "channel", "table", "partition")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_REGION: Final = re.compile(
    r"([A-Za-z_][A-Za-z0-9_.]*)(?:[ \t]*\[([^\[\],]+(?:,[^\[\],]+){0,2})\])?"
)
_INT: Final = re.compile(r"-?[0-9]{1,17}")
_RANGE: Final = re.compile(r"([0-9]{1,17})(?:\.\.([0-9]{1,17}))?")
_FAST_LENGTH: Final = 300  # characters; longer lines take the other way, so no line is quadratic


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
