"""Emit: write a quantized Net as ``reference.onnx``, one module per family of operators."""
