"""Streams of instructions in Python: bound to their executors, and executed in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from isa.catalog import Recv, Send
from isa.diagnostics import Diagnostic, PimError
from isa.instruction import Instruction
from isa.program import Core, Statement
from runtime.binding import EXECUTORS, Action, Binder, Queue

Steps = Generator[Send | Recv, None, None]


@dataclass(eq=False)
class Bound:
    """An instruction that is ready to be called."""

    action: Action
    instruction: Instruction


@dataclass(eq=False)
class BoundLoop:
    """A loop whose instructions are."""

    variable: str
    values: range
    body: list[Bound | BoundLoop]


@dataclass(eq=False)
class Stream:
    """A core in motion. waits_at: where it stopped last, None at its end."""

    core: Core
    binder: Binder
    body: list[Bound | BoundLoop]
    waits_at: Send | Recv | None = None


def bind_stream(core: Core, binder: Binder) -> Stream:
    """Bind every instruction of a core. Raises PimError R713 for an undeclared name."""
    return Stream(core, binder, _bind_body(binder, core.body))


def _bind_body(binder: Binder, body: tuple[Statement, ...]) -> list[Bound | BoundLoop]:
    """Bind every instruction of a stream, in text order."""
    bound: list[Bound | BoundLoop] = []
    for statement in body:
        if isinstance(statement, Instruction):
            bound.append(Bound(_bind(binder, statement), statement))
        else:
            values = range(statement.start, statement.stop, statement.step)
            inner = _bind_body(binder, statement.body)
            bound.append(BoundLoop(statement.variable, values, inner))
    return bound


def _bind(binder: Binder, instruction: Instruction) -> Action:
    """Bind one instruction. Raises PimError R713 for an undeclared name."""
    try:
        return EXECUTORS[type(instruction)](binder, instruction)
    except KeyError as error:
        raise PimError(
            Diagnostic(
                "R713",
                f"core {binder.core}, `{instruction.mnemonic}`: `{error.args[0]}` is not declared",
                hint="`pimc verify` lists everything that is not declared",
            )
        ) from error


class PythonEngine:
    """All streams by Python's executors: what the C engine is tested against.

    A stream goes on until it has to wait for a queue; whoever changes the queue puts it into
    ``ready``.
    """

    def __init__(
        self, streams: Sequence[Stream], queues: Mapping[str, Queue], ready: deque[Stream]
    ) -> None:
        self._streams, self._queues, self._ready = streams, queues, ready

    def run(self) -> list[Stream]:
        """Run every stream to its end; return those that wait for ever."""
        ready = self._ready
        ready.clear()
        ready.extend(self._streams)
        steps = {stream: _steps(stream.body, stream.binder.env) for stream in self._streams}
        while ready:
            stream = ready.popleft()
            stream.waits_at = next(steps[stream], None)
            if stream.waits_at is not None:
                self._queues[stream.waits_at.channel].waiter = stream
        return [stream for stream in self._streams if stream.waits_at is not None]


def _steps(
    body: list[Bound | BoundLoop],
    env: MutableMapping[str, int],
    variable: str = "",
    values: range = range(1),
) -> Steps:
    """Execute a stream, or all turns of a loop; yields the instruction at which it has to wait."""
    for value in values:
        if variable:
            env[variable] = value
        for item in body:
            if isinstance(item, Bound):
                while not item.action():
                    assert isinstance(item.instruction, Send | Recv), "only these can wait"
                    yield item.instruction
            else:
                yield from _steps(item.body, env, item.variable, item.values)
    env.pop(variable, None)
