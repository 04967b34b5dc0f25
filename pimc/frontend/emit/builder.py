"""Builder: the reference model while it grows, and the names of its integer tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pimc.frontend.export import opsets_of
from pimc.frontend.net import ONNX_TYPES, Array, Net, QParams
from pimc.frontend.regions import is_bool

IR_VERSION = 10
BATCH = "batch"
SUFFIX = "_quantized"  # of the integer tensor that holds a float tensor


class Builder:
    """Collects nodes, initializers and shapes; ``ints`` maps a net tensor to its integer tensor."""

    def __init__(self, net: Net, qparams: dict[str, QParams]) -> None:
        self.net = net
        self.qparams = qparams
        self.ints: dict[str, str] = {}
        self.raw: dict[str, str] = {}  # net tensor that the host has as it is -> its name here
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._infos: list[onnx.ValueInfoProto] = []
        self._node_names: set[str] = set()
        self._requantized: dict[tuple[str, QParams, str], str] = {}
        self._used = {port.name for port in (*net.inputs, *net.outputs)}

    def unique(self, wish: str) -> str:
        """A tensor name that the reference does not use yet."""
        name, number = wish, 1
        while name in self._used:
            name, number = f"{wish}_{number}", number + 1
        self._used.add(name)
        return name

    def constant(self, wish: str, values: Array | np.generic) -> str:
        """Add an initializer and return its name; equal ones of one wish are added once."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)))
        key = wish
        number = 1
        while key in self._initializers:
            known = self._initializers[key]
            if known.raw_data == tensor.raw_data and known.dims == tensor.dims:
                return key
            key, number = f"{wish}_{number}", number + 1
        key = self.unique(key) if key in self._used else key
        self._used.add(key)
        tensor.name = key
        self._initializers[key] = tensor
        return key

    def hold(self, tensor: str, wish: str | None = None) -> str:
        """Declare the integer tensor that holds ``tensor``; the node to be added makes it."""
        name = self.unique(wish or tensor + SUFFIX)
        self.declare(name, tensor, ONNX_TYPES[self.qparams[tensor].dtype])
        self.ints[tensor] = name
        return name

    def declare(self, name: str, like: str, elem_type: int) -> None:
        """Note type and shape of a tensor: the shape of net tensor ``like``."""
        shape: list[int | str] = list(self.net.shapes[like])
        if like in self.net.batched:
            shape[0] = BATCH
        self.declare_as(name, shape, elem_type)

    def declare_as(self, name: str, shape: Sequence[int | str], elem_type: int) -> None:
        """Note type and shape of a tensor."""
        self._infos.append(helper.make_tensor_value_info(name, elem_type, shape))

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        """Add a node; attributes that are None are left out, a name that is taken gets a number."""
        given = {key: value for key, value in attributes.items() if value is not None}
        own, number = name, 1
        while own in self._node_names:
            own, number = f"{name}_{number}", number + 1
        self._node_names.add(own)
        self.nodes.append(helper.make_node(op_type, inputs, outputs, own, domain=domain, **given))

    def scale_and_zero(self, tensor: str) -> tuple[str, str]:
        """Initializers with the quantization of a tensor."""
        return self.parameters(tensor, self.qparams[tensor])

    def parameters(self, wish: str, qparams: QParams) -> tuple[str, str]:
        """Initializers with scale and zero point."""
        return (
            self.constant(f"{wish}_scale", np.float32(qparams.scale)),
            self.constant(f"{wish}_zero_point", qparams.zero_point),
        )

    def target_shape(self, tensor: str) -> str:
        """An initializer for Reshape: the tensor's shape, whatever the batch is."""
        shape = np.array(self.net.shapes[tensor], np.int64)
        if tensor in self.net.batched:
            shape[0] = -1
        return self.constant(f"{tensor}_shape", shape)

    def dequantize(self, tensor: str, name: str) -> str:
        """Add a DequantizeLinear of the tensor's integers; return the float tensor."""
        output = self.unique(f"{tensor}_dequantized")
        self.node(
            "DequantizeLinear",
            [self.ints[tensor], *self.scale_and_zero(tensor)],
            [output],
            f"{name}/dequantize",
        )
        return output

    def read(self, tensor: str, name: str) -> str:
        """What an operator of the net reads: the float tensor, or its truth values."""
        real = self.dequantize(tensor, name)
        if not is_bool(self.net, tensor):
            return real
        truth = self.unique(f"{tensor}_truth")
        self.node("Cast", [real], [truth], f"{name}/truth", to=onnx.TensorProto.BOOL)
        return truth

    def write(self, result: str, tensor: str, name: str) -> str:
        """Add what makes the integers of ``tensor`` from the result of an operator of the net."""
        if is_bool(self.net, tensor):
            real = self.unique(f"{tensor}_real")
            self.node("Cast", [result], [real], f"{name}/cast", to=onnx.TensorProto.FLOAT)
            result = real
        return self.quantize(result, tensor, name)

    def quantize(self, real: str, tensor: str, name: str) -> str:
        """Add the QuantizeLinear that makes the integers of ``tensor`` from a float tensor."""
        output = self.hold(tensor)
        self.node("QuantizeLinear", [real, *self.scale_and_zero(tensor)], [output], name)
        return output

    def requantized(self, tensor: str, qparams: QParams, name: str) -> str:
        """Integers of ``tensor`` in other parameters: its own when they are equal."""
        if self.qparams[tensor] == qparams:
            return self.ints[tensor]
        key = (tensor, qparams, name)
        if key not in self._requantized:
            self._requantized[key] = self._requantize(*key)
        return self._requantized[key]

    def _requantize(self, tensor: str, qparams: QParams, name: str) -> str:
        wish = f"{tensor}_for_{name}"
        output = self.unique(wish + SUFFIX)
        self.declare(output, tensor, ONNX_TYPES[qparams.dtype])
        real = self.dequantize(tensor, f"{name}/{tensor}")
        inputs = [real, *self.parameters(wish, qparams)]
        self.node("QuantizeLinear", inputs, [output], f"{name}/requantize/{tensor}")
        return output

    def model(self) -> onnx.ModelProto:
        """The reference model."""
        net = self.net
        inputs = [self._port(p.name, p.tensor, p.elem_type) for p in net.inputs]
        outputs = [self._port(p.name, p.tensor, p.elem_type) for p in net.outputs]
        graph = helper.make_graph(
            self.nodes, "reference", inputs, outputs, list(self._initializers.values())
        )
        known = {value.name for value in (*inputs, *outputs)}
        graph.value_info.extend(info for info in self._infos if info.name not in known)
        return helper.make_model(
            graph, opset_imports=opsets_of(net), ir_version=IR_VERSION, producer_name="pimc"
        )

    def _port(self, name: str, tensor: str, elem_type: int) -> onnx.ValueInfoProto:
        shape: list[int | str] = list(self.net.shapes[tensor])
        if tensor in self.net.batched:
            shape[0] = BATCH
        return helper.make_tensor_value_info(name, elem_type, shape)
