"""Islands: the tensors that a quantized model leaves float32, and that stay so on the chip.

Whoever quantized the model left them out on purpose, so they get no range from calibration. They
are rows of float32 numbers, for vector instructions; only what crossbars and products compute with
is quantized all the same, which a warning says (docs/decisions/0018).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from isa.diagnostics import Location
from pimc.frontend.assign import Holding, explicit_qparams, follower_of, holding, is_passing
from pimc.frontend.net import INT_NAMES, Net, Op
from pimc.frontend.norms import is_group_norm
from pimc.frontend.recurrent import KINDS
from pimc.frontend.regions import MOVES, Region, Step, is_lookup, plan, step_inputs, step_outputs

# instructions; others are made of them
FUNCTIONS = frozenset(("Erf", "Exp", "Log", "Sqrt", "Tanh"))
_FLOAT = onnx.TensorProto.FLOAT
MOST_LISTED = 8  # tensors in a warning
_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"))
FLOAT_OPS = frozenset(
    """Abs Add Clip Concat Div Gelu HardSigmoid HardSwish Identity LayerNormalization LeakyRelu Max
    Min Mul Neg Pow Reciprocal Relu Sigmoid Softmax Sub""".split()  # noqa: SIM905
)
_MATRICES = frozenset(("Conv", "Gemm", "MatMul"))
FLOAT_OPS |= FUNCTIONS | _POOLS | MOVES


def mark_islands(net: Net, may_read: bool = False) -> dict[str, str]:
    """Fill ``net.reals``; return what the model does not quantize but a matrix needs as integers.

    That is a name by tensor, of the operator. In a model that quantizes nothing, none are reals.
    may_read: let matrices read floats, which ``free_operands`` then forbids.
    """
    net.reals = set()
    integers = dict(net.operands)
    while net.is_quantized:
        net.reals = set()
        while True:  # a float root takes a region apart, whose inner tensors are then held, too
            steps = plan(net)
            held = holding(net, steps)
            free = _unquantized(net, held) - integers.keys()
            reals = {name for name, leader in held.leader.items() if leader in free}
            if reals <= net.reals:
                break
            net.reals |= reals
        found = _integers(net, steps, held, may_read)
        if not found:
            break
        integers |= found
    return integers


def free_operands(net: Net) -> None:
    """Give matrices and products integers of their own where the model leaves floats, in place.

    So only what they compute with is quantized, not what others read of the same tensor.
    """
    mark_islands(net, may_read=True)
    taken: dict[str, str] = {}
    ops: list[Op] = []
    for op in net.ops:
        is_matrix = op.op_type in (*_MATRICES, *KINDS) and not op.domain
        for name in dict.fromkeys(op.inputs) if is_matrix else ():
            if name in net.reals and name not in taken:
                taken[name] = net.fresh(f"{name}_operand")
                net.add_like(taken[name], name)
                net.operands[taken[name]] = f"{op.op_type} `{op.name}`"
                ops.append(Op(f"{taken[name]}/quantize", "Identity", (name,), (taken[name],)))
        inputs = tuple(taken.get(name, name) for name in op.inputs) if is_matrix else op.inputs
        ops.append(op if inputs == op.inputs else replace(op, inputs=inputs))
    net.ops = ops


def is_float(net: Net, op: Op) -> bool:
    """Whether an operator computes with float32 rows on the chip."""
    return bool(net.reals.intersection((*op.inputs, *op.outputs)))


def note_integers(net: Net, integers: dict[str, str]) -> None:
    """Warn of what is quantized although the model does not say so; once for all tensors."""
    if integers:
        (name, reader), *others = integers.items()
        net.notes.warning(
            "F232",
            f"the model quantizes other tensors, but not `{name}`, which {reader} needs as "
            "integers; its range comes from calibration" + _also([other for other, _ in others]),
            Location(node=f"tensor `{name}`"),
            "quantize it in the model, too, with calibration data of your own",
        )
    matrices = [op for op in net.ops if op.op_type in _MATRICES and op.inputs[1] in net.constants]
    if matrices and net.is_quantized:
        label = f"{matrices[0].op_type} `{matrices[0].name}`"
        net.notes.warning(
            "F232",
            f"{label}: the model quantizes other tensors, but not its weights, which a crossbar "
            "holds as integers; they are quantized per output channel"
            + _also([op.name for op in matrices[1:]]),
            Location(node=label),
        )


def _also(names: list[str]) -> str:
    """What else a warning is about."""
    listed = ", ".join(f"`{name}`" for name in names[:MOST_LISTED])
    rest = ", ..." if len(names) > MOST_LISTED else ""
    return f"; the same for {len(names)} more: {listed}{rest}" if names else ""


def quantize_before_moves(net: Net) -> None:
    """Quantize a moved tensor before the movement where nothing else reads it, else behind.

    What a movement hands on has the integers of its input. So a tensor of which one moved copy is
    quantized must not make integers of all.
    """
    if not net.is_quantized:
        return
    readers, outputs = net.consumers(), net.output_tensors()
    ops: list[Op] = []
    for op in reversed(net.ops):
        results = [name for name in op.outputs if name]
        wanted = {name: net.qparams[name] for name in results if name in net.qparams}
        if not is_passing(op) or not wanted or op.inputs[0] in net.qparams:
            ops.append(op)
            continue
        source, first = op.inputs[0], next(iter(wanted.values()))
        is_shared = len(readers.get(source, ())) > 1 or source in outputs
        if not is_shared and all(wanted.get(name) == first for name in results):
            net.qparams[source] = first
            ops.append(op)
            continue
        names = {name: net.fresh(f"{name}_moved") for name in wanted}
        for name, moved in names.items():
            net.add_like(moved, name)
            ops.append(Op(f"{moved}/quantize", "Identity", (moved,), (name,)))
        ops.append(replace(op, outputs=tuple(names.get(n, n) for n in op.outputs)))
    net.ops = ops[::-1]


def _unquantized(net: Net, held: Holding) -> set[str]:
    """Leaders without parameters of the model, their own or those that they follow."""
    explicit = explicit_qparams(net, held)
    integers = {port.tensor for port in net.inputs if port.elem_type in INT_NAMES}
    outputs = {held.leader[name] for name in net.output_tensors() if name in held.leader}
    found: set[str] = set()
    for name in reversed(list(held.users)):  # consumers first
        follower = None if name in outputs else follower_of(net, held, name)
        if name in explicit or name in integers or net.types.get(name, _FLOAT) != _FLOAT:
            continue
        if follower is None or follower in found:
            found.add(name)
    return found


def _integers(net: Net, steps: list[Step], held: Holding, may_read: bool) -> dict[str, str]:
    """Leaders in ``net.reals`` that matrices read or recurrent layers make, and who does."""
    found: dict[str, str] = {}
    for step in steps:
        if isinstance(step, Region) or step.domain:
            continue
        read = step.op_type in (*_MATRICES, *KINDS) and not may_read
        made = step.op_type in KINDS
        for name in (*step_inputs(net, step) * read, *step_outputs(net, step) * made):
            if name in net.reals:
                found.setdefault(held.leader[name], f"{step.op_type} `{step.name}`")
    return found


def takes_floats(net: Net, op: Op) -> bool:
    """Whether an operator has a form in float32 instructions."""
    if op.op_type in _MATRICES and not op.domain:
        return not net.reals.intersection(op.inputs)
    if op.op_type not in FLOAT_OPS or op.domain or is_group_norm(net, op):
        return False
    constants = [name for name in op.inputs if name and net.is_constant(name)]
    if op.op_type == "Pad":
        fill = net.constant(op.input(2)) if op.input(2) else np.zeros(())
        return bool(np.all(fill == np.rint(fill)) and np.abs(fill).max(initial=0) < 2**24)
    if op.op_type == "Pow":
        return op.inputs[0] not in constants
    if op.op_type == "Clip":
        return all(name in constants for name in op.inputs[1:] if name)
    return op.op_type != "Gather" or op.inputs[0] not in constants or is_lookup(net, op)
