"""Grid: let integer weights stand in a float model so that quantization cannot change them.

A translated pattern equals its source in *integers*. A frontend that quantized float weights anew
would choose other scales and break that, so they are written as the int8 constants they are, with
a DequantizeLinear behind; to onnxruntime the model is a float model as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from pimc.compress.layers import MatrixLayer, onnx_weights, replace_tensor
from pimc.compress.treat import Grid

_PER_AXIS_OPSET = 13  # the first DequantizeLinear with an axis


def hold_integers(
    model: onnx.ModelProto, layers: Sequence[MatrixLayer], grids: Mapping[str, Grid]
) -> onnx.ModelProto:
    """A copy of ``model`` in which the weights of ``grids`` are int8 constants.

    Below opset 13 there is no per-channel DequantizeLinear and the weights stay floats: convert
    the model first when the translation is to survive.
    """
    held = onnx.ModelProto()
    held.CopyFrom(model)
    opset = max((e.version for e in held.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if opset < _PER_AXIS_OPSET:
        return held
    nodes = []
    for layer in layers:
        if layer.weight not in grids:
            continue
        grid = grids[layer.weight]
        integers, scale = f"{layer.weight}_integers", f"{layer.weight}_scale"
        replace_tensor(held, integers, onnx_weights(layer, grid.integers).astype(np.int8))
        replace_tensor(held, scale, grid.scale)
        axis = 0 if layer.weight_first else 1
        nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [integers, scale],
                [layer.weight],
                name=f"{layer.name}_weights",
                axis=axis,
            )
        )
    replaced = {node.output[0] for node in nodes}
    floats = [t for t in held.graph.initializer if t.name not in replaced]
    rest = list(held.graph.node)
    del held.graph.initializer[:], held.graph.node[:]
    held.graph.initializer.extend(floats)
    held.graph.node.extend([*nodes, *rest])
    return held
