"""Lower data movement: every operator rearranges element numbers, none makes a node by itself."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from passes.graph import LookupNode
from pimc.frontend.lower.model import ReferenceModel, attributes
from pimc.frontend.lower.state import CONSTANT, Elements, State
from pimc.frontend.regions import MOVES
from pimc.frontend.session import open_session

MOVE_OPS = MOVES | {"Concat", "Identity", "Where"}
_NOT_IN_ONNXRUNTIME = frozenset(("DepthToSpace", "SpaceToDepth"))  # on 32-bit integers


def lower_move(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """Apply one operator to the element numbers of its inputs."""
    if node.op_type == "Gather" and model.is_constant(node.input[0]):
        if node.input[1] in state.held:  # else a step of a softmax
            _lower_lookup(state, model, node)
        return
    sources = [name for name in node.input if name in state.held]
    if not sources:
        return  # behind a product of many rows, which has made the value of this result
    if node.op_type in ("Reshape", "Identity"):
        results = [state.elements(node.input[0])]
    elif node.op_type == "Concat":
        parts = [_elements(state, model, name) for name in node.input]
        results = [np.concatenate(parts, axis=int(attributes(node)["axis"]))]
    elif node.op_type == "Where":
        first, second = (_elements(state, model, name) for name in node.input[1:])
        results = [np.where(model.array(node.input[0]), first, second)]
    else:
        results = _moved(model, node, _with_batch(state, node.input[0]))
    for name, elements in zip(node.output, results, strict=True):
        if name in state.infos:
            state.moved(name, elements, state.held[sources[0]].qparams)


def _lower_lookup(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """Rows of a constant; what the integers mean, the first reader says."""
    numbers, output = node.input[1], node.output[0]
    source = state.value_of(numbers, 0)
    name = state.make(output, len(state.infos[output].shape) - 1, None)
    state.nodes.append(LookupNode(node.name, (source,), name, model.array(node.input[0])))


def _elements(state: State, model: ReferenceModel, name: str) -> Elements:
    """Element numbers of a tensor, or of a constant."""
    if name in state.held:
        return _with_batch(state, name)
    return CONSTANT - model.array(name).astype(np.int64)


def _with_batch(state: State, tensor: str) -> Elements:
    """Element numbers in the full ONNX shape, the batch axis being 1."""
    elements = state.elements(tensor)
    return elements[None] if state.infos[tensor].batched else elements


def _moved(model: ReferenceModel, node: onnx.NodeProto, elements: Elements) -> list[Elements]:
    """Run the operator on positions; -1 marks what it filled in."""
    positions = np.arange(elements.size, dtype=np.int32).reshape(elements.shape)
    fill = 0
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.INT32, elements.shape)]
    constants = []
    for place, name in enumerate(node.input[1:], 1):
        if not name:
            continue
        values = model.array(name)
        if node.op_type == "Pad" and place == 2:
            fill, values = int(values.reshape(())), np.array(-1, np.int32)
        constants.append(numpy_helper.from_array(values, f"c{place}"))
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    names = ["x"] + [f"c{at}" if name else "" for at, name in enumerate(node.input[1:], 1)]
    outputs = [f"y{at}" for at in range(len(node.output))]
    del copy.input[:], copy.output[:]
    copy.input.extend(names)
    copy.output.extend(outputs)
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.INT32, None) for n in outputs]
    graph = helper.make_graph([copy], "move", inputs, infos, constants)
    proto = helper.make_model(graph, opset_imports=model.proto.opset_import, ir_version=10)
    return [_placed(elements, result, fill) for result in _run(proto, node.op_type, positions)]


def _run(proto: onnx.ModelProto, op_type: str, x: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    if op_type in _NOT_IN_ONNXRUNTIME:
        return [np.asarray(r) for r in ReferenceEvaluator(proto).run(None, {"x": x})]
    return [np.asarray(r) for r in open_session(proto).run(None, {"x": x})]


def _placed(elements: Elements, positions: NDArray[np.int32], fill: int) -> Elements:
    taken = elements.reshape(-1)[np.maximum(positions, 0)]
    return np.where(positions < 0, CONSTANT - fill, taken)
