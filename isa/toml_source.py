"""TOML with places: read a file safely, parse it, and find the line of any dotted path.

No TOML reader of the standard library keeps line numbers, so `TomlSource` scans the text once more
for table headers and keys. The scan trusts that `tomllib` accepted the text first.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isa.diagnostics import Diagnostic, Location, PimError

MAX_FILE_BYTES: Final = 1 << 20  # a description is a few KB; refuse before reading, not after

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED: Final = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER: Final = re.compile(rf"^\s*\[\[?\s*({_DOTTED})\s*\]")
_ENTRY: Final = re.compile(rf"^\s*({_DOTTED})\s*=\s*")
_PLACE: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class TomlSource:
    """A parsed TOML text that can point at its keys.

    file: the name to show; data: the parsed document; places: dotted path -> (line, column,
    length), all 1-based, for every table header and key written on a line of its own.
    """

    file: str
    text: str
    data: dict[str, Any]
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def locate(self, path: str) -> Location | None:
        """Return the place where `path` itself is written, or None."""
        place = self.places.get(path)
        return None if place is None else self._location(*place)

    def locate_nearest(self, path: str) -> Location:
        """Return the place of `path`, else of its innermost enclosing table, else of the file."""
        while path:
            if (found := self.locate(path)) is not None:
                return found
            path = path.rpartition(".")[0]
        return Location(self.file)

    def _location(self, line: int, column: int, length: int) -> Location:
        return Location(self.file, line, column, length, self.text.splitlines()[line - 1])


def read_toml(path: Path) -> TomlSource:
    """Read and parse a TOML file of at most `MAX_FILE_BYTES` bytes.

    Raises PimError T102 (unreadable, too large, not UTF-8) or T103 (syntax, with its line).
    """
    at = Location(str(path))
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PimError(Diagnostic("T102", f"cannot read the target file: {reason}", at)) from error
    if len(raw) > MAX_FILE_BYTES:
        message = f"the target file is larger than {MAX_FILE_BYTES} bytes"
        raise PimError(Diagnostic("T102", message, at, "is this a target description?"))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the target file is not UTF-8 text: byte {raw[error.start]:#04x}"
        line = raw.count(b"\n", 0, error.start) + 1
        raise PimError(Diagnostic("T102", message, Location(str(path), line))) from error
    return parse_toml(text, str(path))


def parse_toml(text: str, file: str) -> TomlSource:
    """Parse a TOML text; `file` is the name to show in messages.

    Raises PimError T103 with the line of the syntax error.
    """
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise PimError(_syntax_error(str(error), text, file)) from error
    except RecursionError as error:
        message = "the file nests arrays or tables too deeply"
        raise PimError(Diagnostic("T103", message, Location(file))) from error
    return TomlSource(file, text, data, dict(_scan(text)))


def _syntax_error(message: str, text: str, file: str) -> Diagnostic:
    """Turn tomllib's `message (at line L, column C)` into a diagnostic with a caret."""
    lines = text.splitlines() or [""]
    line, column = len(lines), len(lines[-1]) + 1  # "at end of document"
    match = _PLACE.search(message)
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    source = lines[line - 1] if line <= len(lines) else ""
    reason = message[: match.start()] if match else message
    at = Location(file, line, column, 1, source)
    hint = "TOML wants `key = value`, text in double quotes, and `[table]` headers"
    return Diagnostic("T103", f"not valid TOML: {reason[:1].lower()}{reason[1:]}", at, hint)


def _scan(text: str) -> list[tuple[str, tuple[int, int, int]]]:
    """List (dotted path, (line, column, length)) of every header and key in the text."""
    found: list[tuple[str, tuple[int, int, int]]] = []
    table = ""
    closing: str | None = None  # the quotes that end the multi-line string we are in
    for number, line in enumerate(text.splitlines(), start=1):
        if closing is not None:
            closing = None if closing in line else closing
            continue
        if (match := _HEADER.match(line)) is not None:
            table = _plain_path(match[1])
            found.append((table, (number, match.start(1) + 1, len(match[1]))))
        elif (match := _ENTRY.match(line)) is not None:
            path = _plain_path(match[1])
            path = f"{table}.{path}" if table else path
            found.append((path, (number, match.start(1) + 1, len(match[1]))))
            quotes = line[match.end() : match.end() + 3]
            if quotes in ('"""', "'''") and line.count(quotes) == 1:
                closing = quotes
    return found


def _plain_path(written: str) -> str:
    """`a . "b"` -> `a.b`."""
    return ".".join(part.strip("\"'") for part in re.findall(_PART, written))
