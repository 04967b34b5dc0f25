"""Queue depths: how many messages each channel must hold so that the program cannot deadlock.

The streams of the cores form a network of deterministic processes over bounded queues. Whether
such a network runs to its end does not depend on the order in which ready cores are advanced, so
one order that succeeds is a proof for all. Here the last core that can move always moves, one
message at a time: a producer works only when all its consumers have nothing left to do. The
fullest that each queue gets is then enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from isa.catalog import Recv, Send
from isa.program import Statement, unroll

Events = Sequence[tuple[str, bool]]  # (channel, is it a send)
SLACK = 1  # messages beyond the proof, so that a producer can run ahead of its consumer


def channel_events(body: tuple[Statement, ...]) -> Events:
    """The sends and receives of one stream in execution order."""
    return [
        (instruction.channel, isinstance(instruction, Send))
        for instruction, _ in unroll(body)
        if isinstance(instruction, Send | Recv)
    ]


def queue_depths(events: Mapping[int, Events], producer: Mapping[str, int]) -> dict[str, int]:
    """Messages that each channel needs, slack included.

    events: by core, cores numbered in the direction of the data. producer: sending core by
    channel. Raises ValueError when some core waits for a message that nobody sends.
    """
    run = _Run(events, producer)
    ready = [-core for core in events]
    heapify(ready)
    while ready:
        for core in run.turn(-heappop(ready)):
            heappush(ready, -core)
    if run.waiting:
        raise ValueError(f"nobody sends on {sorted(run.waiting)}")
    return {channel: most + SLACK for channel, most in run.fullest.items()}


class _Run:
    """State of the one run. waiting: the core that each empty channel holds up."""

    def __init__(self, events: Mapping[int, Events], producer: Mapping[str, int]) -> None:
        self.events = events
        self.position = dict.fromkeys(events, 0)
        self.held = dict.fromkeys(producer, 0)
        self.fullest = dict.fromkeys(producer, 0)
        self.waiting: dict[str, int] = {}

    def turn(self, core: int) -> list[int]:
        """Receive once, or send once on each of a row of channels; the cores that can move then.

        A message for several consumers goes to all of them before any of them may run, or the
        first one's results would pile up before the others.
        """
        stream, sent = self.events[core], set[str]()
        able: list[int] = []
        while self.position[core] < len(stream):
            channel, is_send = stream[self.position[core]]
            if (sent and not is_send) or channel in sent:
                return [*able, core]
            if not is_send and not self.held[channel]:
                self.waiting[channel] = core
                return able
            self.position[core] += 1
            self.held[channel] += 1 if is_send else -1
            self.fullest[channel] = max(self.fullest[channel], self.held[channel])
            if not is_send:
                return [core]
            sent.add(channel)
            if channel in self.waiting:
                able.append(self.waiting.pop(channel))
        return able
