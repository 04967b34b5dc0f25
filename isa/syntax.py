"""The grammar at work: one line of text in, its tree out, or what was expected and found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, v_args
from lark.exceptions import UnexpectedToken, VisitError
from lark.tree import Meta

from isa.operands import Affine
from isa.syntax_tree import (
    Address,
    Arrow,
    At,
    Attribute,
    Axis,
    Box,
    Call,
    Close,
    Code,
    Column,
    Contents,
    Directive,
    Group,
    Hash,
    Items,
    LoopHead,
    Name,
    Node,
    Number,
    Range,
    Route,
    SyntaxFault,
    Values,
    whole,
    whole_numbers,
)

_MAX_DIGITS: Final = 18  # numbers stay within 64 bits


def _integer(token: Token) -> int:
    text = str(token)
    base = 16 if text[:2] == "0x" else 10
    if len(text) > _MAX_DIGITS:
        raise SyntaxFault(
            "E301", "the number has too many digits", *_place(token), "numbers have 64 bits"
        )
    return int(text, base)


def _place(token: Token) -> tuple[int, int]:
    column = token.column or 1
    return column, column + len(token)


def _at(meta: Meta) -> tuple[int, int]:
    return (1, 1) if meta.empty else (meta.column, meta.end_column)


@v_args(meta=True, inline=True)
class _Build(Transformer[Token, Any]):
    """Turns what the grammar finds into the classes above."""

    def start(self, meta: Meta, line: Node | None) -> Node | None:
        return line

    def directive(self, meta: Meta, name: Token, *rest: Any) -> Directive:
        return Directive(*_at(meta), str(name), tuple(rest[:-1]), rest[-1] is not None)

    def address(self, meta: Meta, token: Token) -> Address:
        return Address(*_at(meta), str(token)[1:])

    def arrow(self, meta: Meta) -> Arrow:
        return Arrow(*_at(meta))

    def contents(self, meta: Meta, equals: Token, values: Items | None) -> Contents:
        return Contents(*_at(meta), values)

    def attribute(self, meta: Meta, key: Token, value: Node) -> Attribute:
        return Attribute(*_at(meta), str(key), value)

    def code(self, meta: Meta, *parts: LoopHead | Call | Close) -> Code:
        return Code(*_at(meta), parts)

    def loop(
        self, meta: Meta, name: Name, start: Number, stop: Number, step: Number | None
    ) -> LoopHead:
        by = 1 if step is None else whole(step)
        if by < 1:
            assert step is not None
            message = f"a loop counts upwards: step {by} is below 1"
            raise SyntaxFault("E308", message, step.column, step.end)
        return LoopHead(*_at(meta), name, whole(start), whole(stop), by)

    def close(self, meta: Meta) -> Close:
        return Close(*_at(meta))

    def instruction(self, meta: Meta, mnemonic: Token, *operands: Node | None) -> Call:
        return Call(*_at(meta), str(mnemonic), tuple(o for o in operands if o is not None))

    def group(self, meta: Meta, rows: Items) -> Group:
        return Group(*_at(meta), rows)

    def at(self, meta: Meta, box: Box, *attributes: Attribute) -> At:
        return At(*_at(meta), box, attributes)

    def column(self, meta: Meta, cells: Token, *routes: Route | None) -> Column:
        digits = tuple(int(digit) for digit in cells[2:])
        return Column(*_at(meta), digits, tuple(r for r in routes if r is not None))

    def wide_column(self, meta: Meta, cells: Items, *routes: Route) -> Column:
        return Column(*_at(meta), tuple(whole_numbers(cells)), routes)

    def values(self, meta: Meta, values: Items) -> Values:
        return Values(*_at(meta), values)

    def route(self, meta: Meta, sign: Token, output: Token, shift: Token | None) -> Route:
        by = 0 if shift is None else _integer(shift)
        return Route(*_at(meta), _integer(output), by, -1 if sign == "-" else 1)

    def hash(self, meta: Meta, token: Token) -> Hash:
        return Hash(*_at(meta), str(token))

    def range(self, meta: Meta, start: Number, stop: Number) -> Range:
        return Range(*_at(meta), whole(start), whole(stop))

    def region(self, meta: Meta, name: Name, *axes: Axis | None) -> Box:
        return Box(*_at(meta), name, tuple(axis for axis in axes if axis is not None))

    def name(self, meta: Meta, token: Token) -> Name:
        return Name(*_at(meta), json.loads(token) if token.type == "STRING" else str(token))

    def every(self, meta: Meta) -> Axis:
        return Axis(*_at(meta))

    def ring(self, meta: Meta, depth: Token) -> Axis:
        return Axis(*_at(meta), Affine(_integer(depth)), ring=True)

    def span(self, meta: Meta, start: Axis, stop: Axis) -> Axis:
        return Axis(*_at(meta), start.start, stop.start)

    def affine(self, meta: Meta, *parts: Any) -> Axis:
        constant, factors = 0, dict[str, int]()
        for sign, (name, size) in zip(parts[::2], parts[1::2], strict=True):
            value = -size if sign is not None and sign == "-" else size
            if name is None:
                constant += value
            else:
                factors[name] = factors.get(name, 0) + value
        terms = tuple(sorted((name, factor) for name, factor in factors.items() if factor))
        return Axis(*_at(meta), Affine(constant, terms))

    def product(self, meta: Meta, factor: Token, name: Token) -> tuple[str | None, int]:
        return str(name), _integer(factor)

    def constant(self, meta: Meta, token: Token) -> tuple[str | None, int]:
        return None, _integer(token)

    def variable(self, meta: Meta, token: Token) -> tuple[str | None, int]:
        return str(token), 1

    def list(self, meta: Meta, *items: Number | Range) -> Items:
        return Items(*_at(meta), items)

    def signed(self, meta: Meta, sign: Token | None, token: Token) -> Number:
        is_float = token.type in ("FLOAT", "SPECIAL")
        size: int | float = float(token) if is_float else _integer(token)
        return Number(*_at(meta), -size if sign == "-" else size)


_BUILD: Final = _Build()


@lru_cache(maxsize=1)
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "pim.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start=["start", "operand"],
        propagate_positions=True,
    )


def read_line(text: str) -> Node | None:
    """The tree of one line, None for an empty one. Raises SyntaxFault with its column."""
    return _parse(text, "start")


def read_operand_text(text: str) -> Node | None:
    """The tree of one operand. Raises SyntaxFault."""
    return _parse(text, "operand")


def _parse(text: str, start: str) -> Node | None:
    try:
        tree = _BUILD.transform(_parser().parse(text, start=start))
    except UnexpectedInput as error:
        raise _fault(error, text) from error
    except VisitError as error:
        raise error.orig_exc from None
    assert tree is None or isinstance(tree, Node)
    return tree


# what a reader of a message calls the grammar's tokens, most telling ones first
_TOKENS: Final[Mapping[str, str]] = {
    "COMMA": "`,`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "EQUAL": "`=`",
    "__ANON_0": "`->`",
    "__ANON_1": "`..`",
    "STEP": "`step`",
    "$END": "the end of the line",
    "NAME": "a name",
    "INT": "a number",
    "ADDRESS": "`@address`",
    "STAR": "`*`",
    "LSQB": "`[`",
}


def _fault(error: UnexpectedInput, text: str) -> SyntaxFault:
    """Say what was expected at the first token that cannot stand there, and what was found."""
    column = error.column if isinstance(error.column, int) and error.column > 0 else 1
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return SyntaxFault("E301", f"the line ends too early; {_expected(error)}", len(text) + 1)
    if isinstance(error, UnexpectedToken):
        found = str(error.token)
        message = f"{_expected(error)}, found `{found}`"
        return SyntaxFault("E301", message, column, column + len(found))
    found = text[column - 1 : column]
    if found == '"':
        message = "the text in quotes does not end here, or has an unknown escape"
        hint = 'inside quotes write `\\"` for a quote and `\\\\` for a backslash'
        return SyntaxFault("E301", message, column, len(text) + 1, hint)
    assert isinstance(error, UnexpectedCharacters)
    return SyntaxFault("E301", f"{_expected(error)}, found `{found}`", column)


def _expected(error: UnexpectedToken | UnexpectedCharacters) -> str:
    if isinstance(error, UnexpectedToken):
        allowed = set(error.accepts or error.expected)
    else:
        allowed = set(error.allowed or ())
    words = [word for token, word in _TOKENS.items() if token in allowed]
    if not words:
        return "nothing of this kind can stand here"
    shown = words[:3]
    return f"expected {', '.join(shown[:-1])}{' or ' if shown[1:] else ''}{shown[-1]}"
