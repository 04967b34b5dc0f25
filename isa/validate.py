"""Validation with places: turn pydantic's findings into diagnostics with path, caret and hint."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from isa.diagnostics import Diagnostic, Findings, Location

Model = TypeVar("Model", bound=BaseModel)
Locate = Callable[[str], Location | None]

# what a TOML author calls the type of a value
_TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "table",
    list: "array",
}
_EXPECTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in double quotes",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def validate(
    model: type[Model], data: Mapping[str, Any], locate: Locate, findings: Findings
) -> Model | None:
    """Build `model` from `data`, or note every finding and return None.

    locate: dotted path -> the nearest place to point at, or None when there is no text.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            findings.add(_diagnose(model, detail, locate))
        return None


def known_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted paths of all fields of `model` and of the models nested in it."""
    paths: list[str] = []
    for name, info in model.model_fields.items():
        paths.append(prefix + (info.alias or name))
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            paths += known_paths(info.annotation, f"{prefix}{name}.")
    return paths


def did_you_mean(word: str, known: list[str]) -> str | None:
    """Return "did you mean `x`?" for the known word closest to `word`, or None."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None


def describe(value: object) -> str:
    """Return the type and the (shortened) value of something read from TOML, for messages."""
    if isinstance(value, dict | list):
        return f"{_TYPE_NAMES[type(value)]} of {len(value)} entries"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return f"{_TYPE_NAMES.get(type(value), type(value).__name__)} `{shown}`"


def _diagnose(model: type[BaseModel], detail: ErrorDetails, locate: Locate) -> Diagnostic:
    """Turn one pydantic finding into a diagnostic: T104 unknown, T105 missing, T106 wrong."""
    path = ".".join(str(part) for part in detail["loc"])
    kind, at = detail["type"], locate(path)
    table, _, key = path.rpartition(".")
    siblings = _fields_of(model, table)
    if kind == "extra_forbidden":
        hint = did_you_mean(key, siblings) or _elsewhere(key, known_paths(model))
        return Diagnostic(
            "T104", f"unknown key `{path}`", at, hint or f"known here: {', '.join(siblings)}"
        )
    if kind == "missing":
        hint = 'start from a shipped target: `extends = "ou9x8"`'
        return Diagnostic("T105", f"`{path}` is missing", at, hint)
    expected = _expected(detail)
    return Diagnostic(
        "T106", f"`{path}`: expected {expected}, found {describe(detail['input'])}", at
    )


def _expected(detail: ErrorDetails) -> str:
    """Say what a field wanted, in the words of a TOML author."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {context[key]}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return f"text like {context['pattern']}"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _fields_of(model: type[BaseModel], table: str) -> list[str]:
    """Return the field names of the model nested at dotted path `table` ("" is `model`)."""
    for name in table.split(".") if table else []:
        info = model.model_fields.get(name)
        if info is None or not isinstance(info.annotation, type):
            return []
        if not issubclass(info.annotation, BaseModel):
            return []
        model = info.annotation
    return [info.alias or name for name, info in model.model_fields.items()]


def _elsewhere(key: str, paths: list[str]) -> str | None:
    """Return a hint when `key` exists, but in another table."""
    same = [path for path in paths if path.rpartition(".")[2] == key]
    return f"there is `{same[0]}`" if same else None
