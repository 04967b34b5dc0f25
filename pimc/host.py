"""The host: runs the partitions of a program with onnxruntime, for the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from isa.diagnostics import Diagnostic, PimError
from isa.phases import Phases
from isa.program import DTYPES, Partition, Program, Tensor
from pimc.data import Array, to_machine_layout, to_onnx
from pimc.frontend.session import open_session
from runtime.host import RunPartition


def host_of(whole: Program | Phases) -> RunPartition | None:
    """Runs the partitions of a program or of phases; None when there are none to run.

    Raises PimError R715 for a model that onnxruntime refuses or whose ports do not fit.
    """
    sessions: dict[str, _Session] = {}
    for program in (whole,) if isinstance(whole, Program) else whole.programs:
        tensors = {tensor.name: tensor for tensor in program.tensors}
        sessions |= {part.name: _Session(part, tensors) for part in program.partitions}
    if not sessions:
        return None
    return lambda name, arrays: sessions[name].run(arrays)


class _Session:
    """One partition in onnxruntime: nodes as they are written, one thread, image by image."""

    def __init__(self, partition: Partition, tensors: dict[str, Tensor]) -> None:
        self._partition = partition
        self._inputs = [tensors[name] for name in partition.inputs]
        self._outputs = [tensors[name] for name in partition.outputs]
        try:
            model = onnx.load_from_string(partition.model)
            self._session: Any = open_session(model)
        except PimError as error:
            raise self._error(error.diagnostics[0].message) from error
        except Exception as error:  # protobuf raises its own, undocumented classes
            raise self._error(f"its model is damaged: {error}") from error
        self._ports = self._session.get_inputs()
        self._types = [
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        ]
        found = (len(self._ports), len(self._session.get_outputs()))
        wanted = (len(self._inputs), len(self._outputs))
        if found != wanted:
            text = "inputs and outputs"
            raise self._error(f"its model has {found} {text}, the program says {wanted}")

    def _error(self, problem: str) -> PimError:
        return PimError(Diagnostic("R715", f"partition `{self._partition.name}`: {problem}"))

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Results as tensors of the program, [images, rows, columns, channels]."""
        given = [to_onnx(t, values) for t, values in zip(self._inputs, arrays, strict=True)]
        images = len(arrays[0]) if arrays else 1
        single = [self._run_one([values[at] for values in given]) for at in range(images)]
        return [
            self._as_machine(tensor, [results[at] for results in single])
            for at, tensor in enumerate(self._outputs)
        ]

    def _run_one(self, values: list[Array]) -> list[Array]:
        feeds = {}
        ports = zip(self._ports, self._inputs, values, self._types, strict=True)
        for port, tensor, value, dtype in ports:
            single = value[None] if tensor.batched else value
            feeds[port.name] = np.asarray(single, dtype)
        try:
            return [np.asarray(array) for array in self._session.run(None, feeds)]
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            first = str(error).strip().splitlines()[0]
            raise self._error(f"onnxruntime cannot run it: {first}") from error

    def _as_machine(self, tensor: Tensor, results: list[Array]) -> Array:
        wanted = (1, *tensor.onnx_shape) if tensor.batched else tensor.onnx_shape
        for result in results:
            if result.shape != wanted:
                found = f"{list(result.shape)} for `{tensor.onnx_name}`, expected {list(wanted)}"
                raise self._error(f"its model gave {found}")
        values = np.stack([result.reshape(tensor.onnx_shape) for result in results])
        dtype = DTYPES[tensor.dtype]
        converted = values.astype(dtype)
        if values.dtype.kind in "iub" and not np.array_equal(converted, values):
            low, high = int(values.min()), int(values.max())
            raise self._error(f"`{tensor.onnx_name}` holds {low}..{high}, beyond {tensor.dtype}")
        return to_machine_layout(tensor, converted)
