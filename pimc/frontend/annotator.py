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
    Array,
    IntArray,
    Net,
    Op,
    QParams,
    Quantized,
)
from pimc.frontend.regions import PASSING

_FLOAT = onnx.TensorProto.FLOAT
_DOMAINS = ("", MICROSOFT)  # onnxruntime's quantizer writes Q and DQ in its own domain too


class Annotator:
    """One walk over the operators of a net.

    views: integer tensor, or alias of a float one -> the float tensor it stands for. dtypes: 8-bit
    type of the integer tensors among them. sums: views that hold whole numbers of 32 bits.
    """

    def __init__(self, net: Net, handlers: Mapping[str, Handler]) -> None:
        self.net = net
        self.ops: list[Op] = []
        self.views: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}
        self.sums: set[str] = set()
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
        if op.op_type in PASSING | {"Concat"} and not op.domain and op.inputs[0] in self.views:
            self._pass_on(op)
            return
        self.ops.append(self._renamed(op))

    def _renamed(self, op: Op) -> Op:
        return replace(op, inputs=tuple(self.views.get(name, name) for name in op.inputs))

    def _pass_on(self, op: Op) -> None:
        """An operator that moves integers: its result is held as its input is."""
        net, dtype = self.net, self.dtypes.get(op.inputs[0])
        op = self._renamed(op)
        sources = [name for name in op.inputs if not net.is_constant(name)]
        known = [net.qparams.get(name) for name in sources]
        if op.op_type == "Concat" and any(held != known[0] for held in known):
            self.ops.append(op)  # raw integers of different scales: refused by their type
            return
        for name in op.outputs:
            if name:
                self.views[name] = name
                net.types[name] = _FLOAT
                if dtype is not None:
                    self.dtypes[name] = dtype
                if known[0] is not None:
                    net.qparams[name] = known[0]
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
        flat = np.asarray(scale, np.float32)
        flat = flat.reshape(()) if flat.size == 1 else flat.reshape(-1)
        points = np.zeros(flat.shape, integers.dtype) if zero is None else zero.reshape(flat.shape)
        along = None if flat.ndim == 0 else axis
        net.quantized[name] = Quantized(integers, flat, points, along)
        net.shapes[name], net.types[name] = integers.shape, _FLOAT
        return name

    # ------------------------------------------------------------------ activations
    def view(self, tensor: str, qparams: QParams) -> str:
        """The float tensor that integer ``tensor`` stands for under these parameters."""
        net = self.net
        name = self.views.get(tensor, tensor)
        if net.qparams.setdefault(name, qparams) == qparams:
            return name
        return self._reinterpreted(name, net.qparams[name], qparams)

    def _reinterpreted(self, name: str, held: QParams, wanted: QParams) -> str:
        """The same integers read differently: quantize with one pair, dequantize with another."""
        net = self.net
        raw, real = net.fresh(f"{name}_integers"), net.fresh(f"{name}_reinterpreted")
        for result in (raw, real):
            net.add_like(result, name)
        for op_type, source, result, qparams in (
            ("QuantizeLinear", name, raw, held),
            ("DequantizeLinear", raw, real, wanted),
        ):
            scale, zero = f"{result}_scale", f"{result}_zero_point"
            net.constants[scale], net.constants[zero] = (
                np.array(qparams.scale),
                qparams.zero_point,
            )
            net.shapes[scale] = net.shapes[zero] = ()
            self.ops.append(Op(f"{result}/{op_type}", op_type, (source, scale, zero), (result,)))
        net.qparams[real] = wanted  # the same integers again
        return real

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
