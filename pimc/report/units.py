"""Numbers for people: engineering prefixes, four digits, spaces that do not break."""

from __future__ import annotations

import math
from typing import Final

_PREFIXES: Final = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_SPACE: Final = "\u00a0"  # no break
_COMMA: Final = "\u202f"  # between thousands: narrow, no break


def engineering(value: float, unit: str) -> str:
    """``0.009557`` and ``s`` as ``9.557 ms``; without a unit, a plain number with separators."""
    if not unit:
        return plain(value)
    if unit in ("mm²", "%"):
        return f"{plain(value)}{_SPACE}{unit}"
    power = 0
    if value:
        power = min(12, max(-12, 3 * math.floor(math.log10(abs(value)) / 3)))
        if abs(float(f"{value / 10**power:.4g}")) >= 1e3 and power < 12:
            power += 3
    return f"{plain(value / 10**power)}{_SPACE}{_PREFIXES[power]}{unit}"


def plain(value: float) -> str:
    """A number with four digits at least where it has them; whole ones in full."""
    if abs(value) < 1e9:
        value = float(f"{value:.12g}")  # a sum of steps is as round as the steps
    if float(value).is_integer():
        return f"{int(value):,}".replace(",", _COMMA)
    if abs(value) >= 1e4:
        return f"{value:,.0f}".replace(",", _COMMA)
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:#.4g}".rstrip(".")


def share(value: float) -> str:
    """A share of 1 as percent."""
    if value and value < 0.001:
        return f"<{_SPACE}0.1{_SPACE}%"
    return f"{100 * value:.1f}{_SPACE}%"
