"""Regions: which element-wise operators join into one 256-entry table, and what must be held.

A region is a connected set of element-wise operators whose only non-constant input is one tensor,
its root. Tensors inside a region stay float and are never rounded to 8 bits; only the tensors
that something else reads are. `plan` cuts a net into regions and single operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from pimc.frontend.net import Net, Op, used_inputs

UNARY = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Cast Ceil Celu Clip Cos Cosh
    DequantizeLinear Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log
    Mish Mod Neg Not PRelu QuantizeLinear Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
    Softplus Softsign Sqrt Tan Tanh ThresholdedRelu""".split()  # noqa: SIM905
)
ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"))
COMPARISONS = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))
LOGIC = COMPARISONS | {"And", "Or", "Xor"}  # of two tensors, too: `emit.logic`
ELEMENTWISE = UNARY | ARITHMETIC | LOGIC | {"Where"}
# of two tensors, or of one and a full constant
BINARY = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Min"))
CLAMPS = frozenset(("Relu", "Clip"))
# operators that only move integers about: the result is held exactly as the input is
MOVES = frozenset(
    """DepthToSpace Expand Flatten Gather Pad Reshape Resize Slice SpaceToDepth Split Squeeze Tile
    Transpose Unsqueeze""".split()  # noqa: SIM905
)
# operators that onnxruntime computes only from a type of integers to the same type
SAME_TYPE = frozenset(("Conv", "Gemm", "MatMul", "GlobalAveragePool", "ReduceMean"))
RESHAPES = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze"))
PASSING = MOVES | {"MaxPool", "GlobalMaxPool", "ReduceMax"}


@dataclass(frozen=True, eq=False)
class Region:
    """``output = f(root)``; ops in topological order, the last one makes ``output``."""

    root: str
    output: str
    ops: tuple[Op, ...]

    @property
    def is_clamp(self) -> bool:
        """Whether the function only clamps, so that saturation of the producer may do it."""
        return all(op.op_type in CLAMPS for op in self.ops)


Step = Region | Op


def plan(net: Net) -> list[Step]:
    """The net as regions and single operators, in topological order."""
    held = _held(net)
    roots = _roots(net, held)
    steps: list[Step] = []
    makers = net.producers()
    for op in net.ops:
        if op.output not in roots:
            steps.append(op)
        elif op.output in held:
            root = roots[op.output]
            steps.append(Region(root, op.output, _between(net, makers, root, op)))
    return steps


def step_inputs(net: Net, step: Step) -> tuple[str, ...]:
    """The tensors that a step computes with, without constants."""
    if isinstance(step, Region):
        return (step.root,)
    return tuple(dict.fromkeys(quantities(net, step)))


def quantities(net: Net, op: Op) -> list[str]:
    """The inputs of an operator that are held in 8 bits: neither constants nor numbers."""
    numbers = net.numbers | net.raw
    return [name for name in used_inputs(op) if not net.is_constant(name) and name not in numbers]


def is_lookup(net: Net, op: Op) -> bool:
    """Whether an operator takes rows of a constant by numbers that are given at run time."""
    is_gather = op.op_type == "Gather" and net.is_constant(op.inputs[0])
    return is_gather and op.inputs[1] in net.numbers


def is_entry(net: Net, op: Op) -> bool:
    """Whether an operator makes quantities or truth values of an input's whole numbers."""
    if op.domain or op.input(0) not in net.numbers:
        return False
    if op.op_type == "Cast":
        return op.attributes["to"] in (onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL)
    return op.op_type in COMPARISONS and is_limit(net, op.inputs[1])


def is_limit(net: Net, name: str) -> bool:
    """Whether a tensor is one constant number that float32 holds exactly."""
    values = net.constants.get(name)
    return values is not None and values.size == 1 and abs(int(values.reshape(()))) < 2**24


def step_outputs(net: Net, step: Step) -> tuple[str, ...]:
    """The tensors that a step makes and that are held in 8 bits."""
    if isinstance(step, Region):
        return (step.output,)
    return tuple(name for name in step.outputs if name not in net.raw)


def is_bool(net: Net, name: str) -> bool:
    """Whether a tensor holds truth values."""
    return net.types.get(name) == onnx.TensorProto.BOOL


def _held(net: Net) -> set[str]:
    """Tensors that exist as integers: they bound the regions.

    Holding one more tensor may split a region in two, whose operators then need their inputs
    held: repeat until nothing is added.
    """
    held = {port.tensor for port in (*net.inputs, *net.outputs)} | set(net.qparams) | net.reals
    held -= net.numbers | net.raw
    while True:
        roots = _roots(net, held)
        more = {name for op in net.ops if op.output not in roots for name in quantities(net, op)}
        if more <= held:
            return held
        held |= more


def _roots(net: Net, held: set[str]) -> dict[str, str]:
    """Result of each operator that fits into a region -> the region's root."""
    roots: dict[str, str] = {}
    axes: dict[str, int | None] = {}  # along which axis the constants of a result vary
    for op in net.ops:
        if op.op_type not in ELEMENTWISE or op.domain or any(op.outputs[1:]):
            continue
        if is_entry(net, op):
            continue
        inputs = [name for name in used_inputs(op) if not net.is_constant(name)]
        inner = [name for name in inputs if name not in held]
        found = {roots.get(name, name) if name in inner else name for name in inputs}
        varying = {axes[name] for name in inner if axes.get(name) is not None}
        own = constant_axes(net, op)
        if own is None or len(found) != 1 or len(varying | own) > 1:
            continue
        if any(net.shapes.get(name) != net.shapes.get(op.output) for name in inputs):
            continue
        if net.reals.intersection(inputs):
            continue  # a table has 8-bit indices
        roots[op.output] = found.pop()
        axes[op.output] = next(iter(varying | own), None)
    return roots


def constant_axes(net: Net, op: Op) -> set[int | None] | None:
    """Axes of the result along which the constants of an operator vary; None if more than one."""
    shape = net.shapes.get(op.output)
    if shape is None:
        return None
    if op.op_type == "BatchNormalization":
        return {1}
    found: set[int | None] = set()
    for name in used_inputs(op):
        if not net.is_constant(name):
            continue
        sizes = net.shapes[name]
        found |= {len(shape) - len(sizes) + axis for axis, n in enumerate(sizes) if n > 1}
    return found if len(found) <= 1 else None


def _between(net: Net, makers: dict[str, Op], root: str, last: Op) -> tuple[Op, ...]:
    """The operators on the way from a root to a result."""
    wanted, needed = [last], {id(last)}
    for op in wanted:  # grows while it runs
        for name in used_inputs(op):
            if name != root and not net.is_constant(name) and id(makers[name]) not in needed:
                needed.add(id(makers[name]))
                wanted.append(makers[name])
    return tuple(op for op in net.ops if id(op) in needed)
