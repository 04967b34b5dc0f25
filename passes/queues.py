"""Queue depths: how many messages each channel must hold so that the program cannot deadlock.

The streams of the cores form a network of deterministic processes over bounded queues. Whether
such a network runs to its end does not depend on the order in which ready cores are advanced, so
one order that succeeds is a proof for all. Here the order is demand driven: a core is advanced
only when somebody waits for its message. The fullest that each queue gets is then enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """Messages that each channel needs. events: by core; producer: sending core by channel."""
    run = _Demand(events, producer)
    sinks = [core for core, stream in events.items() if not any(send for _, send in stream)]
    for pending in (sinks, list(events)):
        while pending:  # a turn each, so that no consumer's backlog piles up behind another's
            pending = [core for core in pending if run.advance(core)]
    return {channel: most + SLACK for channel, most in run.fullest.items()}


class _Demand:
    """State of the demand-driven run."""

    def __init__(self, events: Mapping[int, Events], producer: Mapping[str, int]) -> None:
        self.events, self.producer = events, producer
        self.position = dict.fromkeys(events, 0)
        self.held = dict.fromkeys(producer, 0)
        self.fullest = dict.fromkeys(producer, 0)

    def advance(self, core: int) -> bool:
        """Run ``core`` past its next receive; False when its stream has ended."""
        stream = self.events[core]
        if self.position[core] == len(stream):
            return False
        waiting = [core]
        while waiting:
            now = waiting[-1]
            blocked_on = self._step(now)
            if blocked_on is not None:
                waiting.append(self.producer[blocked_on])
            else:
                waiting.pop()
        return True

    def _step(self, core: int) -> str | None:
        """Run ``core`` to its next message out or in; the channel it waits for, if it does."""
        stream = self.events[core]
        channel, is_send = stream[self.position[core]]
        if not is_send and not self.held[channel]:
            return channel
        self.held[channel] += 1 if is_send else -1
        self.fullest[channel] = max(self.fullest[channel], self.held[channel])
        self.position[core] += 1
        return None
