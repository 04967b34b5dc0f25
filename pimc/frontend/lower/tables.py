"""Tables: the 256 results of every float region of the reference, computed by onnxruntime.

All regions of a model run in one session, each on all values of its input type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from pimc.frontend.net import Array, IntArray
from pimc.frontend.session import open_session


@dataclass(frozen=True, eq=False)
class FloatRegion:
    """Nodes from the DequantizeLinear of ``root`` to what makes ``output``, integers or floats.

    rank: number of axes of the root, batch included; axis: the one along which constants vary.
    channels: its size. elem_type, output_type: ONNX types of root and output.
    """

    root: str
    output: str
    nodes: tuple[onnx.NodeProto, ...]
    elem_type: int
    output_type: int
    rank: int
    axis: int | None
    channels: int


def make_tables(
    regions: Sequence[FloatRegion],
    initializers: dict[str, onnx.TensorProto],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> dict[str, Array]:
    """Output name -> table [256], or [channels, 256] where the channels differ."""
    if not regions:
        return {}
    model, feeds = _model(regions, initializers, opsets)
    results = open_session(model).run(None, feeds)
    return {
        region.output: _table(region, np.asarray(result))
        for region, result in zip(regions, results, strict=True)
    }


def _model(
    regions: Sequence[FloatRegion],
    initializers: dict[str, onnx.TensorProto],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> tuple[onnx.ModelProto, dict[str, IntArray]]:
    nodes, inputs, outputs = [], [], []
    feeds: dict[str, IntArray] = {}
    used: dict[str, onnx.TensorProto] = {}
    for number, region in enumerate(regions):
        prefix = f"region{number}/"
        names = {region.root: f"{prefix}input"}
        for node in region.nodes:
            names |= {name: prefix + name for name in node.output}
        for node in region.nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:], copy.output[:]
            copy.input.extend(names.get(name, name) for name in node.input)
            copy.output.extend(names[name] for name in node.output)
            nodes.append(copy)
            used |= {name: initializers[name] for name in node.input if name in initializers}
        values = _all_values(region)
        feeds[f"{prefix}input"] = values
        inputs.append(
            helper.make_tensor_value_info(f"{prefix}input", region.elem_type, values.shape)
        )
        output = names[region.output]
        outputs.append(helper.make_tensor_value_info(output, region.output_type, None))
    graph = helper.make_graph(nodes, "tables", inputs, outputs, list(used.values()))
    return helper.make_model(graph, opset_imports=list(opsets), ir_version=10), feeds


def _all_values(region: FloatRegion) -> IntArray:
    """Every 8-bit integer along axis 0, repeated along the channel axis."""
    dtype = helper.tensor_dtype_to_np_dtype(region.elem_type)
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1).astype(dtype)
    shape = [256] + [1] * (region.rank - 1)
    if region.axis == 0:  # no batch axis in front: values go before the channels
        shape = [256, region.channels] + [1] * (region.rank - 1)
    elif region.axis is not None:
        shape[region.axis] = region.channels
    lined = values.reshape(256, *(1 for _ in shape[1:]))
    return np.ascontiguousarray(np.broadcast_to(lined, shape))


def _table(region: FloatRegion, results: NDArray[np.generic]) -> Array:
    table = np.ascontiguousarray(results.reshape(256, -1).T)  # [channels or 1, 256]
    is_shared = bool((table == table[0]).all())
    return np.asarray(table[0] if is_shared else table)
