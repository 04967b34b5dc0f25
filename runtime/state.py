"""The machine in motion: memories, queues and one stream per core, for a fixed number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np

from isa.catalog import Mvm, Recv, Send
from isa.diagnostics import Diagnostic, PimError
from isa.instruction import Instruction
from isa.program import DTYPES, Channel, Core, Program, Statement, Tensor, walk
from runtime.binding import EXECUTORS, Action, Binder, Programmed, Progress, Queue
from runtime.counters import Counters
from runtime.host import RunPartition
from runtime.regions import Array, Storage

SCRATCH_BYTES = 1 << 19  # gathered windows of one kernel call; half of a usual L2 cache


@dataclass(eq=False)
class _Bound:
    """An instruction that is ready to be called."""

    action: Action
    instruction: Instruction


@dataclass(eq=False)
class _BoundLoop:
    variable: str
    values: range
    body: list[_Bound | _BoundLoop]


@dataclass(eq=False)
class Stream:
    """A core in motion."""

    core: Core
    env: dict[str, int]
    body: list[_Bound | _BoundLoop]
    saturations: dict[str, int]
    progress: Progress
    steps: Generator[Send | Recv, None, None]
    waits_at: Send | Recv | None = None


class State:
    """Memory and streams for a fixed number of images; bound once, reset before each run."""

    def __init__(
        self,
        program: Program,
        images: int,
        crossbars: Mapping[int, Mapping[str, Programmed]],
        tables: Mapping[str, Array],
        run_partition: RunPartition | None = None,
    ) -> None:
        self.program = program
        self.images = images
        self.ready: deque[Stream] = deque()
        self.globals = {
            t.name: Storage(t.name, np.zeros((images, *t.shape), DTYPES[t.dtype]))
            for t in program.tensors
            if t.role != "inner"
        }
        self.queues = {c.name: _queue(c, images) for c in program.channels}
        self._fills: list[tuple[Array, int]] = []
        self._scratch = np.empty(_scratch_bytes(program), np.uint8)
        self._tables = tables
        self._partitions = {part.name: part for part in program.partitions}
        self._run_partition = run_partition
        self.streams = [self._bind_core(core, crossbars[core.index]) for core in program.cores]

    def _bind_core(self, core: Core, crossbars: Mapping[str, Programmed]) -> Stream:
        storages = dict(self.globals)
        for buffer in core.buffers:
            array = np.zeros((self.images, *buffer.shape), DTYPES[buffer.dtype])
            storages[buffer.name] = Storage(buffer.name, array, buffer.ring)
            if buffer.fill is not None:
                self._fills.append((array, buffer.fill))
        stream = Stream(core, {}, [], dict.fromkeys(crossbars, 0), Progress(), _steps([], {}))
        binder = Binder(
            core=core.index,
            images=self.images,
            env=stream.env,
            storages=storages,
            matrices=crossbars,
            tables=self._tables,
            queues=self.queues,
            wake=self._wake,
            scratch=self._scratch,
            saturations=stream.saturations,
            progress=stream.progress,
            partitions=self._partitions,
            run_partition=self._run_partition,
        )
        stream.body = _bind_body(binder, core.body)
        return stream

    def _wake(self, queue: Queue) -> None:
        if queue.waiter is not None:
            self.ready.append(queue.waiter)
            queue.waiter = None

    def reset(self, trace: bool, first_image: int = 0) -> None:
        """Bring memory and streams to their state before the first instruction."""
        for array, value in self._fills:
            array.fill(value)
        carried = set()
        for queue in self.queues.values():
            queue.sizes.clear()
            queue.sent = queue.taken = 0
            queue.waiter = None
            carries = (queue.channel.carries, queue.channel.rows)
            first_carrier = carries[0] is not None and carries not in carried
            carried.add(carries)
            queue.record = [] if trace and first_carrier else None
        for stream in self.streams:
            stream.env.clear()
            stream.progress.first_image = first_image
            stream.progress.windows.clear()
            stream.waits_at = None
            stream.steps = _steps(stream.body, stream.env)
            for name in stream.saturations:
                stream.saturations[name] = 0

    def run(self) -> None:
        """Run every stream to its end. Raises PimError R711 when all that are left wait."""
        self.ready.extend(self.streams)
        running = set(self.streams)
        while self.ready:
            stream = self.ready.popleft()
            stream.waits_at = next(stream.steps, None)
            if stream.waits_at is None:
                running.discard(stream)
            else:
                self.queues[stream.waits_at.channel].waiter = stream
        if running:
            stuck = [(s, s.waits_at) for s in self.streams if s in running]
            raise PimError(self._deadlock(s, at) for s, at in stuck if at is not None)

    def _deadlock(self, stream: Stream, waits_at: Send | Recv) -> Diagnostic:
        name, mnemonic = waits_at.channel, waits_at.mnemonic
        queue = self.queues[name]
        held, depth = len(queue.sizes), len(queue.slots)
        at = ", ".join(f"{variable} = {value}" for variable, value in stream.env.items())
        return Diagnostic(
            "R711",
            f"deadlock: core {stream.core.index} waits at `{mnemonic}` on channel `{name}` "
            f"({held} of {depth} messages){' with ' + at if at else ''}",
            hint=f"`{name}` goes from core {queue.channel.source} to core {queue.channel.target}",
        )

    def add_saturations(self, counters: Counters) -> None:
        """Add what clipped since the last reset to the layers of the matrices."""
        for stream in self.streams:
            for matrix in stream.core.matrices:
                counters.layer(matrix.layer).saturations += stream.saturations[matrix.name]

    def traced(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """The tensors that channels carried, put together from the recorded messages.

        Of those of which some rows or channels went nowhere, because nobody needs them, also
        which did not: bool [rows, channels]. What went nowhere is 0.
        """
        tensors = {tensor.name: tensor for tensor in self.program.tensors}
        found: dict[str, Array] = {}
        seen: dict[str, Array] = {}
        for queue in self.queues.values():
            if queue.record is None or queue.channel.carries is None:
                continue
            name, first, stop = queue.channel.carries
            tensor = tensors[name]
            rows, columns = queue.channel.rows_of(tensor), tensor.shape[1]
            if name not in found:
                found[name] = np.zeros((self.images, *tensor.shape), DTYPES[tensor.dtype])
                seen[name] = np.zeros((tensor.shape[0], tensor.shape[2]), bool)
            messages = [np.zeros((self.images, 0), DTYPES[tensor.dtype]), *queue.record]
            values = np.concatenate(messages, axis=1)
            if values.shape[1] != len(rows) * columns * (stop - first):
                raise PimError(_wrong_carries(queue.channel, tensor, values.shape[1]))
            shape = (self.images, len(rows), columns, stop - first)
            found[name][:, rows, :, first:stop] = values.reshape(shape)
            seen[name][rows, first:stop] = True
        return found, {name: held for name, held in seen.items() if not held.all()}


def _wrong_carries(channel: Channel, tensor: Tensor, elements: int) -> Diagnostic:
    _, first, stop = channel.carries or ("", 0, 0)
    expected = len(channel.rows_of(tensor)) * tensor.shape[1] * (stop - first)
    return Diagnostic(
        "R712",
        f"channel `{channel.name}` carries channels {first}..{stop} of `{tensor.name}`, "
        f"{expected} elements, but {elements} were sent",
    )


def _queue(channel: Channel, images: int) -> Queue:
    elements = channel.shape[0] * channel.shape[1]
    return Queue(channel, np.zeros((channel.depth, images, elements), DTYPES[channel.dtype]))


def _scratch_bytes(program: Program) -> int:
    """Room for the windows of one image of the largest mvm, at least SCRATCH_BYTES."""
    needs = [SCRATCH_BYTES]
    for core in program.cores:
        inputs = {matrix.name: matrix.blocks.inputs for matrix in core.matrices}
        widths = {buffer.name: buffer.shape[1] for buffer in core.buffers}
        for i in walk(core.body):
            if isinstance(i, Mvm):
                columns = i.into.columns
                windows = widths.get(i.into.name, 0) if columns is None else columns.count
                needs.append(windows * inputs.get(i.matrix, 0))
    return max(needs)


def _bind_body(binder: Binder, body: tuple[Statement, ...]) -> list[_Bound | _BoundLoop]:
    """Bind every instruction of a stream, in text order."""
    bound: list[_Bound | _BoundLoop] = []
    for statement in body:
        if isinstance(statement, Instruction):
            bound.append(_Bound(_bind(binder, statement), statement))
        else:
            values = range(statement.start, statement.stop, statement.step)
            inner = _bind_body(binder, statement.body)
            bound.append(_BoundLoop(statement.variable, values, inner))
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


def _steps(
    body: list[_Bound | _BoundLoop],
    env: dict[str, int],
    variable: str = "",
    values: range = range(1),
) -> Generator[Send | Recv, None, None]:
    """Execute a stream, or all turns of a loop; yields the instruction at which it has to wait."""
    for value in values:
        if variable:
            env[variable] = value
        for item in body:
            if isinstance(item, _Bound):
                while not item.action():
                    assert isinstance(item.instruction, Send | Recv), "only these can wait"
                    yield item.instruction
            else:
                yield from _steps(item.body, env, item.variable, item.values)
    env.pop(variable, None)
