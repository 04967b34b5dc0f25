"""Lower: from ``reference.onnx`` to the Graph of the passes, one module per family of operators."""
