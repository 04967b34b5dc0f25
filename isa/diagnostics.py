"""Diagnostics: what is wrong, where, and what to try, rendered with line, caret and hint.

Every user-visible failure of pimc is a `PimError` carrying one or many `Diagnostic`s. Checkers
collect into `Findings`, so that one run reports everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from isa.codes import EXIT_PRIORITY, exit_code_of, find_code

Severity = Literal["error", "warning"]

_RESET: Final = "\x1b[0m"
_BOLD: Final = "\x1b[1m"
_COLORS: Final[dict[Severity, str]] = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m"}
_BLUE: Final = "\x1b[1;34m"
_MAX_SOURCE_COLUMNS: Final = 160  # a longer source line is shown as a window around the caret


@dataclass(frozen=True)
class Location:
    """A place in a text (`file`, `line`, `column`) or in a model (`file`, `node`).

    line, column: 1-based; `length` counts characters under the caret; `text` is the source line.
    node: an ONNX node or tensor in words, for inputs that have no lines.
    """

    file: str | None = None
    line: int | None = None
    column: int | None = None
    length: int = 1
    text: str | None = None
    node: str | None = None

    def __str__(self) -> str:
        """Return `file:line:column`, followed by the node when there is one."""
        parts = [self.file or ("<text>" if self.line is not None else None)]
        parts += [None if n is None else str(n) for n in (self.line, self.column)]
        place = ":".join(part for part in parts if part is not None)
        return ": ".join(part for part in (place, self.node) if part)


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a registered `code`, a message, a place and a hint.

    Raises ValueError at once when `code` is not in `isa.codes`: an error that `pimc explain` does
    not know must not survive the first test that meets it.
    """

    code: str
    message: str
    at: Location | None = None
    hint: str | None = None
    severity: Severity = "error"

    def __post_init__(self) -> None:
        if find_code(self.code) is None:
            raise ValueError(f"diagnostic code `{self.code}` is not registered in isa/codes.py")

    def render(self, color: bool = False) -> str:
        """Return the finding as text, without a final newline, in the style of rustc.

        color: use ANSI colours; the text without the colour codes is the same.
        """
        paint = _paint if color else _plain
        head = paint(f"{self.severity}[{self.code}]", _COLORS[self.severity])
        message = _printable(self.message, keep="\n\t")
        lines = [head + paint(f": {message}", _BOLD)]
        if self.at is not None:
            lines += _render_place(self.at, paint(" --> ", _BLUE), _COLORS[self.severity], color)
        if self.hint is not None:
            first, *rest = _printable(self.hint, keep="\n\t").split("\n")
            lines += [f"  {paint('hint:', _BLUE)} {first}", *(f"        {line}" for line in rest)]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object: severity, code, message and, where known, place and hint."""
        document: dict[str, Any] = {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
        }
        if self.at is not None:
            keys = ("file", "line", "column", "node")
            place = {key: getattr(self.at, key) for key in keys}
            document |= {key: value for key, value in place.items() if value is not None}
        if self.hint is not None:
            document["hint"] = self.hint
        return document


class PimError(Exception):
    """The one exception that a user of pimc meets; `diagnostics` says what is wrong."""

    def __init__(self, *diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        """Take one or many diagnostics, as arguments or as iterables of them."""
        found: list[Diagnostic] = []
        for item in diagnostics:
            found += [item] if isinstance(item, Diagnostic) else item
        if not found:
            raise ValueError("a PimError needs at least one diagnostic")
        self.diagnostics: tuple[Diagnostic, ...] = tuple(found)
        super().__init__(*self.diagnostics)

    @property
    def exit_code(self) -> int:
        """The exit code of the gravest family among the findings (`isa.codes.EXIT_PRIORITY`)."""
        return min((exit_code_of(d.code) for d in self.diagnostics), key=EXIT_PRIORITY.index)

    def render(self, color: bool = False) -> str:
        """Return all findings as text, one after the other, parted by empty lines."""
        return "\n\n".join(diagnostic.render(color) for diagnostic in self.diagnostics)

    def __str__(self) -> str:
        return self.render()


@dataclass
class Findings:
    """Collector of a checker: note every finding, raise once at the end."""

    diagnostics: list[Diagnostic] = field(default_factory=list)

    def add(self, diagnostic: Diagnostic) -> None:
        """Note a finding that is already a diagnostic."""
        self.diagnostics.append(diagnostic)

    def error(
        self, code: str, message: str, at: Location | None = None, hint: str | None = None
    ) -> None:
        """Note an error."""
        self.add(Diagnostic(code, message, at, hint))

    def warning(
        self, code: str, message: str, at: Location | None = None, hint: str | None = None
    ) -> None:
        """Note a warning; warnings alone never raise."""
        self.add(Diagnostic(code, message, at, hint, severity="warning"))

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The findings that are errors, in the order in which they were noted."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    def raise_if_any(self) -> None:
        """Raise PimError with all findings when at least one is an error."""
        if self.errors:
            raise PimError(self.diagnostics)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.diagnostics)

    def __len__(self) -> int:
        return len(self.diagnostics)

    def __bool__(self) -> bool:
        return bool(self.diagnostics)


def _paint(text: str, style: str) -> str:
    return f"{style}{text}{_RESET}"


def _plain(text: str, style: str) -> str:
    return text


def _printable(text: str, keep: str = "\t") -> str:
    """Replace control characters: names and lines of a hostile file must not steer a terminal."""
    return "".join(c if c in keep or c.isprintable() else "\ufffd" for c in text)


def _render_place(at: Location, arrow: str, caret_style: str, color: bool) -> list[str]:
    """Return the `-->` line and, when the source line is known, the line and its carets."""
    where = _printable(str(at))
    lines = [f" {arrow}{where}"] if where else []
    if at.text is None or at.line is None:
        return lines
    text, column = _window(at.text.rstrip("\r\n"), at.column)
    gutter = f"   {at.line} | "
    lines.append(gutter + text)
    if column is not None:
        # a tab before the caret stays a tab, so that both lines are equally wide on any terminal
        padding = "".join("\t" if char == "\t" else " " for char in text[: column - 1])
        carets = "^" * max(1, min(at.length, len(text) - column + 1))
        indent = " " * len(gutter) + padding.ljust(column - 1)
        lines.append(indent + (_paint(carets, caret_style) if color else carets))
    return lines


def _window(text: str, column: int | None) -> tuple[str, int | None]:
    """Cut a long source line to a window around `column` (1-based); return it and its column."""
    clean = _printable(text)
    if len(clean) <= _MAX_SOURCE_COLUMNS:
        return clean, column
    start = max(0, min((column or 1) - 1 - 40, len(clean) - _MAX_SOURCE_COLUMNS))
    head = "..." if start else ""
    tail = "..." if start + _MAX_SOURCE_COLUMNS < len(clean) else ""
    shown = head + clean[start : start + _MAX_SOURCE_COLUMNS] + tail
    return shown, None if column is None else column - start + len(head)
