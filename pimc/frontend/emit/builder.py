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
FLOAT_SUFFIX = "_float"  # of a float32 row of an island


class Builder:
    """Collects nodes, initializers and shapes; ``ints`` maps a net tensor to its integer tensor."""

    def __init__(self, net: Net, qparams: dict[str, QParams]) -> None:
        self.net = net
        self.qparams = qparams
        self.ints: dict[str, str] = {}
        self.reals: dict[str, str] = {}  # net tensor that stays float32 -> its name here
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

    # ------------------------------------------------------------------ float32 tensors
    def real(self, tensor: str, name: str) -> str:
        """The float form of a tensor or constant, for the operator ``name``."""
        if self.net.is_constant(tensor):
            return self.constant(tensor, self.net.constant(tensor).astype(np.float32))
        return self.reals.get(tensor) or self.dequantize(tensor, f"{name}/{tensor}")

    def like(self, tensor: str, model: str, shape: tuple[int, ...] | None = None) -> None:
        """Add a tensor to the net that stays float32, of another one's shape or its own."""
        net = self.net
        net.add_like(tensor, model)
        net.types[tensor] = onnx.TensorProto.FLOAT
        net.shapes[tensor] = shape or net.shapes[model]
        net.reals.add(tensor)
        if model in net.batched:
            net.batched.add(tensor)

    def result(self, tensor: str) -> str:
        """The name of the float result from which `finish` makes ``tensor``."""
        return self.unique(tensor + (FLOAT_SUFFIX if tensor in self.net.reals else "_real"))

    def finish(self, real: str, tensor: str, name: str) -> None:
        """Make ``tensor`` of a float result: as it is where it stays float32, else quantized."""
        if tensor in self.net.reals:
            self.declare(real, tensor, onnx.TensorProto.FLOAT)
            self.reals[tensor] = real
        else:
            self.quantize(real, tensor, f"{name}/quantize")

    def as_float(self, tensor: str, result: str, name: str) -> None:
        """Make a tensor that stays float32 of integers."""
        real = self.result(result)
        inputs = [self.ints[tensor], *self.scale_and_zero(tensor)]
        self.node("DequantizeLinear", inputs, [real], f"{name}/{result}/dequantize")
        self.finish(real, result, name)

    def move(self, op_type: str, tensor: str, result: str, name: str) -> None:
        """Add a Reshape of a tensor; what moves is held as it was, or quantized behind."""
        if tensor not in self.reals:
            inner = self.net.fresh(f"{tensor}_float")
            self.like(inner, tensor)
            self.as_float(tensor, inner, name)
            tensor = inner
        moved = self.unique(result + FLOAT_SUFFIX)
        self.declare(moved, result, onnx.TensorProto.FLOAT)
        self.node(op_type, [self.reals[tensor], self.target_shape(result)], [moved], name)
        if result in self.net.reals:
            self.reals[result] = moved
        else:
            self.quantize(moved, result, f"{name}/quantize")

    def requantized(self, tensor: str, qparams: QParams, name: str) -> str:
        """Integers of ``tensor`` in other parameters: its own when they are equal."""
        if tensor not in self.reals and self.qparams[tensor] == qparams:
            return self.ints[tensor]
        key = (tensor, qparams, name)
        if key not in self._requantized:
            self._requantized[key] = self._requantize(*key)
        return self._requantized[key]

    def _requantize(self, tensor: str, qparams: QParams, name: str) -> str:
        wish = f"{tensor}_for_{name}"
        output = self.unique(wish + SUFFIX)
        self.declare(output, tensor, ONNX_TYPES[qparams.dtype])
        real = self.real(tensor, name)
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
