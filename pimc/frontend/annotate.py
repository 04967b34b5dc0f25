"""Annotate: turn Q/DQ pairs and QLinear operators into float operators with known quantization.

QuantizeLinear on an activation becomes the ``qparams`` of the tensor it reads, DequantizeLinear
an alias of the tensor it reads, and on constants both become ``Quantized`` constants that keep
the user's integers. What cannot be told that way stays as explicit operators of a region.
"""

from __future__ import annotations

import onnx

_INT_TYPES = {
    onnx.TensorProto.INT8: "s8",
    onnx.TensorProto.UINT8: "u8",
}
