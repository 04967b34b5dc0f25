"""Colours of the page: one per layer, from input to output, and one per kind of cost."""

from __future__ import annotations

from typing import Final

# mid tones that stand out from white and from near black alike
_RAMP: Final = (
    "#4263eb",
    "#1090c8",
    "#12a288",
    "#6a9b1f",
    "#d0930a",
    "#e8622a",
    "#d6336c",
    "#9c36b5",
)

# by group of energy and by wait; no two that stand side by side are told apart by hue alone
GROUP_COLORS: Final = {
    "adc": "#2f6fb7",
    "accumulation": "#6fb7e6",
    "array": "#e3a21a",
    "buffers": "#159a78",
    "network": "#c673a6",
    "vector": "#d9622b",
    "control": "#8b929c",
}
WAIT_COLORS: Final = {
    "busy": "#2f6fb7",
    "input": "#e3a21a",
    "space": "#d9622b",
    "memory": "#c673a6",
    "own units": "#159a78",
    "issue": "#8b929c",
}


def ramp(count: int) -> list[str]:
    """``count`` colours along the ramp, as ``#rrggbb``."""
    found = []
    for index in range(count):
        place = index / max(1, count - 1) * (len(_RAMP) - 1)
        low = min(int(place), len(_RAMP) - 2)
        first, second = _channels(_RAMP[low]), _channels(_RAMP[low + 1])
        mixed = (a + (b - a) * (place - low) for a, b in zip(first, second, strict=True))
        found.append("#" + "".join(f"{round(value):02x}" for value in mixed))
    return found


def _channels(color: str) -> list[int]:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]
