"""Host: the instruction that hands whole tensors to whoever runs partitions, and takes its results.

The machine knows no ONNX: it is given a function that does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isa.catalog import Host
from isa.diagnostics import Diagnostic, PimError
from runtime.binding import Action, Binder, executes
from runtime.regions import Array

RunPartition = Callable[[str, Sequence[Array]], Sequence[Array]]


@executes(Host)
def host(bind: Binder, i: Host) -> Action:
    """Inputs and results are [images, rows, columns, channels], as the tensors are declared.

    A partition without inputs computes the same for every image: its results have one.
    """
    partition = bind.partitions[i.partition]
    sources = [bind.storages[name].array for name in partition.inputs]
    targets = [bind.storages[name].array for name in partition.outputs]
    run = bind.run_partition
    if run is None:
        raise PimError(
            Diagnostic(
                "R715",
                f"partition `{i.partition}` runs on the host, and the machine was given none",
                hint="`pimc run` and `CompiledProgram.run` use onnxruntime",
            )
        )

    def action() -> bool:
        results = run(i.partition, sources)
        for name, target, result in zip(partition.outputs, targets, results, strict=True):
            shape = target.shape if sources else (1, *target.shape[1:])
            if result.shape != shape or result.dtype != target.dtype:
                found = f"{result.dtype.name} {list(result.shape)}"
                wanted = f"{target.dtype.name} {list(shape)}"
                message = f"partition `{i.partition}` gave {found} for `{name}`, expected {wanted}"
                raise PimError(Diagnostic("R715", message))
            np.copyto(target, result)
        return True

    return action
