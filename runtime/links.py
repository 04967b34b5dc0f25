"""The shared ways of a chip: links of the mesh with XY routing, and the global memory's links.

Whoever asks first is served first, at every link; two that ask in the same cycle go by the
number of their core. A message moves on as soon as its head has arrived (virtual cut-through)
and keeps each link busy for its flits. Routers have room for what waits in them; that the
receiver has room is what the channel's credit says.
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.target import Target

Hop = tuple[int, int]  # (index of the link, cycles of the head from it to the next)


@dataclass(eq=False)
class Link:
    """A link. busy: cycles in which it moved flits. waited: cycles that heads waited for it."""

    name: str
    free: int = 0
    busy: int = 0
    waited: int = 0

    def serve(self, time: int, cycles: int) -> int:
        """Take a message that arrives at ``time``; the cycle at which it gets the link."""
        start = max(time, self.free)
        self.free = start + cycles
        self.busy += cycles
        self.waited += start - time
        return start


class Mesh:
    """The links that messages have used so far."""

    def __init__(self, target: Target) -> None:
        self.links: list[Link] = []
        self._target = target
        self._index: dict[str, int] = {}
        self._hop = target.network.router_cycles + target.network.link_cycles

    def path(self, source: int, sink: int) -> tuple[Hop, ...]:
        """Links from core to core, X first; the last one leads from a router into the core.

        Their cycles add up to ``target.hops`` times those of a router and a link.
        """
        (x, y), (x1, y1) = self._target.router_of(source), self._target.router_of(sink)
        names = []
        while (x, y) != (x1, y1):
            dx = (x1 > x) - (x1 < x)
            dy = 0 if dx else (y1 > y) - (y1 < y)
            names.append(f"{x},{y} to {x + dx},{y + dy}")
            x, y = x + dx, y + dy
        last = 0 if names else self._hop
        return (*((self._link(name), self._hop) for name in names),
                (self._link(f"into core {sink}"), last))  # fmt: skip

    def _link(self, name: str) -> int:
        if name not in self._index:
            self._index[name] = len(self.links)
            self.links.append(Link(name))
        return self._index[name]


class GlobalMemory:
    """The links of the global memory; a transfer takes the one that is free first."""

    def __init__(self, target: Target) -> None:
        self.links = [Link(f"global {n}") for n in range(target.global_memory.links)]

    def serve(self, time: int, cycles: int) -> int:
        """Take a transfer asked for at ``time``; the cycle at which it begins."""
        return min(self.links, key=lambda link: link.free).serve(time, cycles)
