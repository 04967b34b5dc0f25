"""The oracle: onnxruntime on any number of samples, whatever batch a model is fixed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pimc.data import Array
from pimc.frontend.session import SILENT, runtime_error


class Oracle:
    """A model in onnxruntime, which computes its nodes as they are written, with all threads.

    Graph rewriting is off: the nodes as written are the definition that a program must equal.
    """

    def __init__(
        self, model: onnx.ModelProto, batched: Mapping[str, bool], is_single: bool = False
    ) -> None:
        """Load ``model``.

        batched: by input name, whether axis 0 of that input is the batch. is_single: run one
        sample at a time, because some wanted tensor has no batch axis.
        Raises PimError F240 when onnxruntime refuses the model.
        """
        self._batched = batched
        self._batch = _fixed_batch(model, batched) or int(is_single or not all(batched.values()))
        self._session = _session(model)
        self._types = {
            value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }

    def run(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The tensors ``names`` for samples [n, ...] by input name, each [n, ...].

        Samples that ran one at a time keep their batch axis of 1, if any, behind that n.
        Raises PimError F240 when onnxruntime cannot run the model on them.
        """
        samples = len(next(iter(feeds.values())))
        step = self._batch or samples
        parts = [self._chunk(names, feeds, at, step) for at in range(0, samples, step)]
        return [np.concatenate(arrays)[:samples] for arrays in zip(*parts, strict=True)]

    def _chunk(
        self, names: Sequence[str], feeds: Mapping[str, Array], at: int, step: int
    ) -> list[Array]:
        """One run on ``step`` samples; the last sample is repeated to fill a fixed batch."""
        ready = {}
        for name, values in feeds.items():
            chunk = values[at : at + step]
            # row numbers are 32 bits here and maybe 64 there, floats of another width
            chunk = chunk.astype(self._types[name], copy=False)
            filled = np.concatenate([chunk, *[chunk[-1:]] * (step - len(chunk))])
            ready[name] = filled if self._batched[name] else np.asarray(filled[0])
        try:
            found = [np.asarray(array) for array in self._session.run(list(names), ready)]
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            raise runtime_error("cannot run the model", error) from error
        return [array[None] for array in found] if step == 1 else found


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that also returns the inner tensors ``names``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            copy.graph.output.append(helper.make_empty_tensor_value_info(name))
    return copy


def integer_sources(model: onnx.ModelProto) -> dict[str, str]:
    """The integer tensor behind each output that a DequantizeLinear makes."""
    outputs = {output.name for output in model.graph.output}
    return {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs
    }


def _fixed_batch(model: onnx.ModelProto, batched: Mapping[str, bool]) -> int:
    """The batch size that the inputs of a model are fixed to, 0 when it is free."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if batched.get(value.name) and dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return 0


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime  # late: it takes a quarter of a second to load

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = SILENT
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise runtime_error("refuses the model", error) from error
