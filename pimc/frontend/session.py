"""Session: onnxruntime with one thread and no graph rewriting, imported when it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from isa.diagnostics import Diagnostic, PimError
from pimc.frontend.net import Array


def open_session(model: onnx.ModelProto) -> Any:
    """An inference session that computes the model as it is written.

    Raises PimError F240 when onnxruntime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        first = str(error).strip().splitlines()[0]
        raise PimError(Diagnostic("F240", f"onnxruntime refuses the model: {first}")) from error


def run_on_zeros(model: onnx.ModelProto) -> dict[str, Array]:
    """All outputs of a model with fixed input shapes, by name, for inputs of zeros.

    Raises PimError F240 when onnxruntime cannot load or run it.
    """
    session = open_session(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            feeds[value.name] = np.zeros([dim.dim_value for dim in tensor.shape.dim], dtype)
    names = [output.name for output in session.get_outputs()]
    try:
        results = session.run(names, feeds)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise PimError(Diagnostic("F240", f"onnxruntime cannot run the model: {first}")) from error
    return dict(zip(names, results, strict=True))
