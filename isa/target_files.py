"""Target documents before validation: find the file, follow `extends`, apply overrides.

A `Document` keeps, beside the merged values, the texts they came from, so that every later
finding can point at the line (or the override) that caused it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from isa.diagnostics import Diagnostic, Location, PimError
from isa.target_checks import is_number, lift_sources, numbers
from isa.toml_source import TomlSource, read_toml
from isa.validate import describe, did_you_mean

_FOLDER: Final = Path(__file__).parent / "targets"
_BARE_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_OVERRIDE_SOURCE: Final = "override"


@dataclass(frozen=True)
class Document:
    """A target description as merged from its files and overrides, not yet validated.

    data: nested values without sources; sources: dotted path of a number -> source;
    texts: the files, nearest first; overridden: dotted path -> place of its override;
    findings: what went wrong on the way.
    """

    data: dict[str, Any]
    sources: dict[str, str]
    texts: tuple[TomlSource, ...] = ()
    overridden: Mapping[str, Location] | None = None
    findings: tuple[Diagnostic, ...] = ()
    file: str = "<target>"

    @classmethod
    def from_data(cls, data: Mapping[str, Any], file: str) -> Document:
        """Wrap a parsed document; `source` and `sources` keys may stand anywhere in it."""
        sources: dict[str, str] = {}
        return cls(lift_sources(data, sources), sources, file=file)

    def locate(self, path: str) -> Location:
        """Return the nearest place to point at for a dotted path.

        That is the override of it, its own line in the nearest file, or the table around it.
        """
        for key, place in (self.overridden or {}).items():
            if key == path or key.startswith(path + "."):
                return place
        for text in self.texts:
            if (found := text.locate(path)) is not None:
                return found
        return self.texts[0].locate_nearest(path) if self.texts else Location(self.file)


def shipped_targets() -> dict[str, Path]:
    """Return name -> file of the targets that come with pimc."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def read_document(name_or_path: str | Path) -> Document:
    """Read a shipped target by name or a file by path, and everything it extends.

    Raises PimError T101 (no such target), T102, T103.
    """
    shipped = shipped_targets()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, never raises
        names = list(shipped)
        hint = did_you_mean(str(name_or_path), names)
        message = f"no target `{name_or_path}`: neither a shipped target nor a file"
        raise PimError(
            Diagnostic("T101", message, hint=hint or f"shipped targets: {', '.join(names)}")
        )
    return _read_chain(path, seen=())


def _read_chain(path: Path, seen: tuple[Path, ...]) -> Document:
    """Read a file and merge it over the shipped target that it extends, if any."""
    text = read_toml(path)
    own = {key: value for key, value in text.data.items() if key != "extends"}
    document = replace(Document.from_data(own, text.file), texts=(text,))
    if "extends" not in text.data:
        return document
    base_name = text.data["extends"]
    base = shipped_targets().get(base_name) if isinstance(base_name, str) else None
    if base is None or base in (*seen, path):
        hint = f"shipped targets: {', '.join(shipped_targets())}"
        message = f"`extends`: expected another shipped target, found {describe(base_name)}"
        raise PimError(Diagnostic("T106", message, text.locate("extends"), hint))
    return _merge(_read_chain(base, (*seen, path)), document)


def _merge(base: Document, top: Document) -> Document:
    """Lay `top` over `base`. A number that `top` restates needs a source of its own."""
    merged = _merge_tables(base.data, top.data)
    inherited = set(numbers(merged)) - set(numbers(top.data))
    sources = {path: text for path, text in base.sources.items() if path in inherited}
    return replace(
        top,
        data=merged,
        sources=sources | top.sources,
        texts=top.texts + base.texts,
    )


def _merge_tables(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `top` in it, table by table."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge_tables(below, value) if both else value  # type: ignore[arg-type]
    return merged


def apply_overrides(document: Document, overrides: Mapping[str, str]) -> Document:
    """Set dotted keys to TOML values; a number set so has the source "override".

    Findings T109 for values that are no TOML scalars and for keys below a value.
    """
    data, sources = document.data, dict(document.sources)
    places: dict[str, Location] = {}
    findings = list(document.findings)
    for key, written in overrides.items():
        text = f"{key}={written}"
        at = Location("<override>", 1, 1, max(1, len(key)), text)
        value = _scalar(written)
        if value is None or not all(key.split(".")):
            message = f"`{text}` is not an override"
            hint = "write `dotted.key=value`, such as `crossbar.rows=64`"
            findings.append(Diagnostic("T109", message, at, hint))
            continue
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        if _blocked(data, key):
            message = f"`{key}` cannot be set: it is a table, or below a value"
            findings.append(Diagnostic("T109", message, at))
            continue
        data = _merge_tables(data, nested)
        places[key] = at
        sources.pop(key, None)
        if is_number(value):
            sources[key] = _OVERRIDE_SOURCE
    return replace(
        document, data=data, sources=sources, overridden=places, findings=tuple(findings)
    )


def _scalar(written: str) -> bool | int | float | str | None:
    """Read one TOML scalar; a bare word is a text. Return None for anything else."""
    if _BARE_WORD.fullmatch(written) and written not in ("true", "false", "inf", "nan"):
        return written
    if "\n" in written or "\r" in written:
        return None
    try:
        value = tomllib.loads(f"value = {written}").get("value")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, bool | int | float | str) else None


def _blocked(data: Mapping[str, Any], key: str) -> bool:
    """Tell whether `key` names a table, or leads through something that is none."""
    found: Any = data
    for part in key.split("."):
        if not isinstance(found, Mapping):
            return True
        if part not in found:
            return False
        found = found[part]
    return isinstance(found, Mapping)
