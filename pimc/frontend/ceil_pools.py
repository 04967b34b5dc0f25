"""Ceil pools: write out what onnx's shape inference and onnxruntime count differently.

Both round up with ceil_mode, but onnxruntime leaves a window out that would start in the padding:
explicit pads mean the same to both. A transposed convolution whose auto_pad is SAME gives as many
places as strides in onnxruntime, and onnx adds its output_padding: an explicit output_shape.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, shape_inference


def resolve_ceil_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace ceil_mode=1 by pads wherever the input shape is known, in place; return the model.

    An AveragePool that counts its padding keeps ceil_mode when its last window reaches beyond the
    pads: elements there do not count, and no pads can say so.
    """
    waiting = [n for n in model.graph.node if _attributes(n).get("ceil_mode")]
    while waiting:
        shapes = _shapes(model)
        node = waiting.pop(0)
        sizes = shapes.get(node.input[0])
        if node.op_type in ("MaxPool", "AveragePool") and sizes is not None:
            _resolve(node, sizes[2:])
    return model


def window_count(size: int, begin: int, end: int, reach: int, stride: int) -> int:
    """Windows along an axis with ceil_mode: none starts behind the input and its begin pads."""
    count = -(-(size + begin + end - reach) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + begin else count


def resolve_same(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give transposed convolutions with SAME pads an output_shape, in place; return the model."""
    waiting = [n for n in model.graph.node if n.op_type == "ConvTranspose" and not n.domain]
    waiting = [n for n in waiting if _attributes(n).get("auto_pad", b"").startswith(b"SAME")]
    for node in waiting:
        sizes = _shapes(model).get(node.input[0])
        given = _attributes(node)
        if sizes is not None and given.get("output_padding") and "output_shape" not in given:
            strides = given.get("strides") or [1] * len(sizes[2:])
            places = [size * stride for size, stride in zip(sizes[2:], strides, strict=True)]
            node.attribute.append(helper.make_attribute("output_shape", places))
    return model


def _resolve(node: onnx.NodeProto, sizes: tuple[int, ...]) -> None:
    given = _attributes(node)
    if given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return  # SAME and VALID know no ceil_mode in onnxruntime
    kernel = list(given["kernel_shape"])
    axes = len(kernel)
    strides = given.get("strides") or [1] * axes
    dilations = given.get("dilations") or [1] * axes
    pads = list(given.get("pads") or [0] * 2 * axes)
    counts_padding = bool(given.get("count_include_pad")) and any(pads)
    ends = []
    for axis in range(axes):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        begin, end = pads[axis], pads[axis + axes]
        count = window_count(sizes[axis], begin, end, reach, strides[axis])
        is_whole = count == 1 and reach >= sizes[axis] + begin and dilations[axis] == 1
        if is_whole and not counts_padding:  # only the elements of the input count
            kernel[axis], pads[axis], reach, begin = sizes[axis], 0, sizes[axis], 0
        ends.append(max((count - 1) * strides[axis] + reach - sizes[axis] - begin, 0))
    grows = any(new > old for new, old in zip(ends, pads[axes:], strict=True))
    if grows and counts_padding:
        return
    changed = {"pads": [*pads[:axes], *ends], "kernel_shape": kernel}
    kept = [a for a in node.attribute if a.name not in ("ceil_mode", *changed)]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in changed.items())])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes that are fully known."""
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError:
        return {}  # the strict inference at the end of the normalization will say why
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = tuple(d.dim_value for d in dims)
    return found
