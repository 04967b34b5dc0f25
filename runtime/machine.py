"""The machine: cores as independent streams that run a program on a batch of images in lockstep.

All images of a batch go through one instruction together (control flow never depends on data),
so one dispatch serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isa.diagnostics import Findings
from isa.program import DTYPES, Program, Tensor
from isa.target import Target
from runtime import execute, host, normalize, real, vector
from runtime.binding import Programmed
from runtime.counters import Counters, count_program
from runtime.input_zeros import counting_crossbars, fires_skipped
from runtime.kernel import choose_kernel
from runtime.parallel import in_processes, shares
from runtime.paths import Crossbars
from runtime.regions import Array
from runtime.state import State

STATE_BYTES = 1 << 28  # buffers and queues of all images that run in lockstep
EXECUTOR_MODULES = (
    execute,
    host,
    vector,
    normalize,
    real,
)  # importing them fills binding.EXECUTORS


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run gives.

    outputs: per output tensor, [images, rows, columns, channels]. tensors: the same for every
    tensor that travels on a channel, in a traced run. carried: of those of which only a part
    travels, which, bool [rows, channels]; the rest is 0. counters: events over all images.
    """

    outputs: dict[str, Array]
    counters: Counters
    tensors: dict[str, Array] = field(default_factory=dict)
    carried: dict[str, Array] = field(default_factory=dict)

    def seen(self) -> dict[str, tuple[Array, Array]]:
        """Every tensor that a run shows, and which of its elements it shows, bool of its shape."""
        parts = {name: self.carried[name][:, None] for name in self.carried.keys() - self.outputs}
        return {
            name: (values, np.broadcast_to(parts.get(name, True), values.shape))
            for name, values in (self.tensors | self.outputs).items()
        }


def exact_crossbars(program: Program, target: Target) -> Mapping[int, Mapping[str, Programmed]]:
    """Every matrix on its quickest exact path; it counts zeros where the target skips them.

    Raises PimError R720.
    """
    if target.inputs.skip != "none":
        return counting_crossbars(program, target)
    kernel = choose_kernel()
    return {
        core.index: {
            m.name: Crossbars(m.blocks, target.adc_max, kernel, m.name) for m in core.matrices
        }
        for core in program.cores
    }


class Machine:
    """A program with its crossbars programmed; run it as often as you like.

    crossbars: core -> matrix name -> what takes the place of the exact products, such as a
    device with imperfections. run_partition: runs a partition of the host on the arrays of its
    inputs; a program without partitions needs none. Raises PimError R713 when the program names
    what it does not declare.
    """

    def __init__(
        self,
        program: Program,
        target: Target,
        crossbars: Mapping[int, Mapping[str, Programmed]] | None = None,
        run_partition: host.RunPartition | None = None,
    ) -> None:
        self.program = program
        self.target = target
        self._crossbars = exact_crossbars(program, target) if crossbars is None else crossbars
        self._tables = {table.name: table.values for table in program.tables}
        self._kernel = choose_kernel()
        self._run_partition = run_partition
        self._state: State | None = None
        self._events: Counters | None = None

    def run(
        self, inputs: Mapping[str, Array], trace: bool = False, first_image: int = 0, jobs: int = 1
    ) -> RunResult:
        """Run all images and return their outputs.

        inputs: per input tensor of the program, integers [images, rows, columns, channels] of
        the tensor's type. trace: also collect every tensor that travels on a channel.
        first_image: index of the first image, where noise is drawn: the same images give the
        same noise however they are split over runs. jobs: processes, each with its own share of
        the images; the result does not depend on it.
        Raises PimError R701 for wrong inputs, R711 for a deadlock, R710 and R712 where a program
        that was never verified leaves its buffers or sends messages of the wrong size, R721 for a
        process that ends early.
        """
        images = check_inputs(self.program, inputs)
        if jobs == 1 or images == 1:
            return self._run(inputs, slice(0, images), trace, first_image)

        def run_share(share: slice) -> RunResult:
            return self._run(inputs, share, trace, first_image)

        results = in_processes(run_share, shares(images, jobs))
        counters = Counters(images=0)
        for result in results:
            counters.add(result.counters)
        outputs = _join([result.outputs for result in results])
        tensors = _join([result.tensors for result in results])
        return RunResult(outputs, counters, tensors, results[0].carried)

    def _run(
        self, inputs: Mapping[str, Array], share: slice, trace: bool, first_image: int
    ) -> RunResult:
        """Run the images of ``share`` one after another, as many in lockstep as memory takes."""
        images = share.stop - share.start
        clipped = Counters()
        skipped_before = fires_skipped(self.program, self.target, self._crossbars)
        chunk = max(1, min(images, STATE_BYTES // self._bytes_per_image()))
        parts, carried = [], dict[str, Array]()
        for first in range(share.start, share.stop, chunk):
            count = min(chunk, share.stop - first)
            batch = {name: values[first : first + count] for name, values in inputs.items()}
            state = self._run_chunk(count, batch, trace, first_image + first)
            tensors, carried = state.traced() if trace else ({}, {})
            parts.append((self._outputs(state), tensors))
            state.add_saturations(clipped)
        if self._events is None:
            self._events = count_program(self.program, self.target)
        counters = self._events.scaled(images)
        for name, layer in clipped.layers.items():
            counters.layer(name).add(layer)
        skipped = fires_skipped(self.program, self.target, self._crossbars)
        for name, count in skipped.items():
            counters.layer(name).fires_skipped += count - skipped_before[name]
        outputs, traced = zip(*parts, strict=True)
        return RunResult(_join(outputs), counters, _join(traced), carried)

    def paths(self) -> dict[tuple[int, str], str]:
        """The path that each (core, matrix) takes; the words are those of `Crossbars.path`."""
        return {
            (core, name): crossbars.path
            for core, matrices in self._crossbars.items()
            for name, crossbars in matrices.items()
        }

    def _bytes_per_image(self) -> int:
        buffers = sum(buffer.bytes for core in self.program.cores for buffer in core.buffers)
        buffers += sum(tensor.bytes for tensor in _with_role(self.program, "host"))
        return max(1, buffers + sum(channel.bytes for channel in self.program.channels))

    def _run_chunk(
        self, images: int, inputs: Mapping[str, Array], trace: bool, first_image: int
    ) -> State:
        if self._state is None or self._state.images != images:
            self._state = State(
                self.program,
                images,
                self._crossbars,
                self._tables,
                self._kernel,
                self._run_partition,
            )
        self._state.reset(trace, first_image)
        for name, values in inputs.items():
            np.copyto(self._state.globals[name].array, values)
        self._state.run()
        return self._state

    def _outputs(self, state: State) -> dict[str, Array]:
        names = [tensor.name for tensor in _with_role(self.program, "output")]
        return {name: state.globals[name].array.copy() for name in names}


def _with_role(program: Program, role: str) -> list[Tensor]:
    return [tensor for tensor in program.tensors if tensor.role == role]


def check_inputs(program: Program, inputs: Mapping[str, Array]) -> int:
    """Return the number of images, or raise PimError R701 with everything that is wrong."""
    findings = Findings()
    wanted = {tensor.name: tensor for tensor in _with_role(program, "input")}
    for name in inputs.keys() - wanted.keys():
        hint = f"the inputs are: {', '.join(wanted) or 'none'}"
        findings.error("R701", f"the program has no input `{name}`", hint=hint)
    counts: dict[str, int] = {}
    for name, tensor in wanted.items():
        dims = ", ".join(str(size) for size in tensor.shape)
        expected = f"{DTYPES[tensor.dtype].name} [images, {dims}]"
        values = inputs.get(name)
        if values is None:
            findings.error("R701", f"input `{name}` is missing", hint=f"expected {expected}")
            continue
        if values.dtype != DTYPES[tensor.dtype] or values.shape[1:] != tensor.shape:
            found = f"{values.dtype.name} {list(values.shape)}"
            findings.error("R701", f"input `{name}`: expected {expected}, found {found}")
        elif len(values) == 0:
            findings.error("R701", f"input `{name}` has no images")
        counts[name] = len(values) if values.ndim else 0
    if len(set(counts.values())) > 1:
        text = ", ".join(f"`{name}` {count}" for name, count in counts.items())
        findings.error("R701", f"the inputs differ in their number of images: {text}")
    findings.raise_if_any()
    return next(iter(counts.values()), 1)


def _join(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Put the tensors of successive images together."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
