"""Session: onnxruntime with one thread and no graph rewriting, imported when it is needed."""

from __future__ import annotations

from typing import Any

import onnx

from isa.diagnostics import Diagnostic, PimError


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
