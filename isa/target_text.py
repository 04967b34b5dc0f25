"""TOML writer for target descriptions: just tables of numbers, texts and booleans."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def toml_text(document: Mapping[str, Any]) -> str:
    """Return a nested mapping of scalars as TOML, tables in the order of the mapping."""
    return "\n".join(_table(document, "")).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the lines of one table: its scalars first, then the tables inside it."""
    scalars = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and scalars:
        yield f"\n[{path}]"
    for key, value in scalars.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _table(value, f"{path}.{_key(key)}" if path else _key(key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: object) -> str:
    """Write a scalar; JSON's spelling of texts, booleans and finite numbers is also TOML's."""
    text = json.dumps(value)
    # TOML forbids a raw DEL, and JSON's surrogate pairs are no TOML escapes
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return text
