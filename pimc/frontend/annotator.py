"""Annotator: the walk that turns integer tensors into the float tensors which they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from pimc.frontend.net import (
    DTYPE_NAMES,
    INT_NAMES,
    MICROSOFT,
    NUMPY_TYPES,
    ONNX_TYPES,
    Array,
    IntArray,
    Net,
    Op,
    QParams,
    Quantized,
)
from pimc.frontend.regions import MOVES, PASSING

_FLOAT = onnx.TensorProto.FLOAT
WIDENED = {"int2": np.int8, "int4": np.int8, "uint2": np.uint8, "uint4": np.uint8}
_DOMAINS = ("", MICROSOFT)  # onnxruntime's quantizer writes Q and DQ in its own domain too


class Annotator:
    """One walk over the operators of a net.

    views: integer tensor, or alias of a float one -> the float tensor it stands for. dtypes: 8-bit
    type of the integer tensors among them. origin: the tensor whose integers a moved one holds
    while nobody has said what they mean. sums: views that hold whole numbers of 32 bits.
    released: quantized constants whose integers could not be kept.
    """

    def __init__(self, net: Net, handlers: Mapping[str, Handler]) -> None:
        self.net = net
        self.ops: list[Op] = []
        self.views: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}
        self.sums: set[str] = set()
        self.origin: dict[str, str] = {}
        self.released: list[str] = []
        self._numbers: dict[str, str] = {}
        self._readers = net.consumers()
        self._outputs = net.output_tensors()
        self._handlers = handlers
        for port in net.inputs:
            if port.elem_type in INT_NAMES:
                self.views[port.tensor] = port.tensor
                self.dtypes[port.tensor] = INT_NAMES[port.elem_type]
                net.types[port.tensor] = _FLOAT

    def visit(self, op: Op) -> None:
        """Rewrite one operator."""
        handler = self._handlers.get(op.op_type) if op.domain in _DOMAINS else None
        if handler is not None and handler(self, op):
            return
        moves = op.op_type in PASSING | {"Concat"} and not op.domain
        if moves and self.views.get(op.inputs[0], "") not in ("", *self.net.quantized):
            mixes = op.op_type == "Resize" and op.attributes.get("mode", "nearest") != "nearest"
            if not (mixes and op.inputs[0] in self.dtypes):
                self._pass_on(op)
                return
        self.compute(op)

    def compute(self, op: Op) -> None:
        """Add an operator as it is: what it reads as integers stays integers."""
        integers = {name: self._integers(name) for name in op.reads if name in self.dtypes}
        self.ops.append(self._renamed(op.reading(integers)))

    def _with_real_constants(self, op: Op, held: QParams) -> Op:
        """Concat or Pad of integers: its integer constants as the reals that they stand for."""
        net, inputs = self.net, list(op.inputs)
        if op.op_type == "Pad":
            inputs += [""] * (3 - len(inputs))
            if op.attributes.get("mode", "constant") != "constant":
                return op
            if not inputs[2]:
                inputs[2] = net.fresh(f"{op.output}_fill")
                net.constants[inputs[2]] = np.zeros((), NUMPY_TYPES[held.dtype])
        for at, name in enumerate(inputs):
            if name in net.constants and (op.op_type == "Concat" or at == 2):
                real = net.fresh(f"{name}_real")
                steps = net.constants[name].astype(np.float32) - np.float32(held.zero)
                net.constants[real], net.shapes[real] = steps * held.scale, steps.shape
                net.types[real], inputs[at] = _FLOAT, real
        return replace(op, inputs=tuple(inputs))

    def _integers(self, tensor: str) -> str:
        """The integers of a tensor, for an operator that computes with them as numbers."""
        if tensor not in self._numbers:
            net, name = self.net, self.views[tensor]
            held = self._settled(name, QParams(np.float32(1), 0, self.dtypes[tensor]))
            self._numbers[tensor] = self._rounded(name, held)
            net.types[self._numbers[tensor]] = ONNX_TYPES[held.dtype]
        return self._numbers[tensor]

    def _renamed(self, op: Op) -> Op:
        return op.reading(self.views)

    def _pass_on(self, op: Op) -> None:
        """An operator that moves integers: its result is held as its input is."""
        net, dtype = self.net, self.dtypes.get(op.inputs[0])
        before, op = op, self._renamed(op)
        sources = [name for name in op.inputs if not net.is_constant(name)]
        known = [net.qparams.get(name) for name in sources]
        if not sources or (op.op_type == "Concat" and any(held != known[0] for held in known)):
            self.compute(before)  # constants alone, or integers of different scales
            return
        if dtype is not None and op.op_type in ("Concat", "Pad"):
            held = self._settled(sources[0], QParams(np.float32(1), 0, dtype))
            op, known = self._with_real_constants(op, held), [held]
        for name in op.outputs:
            if name:
                self.views[name] = name
                net.types[name] = _FLOAT
                if dtype is not None:
                    self.dtypes[name] = dtype
                if known[0] is not None:
                    net.qparams[name] = known[0]
                else:
                    self.origin[name] = self.origin.get(sources[0], sources[0])
        self.ops.append(op)

    # ------------------------------------------------------------------ constants
    def scalar(self, scale: str, zero: str, dtype: str = "u8") -> QParams | None:
        """Per-tensor parameters from constant inputs; None when they are not that.

        dtype: of an absent zero point; ONNX says unsigned.
        """
        net = self.net
        if scale not in net.constants or (zero and zero not in net.constants):
            return None
        point = net.constants[zero] if zero else np.zeros((), NUMPY_TYPES[dtype])
        steps = net.constants[scale]
        if steps.size != 1 or point.size != 1 or point.dtype not in DTYPE_NAMES:
            return None
        if not 0 < float(steps.reshape(())) < np.inf:
            return None
        return QParams(
            np.float32(steps.reshape(())), int(point.reshape(())), DTYPE_NAMES[point.dtype]
        )

    def hold(self, values: str, scale: Array, zero: Array | None, axis: int | None) -> str:
        """Make a quantized constant of integers; return its name."""
        net = self.net
        name = net.fresh(f"{values}_held")
        integers: IntArray = net.constants[values]
        if integers.dtype.name in WIDENED:
            integers = integers.astype(WIDENED[integers.dtype.name])
            zero = None if zero is None else zero.astype(integers.dtype)
        flat = np.asarray(scale, np.float32)
        flat = flat.reshape(()) if flat.size == 1 else flat.reshape(-1)
        points = np.zeros(flat.shape, integers.dtype) if zero is None else zero.reshape(flat.shape)
        along = None if flat.ndim == 0 else axis
        net.quantized[name] = Quantized(integers, flat, points, along)
        net.shapes[name], net.types[name] = integers.shape, _FLOAT
        return name

    # ------------------------------------------------------------------ activations
    def is_only_quantized(self, tensor: str) -> bool:
        """Whether nobody reads a tensor before it is rounded, to the same integers for all."""
        readers = self._readers.get(tensor, [])
        if tensor in self._outputs or any(r.op_type != "QuantizeLinear" for r in readers):
            return False
        return len({self.scalar(r.inputs[1], r.input(2)) for r in readers}) == 1

    def meaning(self, tensor: str) -> QParams | None:
        """What all readers of moved integers read them as; None when that is not one thing."""
        found: set[QParams | None] = set()
        if tensor in self._outputs:
            return None
        for op in self._readers.get(tensor, []):
            if op.op_type in MOVES and op.inputs[0] == tensor:
                found |= {self.meaning(name) for name in op.outputs if name}
            elif op.op_type.startswith(("DequantizeLinear", "QLinear", "QGemm")):
                at = op.inputs.index(tensor)
                found.add(self.scalar(op.input(at + 1), op.input(at + 2)))
            else:
                return None
        return found.pop() if len(found) == 1 else None

    def view(self, tensor: str, qparams: QParams) -> str:
        """The float tensor that integer ``tensor`` stands for under these parameters."""
        net = self.net
        name = self.views.get(tensor, tensor)
        if net.types.get(name) in INT_NAMES:  # integers of the host's
            real = net.fresh(f"{name}_real")
            self._write("DequantizeLinear", name, real, name, qparams)
            net.types[real], self.views[tensor], net.qparams[real] = _FLOAT, real, qparams
            return real
        held = self._settled(name, qparams)
        return name if held == qparams else self._reinterpreted(name, held, qparams)

    def _settled(self, name: str, wish: QParams) -> QParams:
        """The parameters of integers, ``wish`` where they have none; moved ones share them."""
        held = self.net.qparams.setdefault(self.origin.get(name, name), wish)
        return self.net.qparams.setdefault(name, held)

    def _reinterpreted(self, name: str, held: QParams, wanted: QParams) -> str:
        """The same integers read differently: quantize with one pair, dequantize with another."""
        real = self.net.fresh(f"{name}_reinterpreted")
        self._write("DequantizeLinear", self._rounded(name, held), real, name, wanted)
        self.net.qparams[real] = wanted  # the same integers again
        return real

    def _rounded(self, name: str, held: QParams) -> str:
        raw = self.net.fresh(f"{name}_integers")
        self._write("QuantizeLinear", name, raw, name, held)
        return raw

    def _write(self, op_type: str, source: str, result: str, like: str, qparams: QParams) -> None:
        net = self.net
        net.add_like(result, like)
        scale, zero = f"{result}_scale", f"{result}_zero_point"
        net.constants[scale], net.constants[zero] = np.array(qparams.scale), qparams.zero_point
        net.shapes[scale] = net.shapes[zero] = ()
        self.ops.append(Op(f"{result}/{op_type}", op_type, (source, scale, zero), (result,)))

    def result(self, op: Op, qparams: QParams | None) -> None:
        """Note that an operator's integer result is its float result in these parameters."""
        self.views[op.output] = op.output
        self.net.types[op.output] = _FLOAT
        if qparams is not None:
            self.net.qparams[op.output] = qparams
            self.dtypes[op.output] = qparams.dtype

    def emit(self, op: Op, op_type: str, inputs: tuple[str, ...], qparams: QParams | None) -> bool:
        """Add the float form of a QLinear operator."""
        self.result(op, qparams)
        self.ops.append(replace(op, op_type=op_type, inputs=inputs, domain=""))
        return True


Handler = Callable[[Annotator, Op], bool]  # rewrites one operator; False leaves it as it is
