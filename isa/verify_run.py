"""Abstract run of one image: what is defined when, which rows are there, and who waits for whom.

No values are computed. Each buffer has a mask of its defined elements, each slot of a ring the
row that stands in it, each channel the sizes of its waiting messages. The cores take turns until
all have finished or all wait. One order of turns is enough: streams are deterministic, and a core
can only take what its channels give it in their order, so which messages are sent, and whether
all streams end, does not depend on who goes first (Kahn's networks, with bounded queues).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, MutableMapping
from dataclasses import dataclass, field

import numpy as np

from isa.catalog import Fill, Host, Recv, Send, Store
from isa.instruction import Instruction
from isa.operands import Env, Region
from isa.printer import name_text, quoted, region_text
from isa.program import Channel, Core, Loop, Statement
from isa.verify_memory import Access, Memory, buffer_memory, tensor_memory
from isa.verify_scope import Scope

MAX_STEPS = 50_000_000  # executed instructions; a run of this many takes minutes


@dataclass(eq=False)
class _Queue:
    """Waiting messages of a channel: (elements, instruction that sent them)."""

    channel: Channel
    waiting: deque[int] = field(default_factory=deque)
    waiter: _Stream | None = None
    sent: int = 0
    is_blamed: bool = False


@dataclass(eq=False)
class _Step:
    """An instruction made ready: what it reads and writes of what the run keeps track of."""

    instruction: Instruction
    ordinal: int
    reads: list[Access]
    writes: list[Access]
    store: Access | None = None
    queue: _Queue | None = None
    elements: int = 0
    is_send: bool = False
    is_blamed: bool = False


@dataclass(eq=False)
class _LoopStep:
    variable: str
    values: range
    body: list[_Step | _LoopStep]


@dataclass(eq=False)
class _Stream:
    core: Core
    env: dict[str, int]
    steps: Generator[_Step, None, None]
    waits_at: _Step | None = None


class AbstractRun:
    """One run of a program whose declarations and operands have been found sound."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._queues = {c.name: _Queue(c) for c in scope.program.channels}
        self._outputs = {
            t.name: tensor_memory(t) for t in scope.program.tensors if t.role == "output"
        }
        self._hosts = {t.name: tensor_memory(t) for t in scope.program.tensors if t.role == "host"}
        self._ready: deque[_Stream] = deque()
        self._streams = [self._bind(core) for core in scope.program.cores]

    def run(self) -> None:
        """Run all streams and note every finding."""
        self._ready.extend(self._streams)
        running = set(self._streams)
        while self._ready:
            stream = self._ready.popleft()
            stream.waits_at = next(stream.steps, None)
            if stream.waits_at is None:
                running.discard(stream)
            elif stream.waits_at.queue is not None:
                stream.waits_at.queue.waiter = stream
        for stream in self._streams:
            if stream in running and stream.waits_at is not None:
                self._note_deadlock(stream, stream.waits_at)
        if not running:
            self._check_ends()

    # ------------------------------------------------------------------ binding

    def _bind(self, core: Core) -> _Stream:
        memories = self._hosts | {buffer.name: buffer_memory(buffer) for buffer in core.buffers}
        env: dict[str, int] = {}
        body, _ = self._bind_body(core.body, memories, env, 0)
        return _Stream(core, env, self._execute(core.index, body, env))

    def _bind_body(
        self,
        body: tuple[Statement, ...],
        memories: MutableMapping[str, Memory],
        env: dict[str, int],
        ordinal: int,
    ) -> tuple[list[_Step | _LoopStep], int]:
        bound: list[_Step | _LoopStep] = []
        for statement in body:
            if isinstance(statement, Loop):
                inner, ordinal = self._bind_body(statement.body, memories, env, ordinal)
                values = range(statement.start, statement.stop, statement.step)
                bound.append(_LoopStep(statement.variable, values, inner))
            else:
                bound.append(self._bind_step(statement, memories, env, ordinal))
                ordinal += 1
        return bound, ordinal

    def _bind_step(
        self, i: Instruction, memories: MutableMapping[str, Memory], env: Env, ordinal: int
    ) -> _Step:
        reads = [Access(memories[r.name], r, env) for r in i.read_regions() if r.name in memories]
        if isinstance(i, Store):
            memory = self._outputs.get(i.into.name) or memories[i.into.name]
            return _Step(i, ordinal, reads, [], store=Access(memory, i.into, env))
        if isinstance(i, Host):
            return _Step(i, ordinal, *self._bind_partition(i))
        writes = []
        for region in i.written_regions():
            memory = memories[region.name]
            restores_fill = isinstance(i, Fill) and i.value == memory.fill
            writes.append(Access(memory, region, env, restores_fill))
        step = _Step(i, ordinal, reads, writes)
        if isinstance(i, Send | Recv):
            step.queue = self._queues[i.channel]
            step.is_send = isinstance(i, Send)
            access = (reads if step.is_send else writes)[0]
            step.elements = access.elements
        return step

    def _bind_partition(self, i: Host) -> tuple[list[Access], list[Access]]:
        """What a partition reads and writes of the memory that the run keeps track of."""
        partition, known = self.scope.partitions[i.partition], self._hosts | self._outputs
        reads, writes = (
            [Access(known[name], Region(name), {}) for name in names if name in known]
            for names in (partition.inputs, partition.outputs)
        )
        return reads, writes

    # ------------------------------------------------------------------ execution

    def _execute(
        self, core: int, body: list[_Step | _LoopStep], env: dict[str, int]
    ) -> Generator[_Step, None, None]:
        """Execute a stream; yields the step at which it has to wait."""
        for item in body:
            if isinstance(item, _LoopStep):
                for value in item.values:
                    env[item.variable] = value
                    yield from self._execute(core, item.body, env)
                env.pop(item.variable, None)
                continue
            queue = item.queue
            if queue is not None:
                while len(queue.waiting) >= queue.channel.depth if item.is_send else (
                    not queue.waiting
                ):  # fmt: skip
                    yield item
                self._pass_message(core, item, queue)
            for access in item.reads:
                problem = access.problem()
                if problem is not None and not item.is_blamed:
                    self._blame(core, item, *problem, region_text(access.region))
            for access in item.writes:
                access.write()
            if item.store is not None:
                if item.store.is_touched() and not item.is_blamed:
                    text = region_text(item.store.region)
                    self._blame(core, item, "V420", f"`{text}` has been stored before", text)
                item.store.write()

    def _pass_message(self, core: int, step: _Step, queue: _Queue) -> None:
        if step.is_send:
            queue.waiting.append(step.elements)
            queue.sent += 1
        else:
            elements = queue.waiting.popleft()
            if elements != step.elements and not queue.is_blamed:
                queue.is_blamed = True
                number = queue.sent - len(queue.waiting)
                message = (
                    f"message {number} of channel {quoted(queue.channel.name)} has {elements} "
                    f"elements, the receiver takes {step.elements}"
                )
                self._blame(core, step, "V416", message, name_text(queue.channel.name))
        if queue.waiter is not None:
            self._ready.append(queue.waiter)
            queue.waiter = None

    # ------------------------------------------------------------------ findings

    def _blame(self, core: int, step: _Step, code: str, message: str, needle: str) -> None:
        """Note a finding at a step, once per instruction of the text."""
        step.is_blamed = True
        stream = next(s for s in self._streams if s.core.index == core)
        at = self.scope.at_instruction(core, step.ordinal, step.instruction, needle)
        text = f"`{step.instruction.mnemonic}`: {message}{_with(stream.env)}"
        self.scope.findings.error(code, text, at)

    def _note_deadlock(self, stream: _Stream, step: _Step) -> None:
        assert step.queue is not None, "only messages wait"
        channel, waiting = step.queue.channel, len(step.queue.waiting)
        other = channel.target if step.is_send else channel.source
        verb = f"send to core {other}" if step.is_send else f"receive from core {other}"
        message = (
            f"deadlock: core {stream.core.index} waits for ever to {verb} on channel "
            f"{quoted(channel.name)} ({waiting} of {channel.depth} messages)"
        )
        at = self.scope.at_instruction(
            stream.core.index, step.ordinal, step.instruction, name_text(channel.name)
        )
        hint = f"core {other} {self._doing(other)}"
        self.scope.findings.error("V422", message + _with(stream.env), at, hint)

    def _doing(self, core: int) -> str:
        stream = next((s for s in self._streams if s.core.index == core), None)
        if stream is None or stream.waits_at is None or stream.waits_at.queue is None:
            return "has ended"
        channel = quoted(stream.waits_at.queue.channel.name)
        return f"itself waits at `{stream.waits_at.instruction.mnemonic}` on channel {channel}"

    def _check_ends(self) -> None:
        """All streams have ended: no message is left, every output is there."""
        for queue in self._queues.values():
            if queue.waiting:
                name = queue.channel.name
                message = (
                    f"{len(queue.waiting)} messages of channel {quoted(name)} are never received"
                )
                self.scope.declared("V416", message, "channel", None, name)
        for memory in self._outputs.values():
            if not memory.defined.all():
                place = [int(i) for i in np.argwhere(~memory.defined)[0]]
                missing = int(np.count_nonzero(~memory.defined))
                message = (
                    f"output {quoted(memory.name)}: {missing} of {memory.defined.size} elements "
                    f"are never stored, first {place}"
                )
                self.scope.declared("V420", message, "tensor", None, memory.name)


def _with(env: Env) -> str:
    at = ", ".join(f"{name} = {value}" for name, value in env.items())
    return f" (at {at})" if at else ""


def executed_instructions(body: tuple[Statement, ...]) -> int:
    """How many instructions a stream executes."""
    total = 0
    for statement in body:
        if isinstance(statement, Loop):
            trips = len(range(statement.start, statement.stop, statement.step))
            total += trips * executed_instructions(statement.body)
        else:
            total += 1
    return total
