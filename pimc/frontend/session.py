"""Session: onnxruntime with one thread and no graph rewriting, imported when it is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from isa.diagnostics import Diagnostic, Location, PimError
from pimc.frontend.net import Array

SILENT = 4  # onnxruntime's own log repeats on stderr what its exceptions say


def open_session(model: onnx.ModelProto, optimized: Path | None = None) -> Any:
    """An inference session that computes the model as it is written.

    optimized: a file for the model as onnxruntime rewrites it, which is then what is computed.
    Raises PimError F240 when onnxruntime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(optimized)
    options.intra_op_num_threads = 1
    options.log_severity_level = SILENT
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise runtime_error("refuses the model", error) from error


def runtime_error(what: str, error: Exception) -> PimError:
    """F240: what onnxruntime says, without the places in its own source, at the node it names."""
    text = " ".join(str(error).split())
    node = re.search(r"running (\w+) node\. Name:'([^']*)' Status Message: (.*)", text)
    at = None
    if node is not None:
        label = f"{node[1]} `{node[2]}`"
        at, text = Location(node=label), f"{label}: {node[3]}"
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/onnxruntime_src/\S+:\d+ \w.*?\) (?=[A-Zi])", "", text)
    return PimError(Diagnostic("F240", f"onnxruntime {what}: {text}", at))


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
            shape = [dim.dim_value for dim in tensor.shape.dim]
            try:
                feeds[value.name] = np.zeros(shape, dtype)
            except (MemoryError, ValueError) as error:  # too large to be held, or to be counted
                raise runtime_error("cannot be given zeros", error) from error
    names = [output.name for output in session.get_outputs()]
    try:
        results = session.run(names, feeds)
    except Exception as error:
        raise runtime_error("cannot run the model", error) from error
    return dict(zip(names, results, strict=True))
