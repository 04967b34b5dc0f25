"""Layout: what onnxruntime saves at ORT_ENABLE_ALL, whose channels stand in blocks, as ONNX.

The blocks have the size that suits the processor which onnxruntime runs on; a file says nothing
about it. Here as there it is the processor of this machine. Channels that only fill up a last
block stay: they have weights of zero.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from pimc.frontend.net import LAYOUT, Array
from pimc.frontend.session import open_session
from pimc.frontend.spelling import TO_FIRST, TO_LAST, WINDOW, Speller, Spelling, shape_of

Results = list[ir.Value | None]


def spell_layouts(model: ir.Model) -> None:
    """Write all operators on blocks of channels out, in place; or none, if one is not known."""
    spellings = [Spelling(node) for node in model.graph if node.domain == LAYOUT]
    if not all(_is_known(each) for each in spellings):
        return
    found = [_SPELLERS[each.node.op_type](each) for each in spellings]
    if any(results is None for results in found):
        return
    for each, results in zip(spellings, found, strict=True):
        each.replace(results or [])


def _is_known(write: Spelling) -> bool:
    known = write.node.op_type in _SPELLERS
    return known and len(shape_of(write.input(0)) or ()) == 4


@cache
def block_size() -> int:
    """Channels of a block on this machine: what a convolution to one channel is filled up to."""
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    ports = [helper.make_tensor_value_info(name, 1, [1, 1, 1, 1]) for name in "xy"]
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "block", ports[:1], ports[1:], [weight])
    opsets = [helper.make_opsetid("", 17)]
    with tempfile.TemporaryDirectory(prefix="pimc-") as folder:
        target = Path(folder) / "block.onnx"
        open_session(helper.make_model(graph, opset_imports=opsets, ir_version=8), target)
        weights = onnx.load(target).graph.initializer
    return int(max(tensor.dims[0] for tensor in weights))


def _weights(held: Array, block: int) -> Array:
    """Weights [outputs, inputs of a group, rows, columns] in their usual order."""
    outputs, inputs, rows, columns = held.shape
    if inputs % block:
        blocks = held.reshape(outputs // block, inputs, rows, columns, block)
        return blocks.transpose(0, 4, 1, 2, 3).reshape(held.shape)
    blocks = held.reshape(outputs // block, inputs // block, rows, columns, block, block)
    return blocks.transpose(0, 5, 1, 4, 2, 3).reshape(held.shape)


def _conv(write: Spelling) -> Results | None:
    """A convolution with bias, sum and activation; few input channels stand in no blocks."""
    held, block = write.array(1), block_size()
    if held is None or held.ndim != 4 or held.shape[0] % block:
        return None
    weights = write.constant("weights", np.ascontiguousarray(_weights(held, block)))
    return write.convolved((write.input(0), weights, write.input(2)), write.input(3))


def _into_blocks(write: Spelling) -> Results:
    """Channels are filled up with zeros."""
    source = write.input(0)
    assert source is not None
    if write.number("channels_last"):
        source = write.turned(source, TO_FIRST, "channels")
    result = shape_of(write.node.outputs[0]) or ()
    given = shape_of(write.input(0)) or ()
    missing = result[1] - given[3 if write.number("channels_last") else 1]
    pads = write.constant("pads", np.array([0, 0, 0, 0, 0, missing, 0, 0]))
    return [write.op("Pad", (source, pads))]


def _out_of_blocks(write: Spelling) -> Results:
    """The channels that are none of those."""
    count = int(write.number("channels"))
    limits = [write.constant(name, np.array([n])) for name, n in (("a", 0), ("b", count), ("c", 1))]
    result = write.op("Slice", (write.input(0), *limits))
    if write.number("channels_last"):
        result = write.turned(result, TO_LAST, "places")
    return [result]


def _pool(write: Spelling) -> Results:
    attributes = write.attributes(*WINDOW, "ceil_mode", "count_include_pad")
    return [write.op(write.node.op_type, (write.input(0),), **attributes)]


_SPELLERS: Final[dict[str, Speller]] = {
    "Conv": _conv,
    "ReorderInput": _into_blocks,
    "ReorderOutput": _out_of_blocks,
    **dict.fromkeys(("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
}
