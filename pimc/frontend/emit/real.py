"""Emit the operators of float islands: float32 in, float32 or integers out.

Functions, powers and sums are written in float64 between two casts, so that neither the order of
a sum nor the last bit of an exponential matters after the rounding to float32. Arithmetic, which
IEEE pins down, stays in float32 (`emit.vector`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from isa.numerics import ERF_POLYNOMIAL, ERF_SLOPE
from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.normalize import Steps, per_channel
from pimc.frontend.emit.vector import emit_binary
from pimc.frontend.islands import FUNCTIONS
from pimc.frontend.net import Op

_FLOAT, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


def emit_float(build: Builder, op: Op) -> None:
    """One operator that reads or makes float32 rows; not movement."""
    _EMITTERS[op.op_type](build, op)


# ---------------------------------------------------------------------- one element
def _function(build: Builder, op: Op) -> None:
    """Exp, Log, Sqrt, Tanh."""
    step = Steps(build, op)
    _rounded(build, op, step(op.op_type, _double(build, op, op.inputs[0])))


def _erf(build: Builder, op: Op) -> None:
    """As `isa.catalog_float.Erf` defines it: onnxruntime has no Erf of doubles."""
    step = Steps(build, op)

    def number(value: float) -> str:
        return build.constant(f"real_{value}", np.float64(value))

    x = _double(build, op, op.inputs[0])
    slope = step("Mul", step("Abs", x), number(ERF_SLOPE))
    t = step("Div", number(1.0), step("Add", slope, number(1.0)))
    tail = number(0.0)
    for coefficient in reversed(ERF_POLYNOMIAL):
        tail = step("Mul", step("Add", tail, number(coefficient)), t)
    power = step("Exp", step("Mul", step("Neg", x), x))
    rest = step("Sub", number(1.0), step("Mul", power, tail))
    _rounded(build, op, step("Mul", step("Sign", x), rest))


def _gelu(build: Builder, op: Op) -> None:
    """x * (1 + erf(x / sqrt 2)) / 2, or with the hyperbolic tangent that is near to it."""
    x = op.inputs[0]
    if op.attributes.get("approximate", "none") == "tanh":
        cube = _inner(build, op, "Mul", _inner(build, op, "Pow", x, 3.0), 0.044715)
        both = build.net.fresh(f"{op.output}_both")
        build.like(both, x)
        emit_binary(build, Op(f"{op.name}/both", "Add", (x, cube), (both,)))
        kind, argument = "Tanh", _inner(build, op, "Mul", both, math.sqrt(2.0 / math.pi))
    else:
        kind, argument = "Erf", _inner(build, op, "Mul", x, math.sqrt(0.5))
    value = build.net.fresh(f"{op.output}_{kind.lower()}")
    build.like(value, x)
    emit_float(build, Op(f"{op.name}/{kind.lower()}", kind, (argument,), (value,)))
    half = _inner(build, op, "Mul", _inner(build, op, "Add", value, 1.0), 0.5)
    emit_binary(build, Op(op.name, "Mul", (half, x), op.outputs))


def _identity(build: Builder, op: Op) -> None:
    """A conversion: from integers to floats, from floats to integers, or to other integers."""
    source = op.inputs[0]
    if op.output not in build.net.reals:
        build.quantize(build.real(source, op.name), op.output, op.name)
    elif source in build.reals:
        build.reals[op.output] = build.reals[source]
    else:
        build.as_float(source, op.output, op.name)


def _sigmoid(build: Builder, op: Op) -> None:
    """1 / (1 + e^-x)."""
    negative = _inner(build, op, "Mul", op.inputs[0], -1.0)
    power = build.net.fresh(f"{op.output}_power")
    build.like(power, op.output)
    _function(build, Op(f"{op.name}/exp", "Exp", (negative,), (power,)))
    whole = _inner(build, op, "Add", power, 1.0)
    _binary(build, op, "Pow", whole, -1.0, op.output)


def _hard_sigmoid(build: Builder, op: Op) -> None:
    """min(max(alpha x + beta, 0), 1)."""
    alpha, beta = (op.attributes.get(key, value) for key, value in (("alpha", 0.2), ("beta", 0.5)))
    slope = _inner(build, op, "Mul", op.inputs[0], alpha)
    ramp = _inner(build, op, "Max", _inner(build, op, "Add", slope, beta), 0.0)
    _binary(build, op, "Min", ramp, 1.0, op.output)


def _hard_swish(build: Builder, op: Op) -> None:
    """x times its hard sigmoid of slope 1/6."""
    gate = build.net.fresh(f"{op.output}_gate")
    build.like(gate, op.output)
    numbers = {"alpha": 1 / 6, "beta": 0.5}
    _hard_sigmoid(build, Op(f"{op.name}/gate", "HardSigmoid", op.inputs, (gate,), numbers))
    emit_binary(build, Op(op.name, "Mul", (gate, op.inputs[0]), op.outputs))


def _leaky(build: Builder, op: Op) -> None:
    """The larger of x and alpha x, or the smaller where alpha is above 1."""
    alpha = float(op.attributes.get("alpha", 0.01))
    scaled = _inner(build, op, "Mul", op.inputs[0], alpha)
    kind = "Max" if alpha <= 1 else "Min"
    emit_binary(build, Op(op.name, kind, (op.inputs[0], scaled), op.outputs))


def _reciprocal(build: Builder, op: Op) -> None:
    _binary(build, op, "Pow", op.inputs[0], -1.0, op.output)


def _negative(build: Builder, op: Op) -> None:
    _binary(build, op, "Mul", op.inputs[0], -1.0, op.output)


def _magnitude(build: Builder, op: Op) -> None:
    negative = _inner(build, op, "Mul", op.inputs[0], -1.0)
    emit_binary(build, Op(op.name, "Max", (op.inputs[0], negative), op.outputs))


def _clamp(build: Builder, op: Op) -> None:
    """Relu and Clip: the larger of a tensor and a number, the smaller of that and another."""
    low, high = (0.0, math.inf) if op.op_type == "Relu" else _limits(build, op)
    source = op.inputs[0]
    if low > -math.inf and high < math.inf:
        source = _inner(build, op, "Max", source, low)
    kind, limit = ("Min", high) if high < math.inf else ("Max", low)
    _binary(build, op, kind, source, limit, op.output)


def _limits(build: Builder, op: Op) -> tuple[float, float]:
    found = [-math.inf, math.inf]
    for position in (1, 2):
        if op.input(position):
            found[position - 1] = float(build.net.constant(op.input(position)).reshape(()))
    return found[0], found[1]


# ---------------------------------------------------------------------- arithmetic
def _arithmetic(build: Builder, op: Op) -> None:
    """Two tensors, or one and a constant, which the machine wants as the second operand."""
    net, (left, right) = build.net, op.inputs
    if not net.is_constant(left) or op.op_type not in ("Sub", "Div"):
        emit_binary(build, op)
    elif op.op_type == "Sub":
        negative = _inner(build, op, "Mul", right, -1.0)
        emit_binary(build, Op(op.name, "Add", (negative, left), op.outputs))
    else:
        reciprocal = _inner(build, op, "Pow", right, -1.0)
        emit_binary(build, Op(op.name, "Mul", (reciprocal, left), op.outputs))


def _inner(build: Builder, op: Op, op_type: str, source: str, number: float) -> str:
    """A tensor of the net for an intermediate result, which stays float32."""
    name = build.net.fresh(f"{op.output}_{op_type.lower()}")
    build.like(name, source)
    _binary(build, op, op_type, source, number, name)
    return name


def _binary(build: Builder, op: Op, op_type: str, source: str, number: float, result: str) -> None:
    """A tensor and a number."""
    name = build.net.fresh(f"{result}_{op_type.lower()}_number")
    build.net.constants[name] = np.array(number, np.float32)
    build.net.shapes[name] = ()
    part = Op(f"{op.name}/{op_type.lower()}", op_type, (source, name), (result,))
    emit_binary(build, part)


# ---------------------------------------------------------------------- along an axis
def _softmax(build: Builder, op: Op) -> None:
    """Exponentials of the distance to the largest, over their sum."""
    step, axis = Steps(build, op), int(op.attributes.get("axis", -1))
    x = _double(build, op, op.inputs[0])
    power = step("Exp", step("Sub", x, step.along("ReduceMax", x, axis)))
    _rounded(build, op, step("Div", power, step.along("ReduceSum", power, axis)))


def _layer_norm(build: Builder, op: Op) -> None:
    """Distance to the mean over the deviation, times gain plus offset."""
    step, net = Steps(build, op), build.net
    count = net.shapes[op.inputs[0]][-1]
    many = build.constant(f"count_{count}_real", np.float64(count))
    x = _double(build, op, op.inputs[0])
    mean = step("Div", step.along("ReduceSum", x, -1), many)
    distance = step("Sub", x, mean)
    squares = step.along("ReduceSum", step("Mul", distance, distance), -1)
    own = np.float64(np.float32(op.attributes.get("epsilon", 1e-5)))
    epsilon = build.constant(f"{op.output}_epsilon", own)
    root = step("Sqrt", step("Add", step("Div", squares, many), epsilon))
    gain, offset = (per_channel(build, op, at, count, np.float64) for at in (1, 2))
    scaled = step("Mul", step("Div", distance, root), gain)
    _rounded(build, op, step("Add", scaled, offset))


def _pool(build: Builder, op: Op) -> None:
    """A mean or maximum over all axes behind the channels, as one axis."""
    net, source = build.net, op.inputs[0]
    shape = net.shapes[source]
    flat, reduced = net.fresh(f"{op.output}_flat"), net.fresh(f"{op.output}_reduced")
    build.like(flat, source, (*shape[:2], math.prod(shape[2:])))
    build.like(reduced, source, (*shape[:2], 1))
    build.move("Reshape", source, flat, f"{op.name}/flatten")
    step = Steps(build, Op(op.name, op.op_type, (flat,), (reduced,)))
    x = _double(build, op, flat)
    if op.op_type in ("GlobalMaxPool", "ReduceMax"):
        real = step.along("ReduceMax", x, -1)
    else:
        count = math.prod(shape[2:])
        many = build.constant(f"count_{count}_real", np.float64(count))
        real = step("Div", step.along("ReduceSum", x, -1), many)
    _rounded(build, step.op, real)
    build.move("Reshape", reduced, op.output, f"{op.name}/unflatten")


# ---------------------------------------------------------------------- casts
def _double(build: Builder, op: Op, tensor: str) -> str:
    return Steps(build, op)("Cast", build.real(tensor, op.name), to=_DOUBLE)


def _rounded(build: Builder, op: Op, double: str) -> None:
    """The result of an operator: rounded to float32, and quantized where the model says so."""
    real = build.result(op.output)
    build.node("Cast", [double], [real], op.name, to=_FLOAT)
    build.finish(real, op.output, op.name)


_EMITTERS: dict[str, Callable[[Builder, Op], None]] = {
    **dict.fromkeys(FUNCTIONS, _function),
    "Erf": _erf,
    "Gelu": _gelu,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"), _arithmetic),
    **dict.fromkeys(("Clip", "Relu"), _clamp),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"), _pool),
    "Abs": _magnitude,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky,
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "Neg": _negative,
    "Reciprocal": _reciprocal,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
}
