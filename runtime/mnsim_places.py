"""Where MNSIM puts tiles, and how far it thinks data travels; see `runtime.mnsim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Place = tuple[int, int]


@dataclass(frozen=True)
class Tiles:
    """within: hops from a layer's farthest tile to the one where its sums meet; out: onwards."""

    within: float
    out: float


def place_tiles(
    counts: Sequence[int],
    follows: Sequence[tuple[int, ...]],
    adds: Sequence[bool],
    side: int,
) -> list[Tiles]:
    """Distances of every layer.

    counts: tiles of each layer. follows: the layers that use it. adds: element-wise sums, which
    have no tiles; they stand at the middle of the left edge of a grid of ``side`` rows.
    """
    order = _squares(sum(counts))
    places, first = [], 0
    for count in counts:
        places.append(sorted(order[first : first + count]))
        first += count
    return [_distances(n, places, follows[n], adds, side) for n in range(len(counts))]


def _squares(count: int) -> list[Place]:
    """The first tiles of MNSIM's order: growing squares, by turns down-left and right-up."""
    found: list[Place] = [(0, 0)]
    edge = 1
    while len(found) < count:
        if edge % 2:
            found += [(row, edge) for row in range(edge + 1)]
            found += [(edge, column) for column in range(edge - 1, -1, -1)]
        else:
            found += [(edge, column) for column in range(edge + 1)]
            found += [(row, edge) for row in range(edge - 1, -1, -1)]
        edge += 1
    return found[:count]


def _distances(
    layer: int,
    places: list[list[Place]],
    follows: tuple[int, ...],
    adds: Sequence[bool],
    side: int,
) -> Tiles:
    if adds[layer]:  # measured, strangely, from the first tile of the users
        return Tiles(0, max((_to_adders(places[n][0], side) for n in follows if places[n]),
                            default=0))  # fmt: skip
    only_adds = bool(follows) and all(adds[n] for n in follows)
    best: tuple[float, float] | None = None
    for place in places[layer]:
        within = max(_hops(place, other) for other in places[layer])
        if only_adds:
            out = _to_adders(place, side)
        else:
            out = max((_hops(place, p) for n in follows for p in places[n]), default=0)
        if best is None or within + out < sum(best):
            best = within, out
    return Tiles(*(best or (0, 0)))


def _hops(a: Place, b: Place) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _to_adders(place: Place, side: int) -> float:
    return abs(place[0] - side / 2) + place[1]
