"""The machine in motion: memories, queues and one stream per core, for a fixed number of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from isa.catalog import Mvm, Recv, Send
from isa.diagnostics import Diagnostic, PimError
from isa.program import DTYPES, Channel, Core, Program, Tensor, walk
from runtime.binding import Binder, Programmed, Progress, Queue
from runtime.counters import Counters
from runtime.engine import Engine, NotInC
from runtime.host import RunPartition
from runtime.kernel import Kernel
from runtime.regions import Array, Storage
from runtime.streams import PythonEngine, Stream, bind_stream

SCRATCH_BYTES = 1 << 19  # gathered windows of one kernel call; half of a usual L2 cache


class State:
    """Memory and streams for a fixed number of images; bound once, reset before each run."""

    def __init__(
        self,
        program: Program,
        images: int,
        crossbars: Mapping[int, Mapping[str, Programmed]],
        tables: Mapping[str, Array],
        kernel: Kernel,
        run_partition: RunPartition | None = None,
    ) -> None:
        self.program = program
        self.images = images
        self._ready: deque[Stream] = deque()
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
        self.engine = self._make_engine(kernel)

    def _make_engine(self, kernel: Kernel) -> Engine | PythonEngine:
        try:
            return Engine(self.streams, self.queues, kernel)
        except NotInC as error:
            if kernel.streams == "c":
                message = f"PIMC_STREAMS=c, but C does not take the program: {error}"
                raise PimError(Diagnostic("R720", message)) from error
            return PythonEngine(self.streams, self.queues, self._ready)

    def _bind_core(self, core: Core, crossbars: Mapping[str, Programmed]) -> Stream:
        storages = dict(self.globals)
        for buffer in core.buffers:
            array = np.zeros((self.images, *buffer.shape), DTYPES[buffer.dtype])
            storages[buffer.name] = Storage(buffer.name, array, buffer.ring)
            if buffer.fill is not None:
                self._fills.append((array, buffer.fill))
        binder = Binder(
            core=core.index,
            images=self.images,
            env={},
            storages=storages,
            matrices=crossbars,
            tables=self._tables,
            queues=self.queues,
            wake=self._wake,
            scratch=self._scratch,
            saturations=dict.fromkeys(crossbars, 0),
            progress=Progress(),
            partitions=self._partitions,
            run_partition=self._run_partition,
        )
        return bind_stream(core, binder)

    def _wake(self, queue: Queue) -> None:
        if queue.waiter is not None:
            self._ready.append(queue.waiter)
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
            binder = stream.binder
            binder.env.clear()
            binder.progress.first_image = first_image
            binder.progress.windows.clear()
            stream.waits_at = None
            for name in binder.saturations:
                binder.saturations[name] = 0

    def run(self) -> None:
        """Run every stream to its end. Raises PimError R711 when all that are left wait."""
        stuck = [(stream, stream.waits_at) for stream in self.engine.run()]
        if stuck:
            raise PimError(self._deadlock(s, at) for s, at in stuck if at is not None)

    def _deadlock(self, stream: Stream, waits_at: Send | Recv) -> Diagnostic:
        name, mnemonic = waits_at.channel, waits_at.mnemonic
        queue = self.queues[name]
        held, depth = len(queue.sizes), len(queue.slots)
        at = ", ".join(f"{variable} = {value}" for variable, value in stream.binder.env.items())
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
                counters.layer(matrix.layer).saturations += stream.binder.saturations[matrix.name]

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
