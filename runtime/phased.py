"""A model in phases on the machine: every phase over all images, then the next one."""

from __future__ import annotations

from collections.abc import Mapping

from isa.phases import Phases
from isa.program import Program
from isa.target import Target
from runtime.counters import Counters
from runtime.host import RunPartition
from runtime.machine import Machine, RunResult
from runtime.regions import Array


class PhasedMachine:
    """The machines of all phases; between them tensors stand in global memory.

    program: the interface of the whole (`isa.phases.Phases.interface`).
    """

    def __init__(
        self, phases: Phases, target: Target, run_partition: RunPartition | None = None
    ) -> None:
        self.program = phases.interface
        self._phases = phases
        self._machines = [
            Machine(program, target, run_partition=run_partition) for program in phases.programs
        ]

    def run(
        self, inputs: Mapping[str, Array], trace: bool = False, first_image: int = 0, jobs: int = 1
    ) -> RunResult:
        """As `Machine.run`. A traced run also gives what phases store for later ones."""
        held, counters = dict(inputs), Counters(images=0)
        tensors, carried = dict[str, Array](), dict[str, Array]()
        for machine in self._machines:
            names = [t.name for t in machine.program.tensors if t.role == "input"]
            given = {name: held[name] for name in names if name in held}
            result = machine.run(given, trace, first_image, jobs)
            held |= result.outputs
            tensors |= result.tensors
            carried |= result.carried
            counters.add(result.counters)
        counters.images //= len(self._machines)
        outputs = {name: held[name] for name in self._phases.outputs}
        if trace:
            stored = held.keys() - inputs.keys() - outputs.keys()
            tensors |= {name: held[name] for name in sorted(stored)}
            carried = {name: part for name, part in carried.items() if name not in stored}
        return RunResult(outputs, counters, tensors, carried)


def machine_of(
    program: Program | Phases, target: Target, run_partition: RunPartition | None = None
) -> Machine | PhasedMachine:
    """The machine for a program or for phases."""
    if isinstance(program, Phases):
        return PhasedMachine(program, target, run_partition)
    return Machine(program, target, run_partition=run_partition)
