"""Specs: what a user asks of lossy compression, from one short text each.

``pattern:keep=4,patterns=8``, ``identical:t=0.5``, ``similar:t=0.25,joint=yes``,
``channel:keep=0.65``. A value with slashes gives one entry per layer, in order, and the
last one repeats (``keep=8/4/4/2``, as the papers set them by depth).
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import ClassVar, TypeVar

from isa.diagnostics import Diagnostic, PimError

Number = TypeVar("Number", int, float)


class _Text:
    """Specs print as `parse_compression` reads them: the first option, and what is no default."""

    kind: ClassVar[str]

    def __str__(self) -> str:
        entries = fields(self)  # type: ignore[arg-type]  # all of them are dataclasses
        given = [
            f"{entry.name}={_example(getattr(self, entry.name))}"
            for entry in entries
            if entry is entries[0] or getattr(self, entry.name) != entry.default
        ]
        return f"{self.kind}:{','.join(given)}"


@dataclass(frozen=True)
class PatternSpec(_Text):
    """Pattern pruning of kernels of 9 positions (passes.pattern_prune, passes.pattern_search).

    keep: positions left of 9. patterns: shapes in a dictionary. dictionary: "local" (one per
    channel group, PRAP) or "global" (one per network, PatDNN). group: channels that share a shape.
    connectivity: kernels over kept kernels (PatDNN: 3.6), global only. choose: "magnitude" as
    published, or "error": by what the layer's outputs lose on the calibration data. first: prune
    the first layer, too.
    """

    kind: ClassVar[str] = "pattern"
    keep: tuple[int, ...] = (4,)
    patterns: int = 8
    dictionary: str = "local"
    group: int = 1
    connectivity: float = 1.0
    choose: str = "magnitude"
    first: bool = False


@dataclass(frozen=True)
class InputSpec(_Text):
    """Pruning of inputs of 1x1 and fully connected layers: ``keep`` of each ``group`` (PRAP)."""

    kind: ClassVar[str] = "inputs"
    keep: tuple[int, ...] = (8,)
    group: int = 16
    first: bool = False
    last: bool = False


@dataclass(frozen=True)
class IdenticalSpec(_Text):
    """Identical translation; t as in `passes.translate_identical`.

    group: input channels of a pattern where kernels have more than one position; inputs: the same
    for 1x1 and fully connected layers.
    """

    kind: ClassVar[str] = "identical"
    t: tuple[float, ...] = (0.5,)
    group: int = 1
    inputs: int = 8
    first: bool = False
    last: bool = False


@dataclass(frozen=True)
class SimilarSpec(_Text):
    """Similar translation; t: fraction of the outputs whose patterns are stored."""

    kind: ClassVar[str] = "similar"
    t: tuple[float, ...] = (0.25,)
    group: int = 1
    inputs: int = 8
    joint: bool = False
    max_shift: int = 3
    first: bool = False
    last: bool = False


@dataclass(frozen=True)
class ChannelSpec(_Text):
    """Channel pruning; keep: fraction of each set of channels that stays."""

    kind: ClassVar[str] = "channel"
    keep: float = 0.65
    multiple: int = 1


TranslateSpec = IdenticalSpec | SimilarSpec
Spec = PatternSpec | InputSpec | IdenticalSpec | SimilarSpec | ChannelSpec
SPECS: dict[str, type[Spec]] = {
    "pattern": PatternSpec,
    "inputs": InputSpec,
    "identical": IdenticalSpec,
    "similar": SimilarSpec,
    "channel": ChannelSpec,
}
_WORDS = {"dictionary": ("local", "global"), "choose": ("magnitude", "error")}
_LIMITS: dict[str, tuple[float, float]] = {
    "patterns": (1, 256),
    "group": (1, 4096),
    "inputs": (1, 4096),
    "multiple": (1, 4096),
    "max_shift": (0, 6),
    "connectivity": (1, 1000),
    "t": (0, 1),
}


def parse_compression(spec: str) -> Spec:
    """The spec that a text such as ``pattern:keep=4,patterns=8`` asks for.

    Raises PimError U950, with all findings, for an unknown kind or key and for wrong values.
    """
    kind, _, rest = spec.partition(":")
    known = SPECS.get(kind.strip())
    if known is None:
        raise PimError(
            _wrong(f"`{kind}` is no compression", f"there are {', '.join(sorted(SPECS))}")
        )
    keys = {entry.name: entry for entry in fields(known)}
    found: dict[str, object] = {}
    findings: list[Diagnostic] = []
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if key not in keys or not equals:
            findings.append(
                _wrong(f"`{part}` is no option of `{known.kind}`", f"it has {', '.join(keys)}")
            )
            continue
        default = keys[key].default
        assert default is not MISSING, "every option of a spec has a default"
        try:
            found[key] = _value(known.kind, key, text, default)
        except ValueError as error:
            findings.append(_wrong(f"`{part}`: {error}", f"for example {key}={_example(default)}"))
    if findings:
        raise PimError(findings)
    return known(**found)  # type: ignore[arg-type]


def at_layer(values: tuple[Number, ...], index: int) -> Number:
    """The entry of layer ``index``; the last one repeats."""
    return values[min(index, len(values) - 1)]


def _value(kind: str, key: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text not in ("yes", "no"):
            raise ValueError("expected yes or no")
        return text == "yes"
    if isinstance(default, str):
        if text not in _WORDS[key]:
            raise ValueError(f"expected {' or '.join(_WORDS[key])}")
        return text
    parts = text.split("/") if isinstance(default, tuple) else [text]
    sample = default[0] if isinstance(default, tuple) else default
    try:
        numbers = [int(p) if isinstance(sample, int) else float(p) for p in parts]
    except ValueError:
        wanted = "a whole number" if isinstance(sample, int) else "a number"
        raise ValueError(f"expected {wanted}") from None
    low, high = _limits(kind, key)
    if not all(low <= number <= high for number in numbers):
        raise ValueError(f"expected {low:g}..{high:g}")
    return tuple(numbers) if isinstance(default, tuple) else numbers[0]


def _limits(kind: str, key: str) -> tuple[float, float]:
    if key == "keep":
        return {"pattern": (1, 9), "inputs": (1, 4096)}.get(kind, (0.01, 1))
    return _LIMITS[key]


def _example(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "/".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _wrong(message: str, hint: str) -> Diagnostic:
    return Diagnostic("U950", message, hint=hint)
