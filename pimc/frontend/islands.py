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
_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"))
FLOAT_OPS = frozenset(
    """Abs Add Clip Concat Div Gelu Identity LayerNormalization Max Min Mul Neg Pow Reciprocal Relu
    Sigmoid Softmax Sub""".split()  # noqa: SIM905
)
_INTEGER_OPS = frozenset(("Conv", "Gemm", "MatMul", *KINDS))
FLOAT_OPS |= FUNCTIONS | _POOLS | MOVES


def mark_islands(net: Net) -> dict[str, str]:
    """Fill ``net.reals``; return what the model does not quantize but a matrix needs as integers.

    That is a name by tensor, of the operator. In a model that quantizes nothing, none are reals.
    """
    net.reals = set()
    integers: dict[str, str] = {}
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
        found = _integers(net, steps, held)
        if not found:
            break
        integers |= found
    return integers


def is_float(net: Net, op: Op) -> bool:
    """Whether an operator computes with float32 rows on the chip."""
    return bool(net.reals.intersection((*op.inputs, *op.outputs)))


def note_integers(net: Net, integers: dict[str, str]) -> None:
    """Warn of what is quantized although the model does not say so."""
    for name, reader in integers.items():
        net.notes.warning(
            "F232",
            f"the model quantizes other tensors, but not `{name}`, which {reader} needs as "
            "integers; its range comes from calibration",
            Location(node=f"tensor `{name}`"),
            "quantize it in the model, too, with calibration data of your own",
        )


def split_shared_moves(net: Net) -> None:
    """Let a moved tensor be quantized behind the movement, where others read it before as floats.

    What a movement hands on has the integers of its input; here the input has none.
    """
    readers, outputs = net.consumers(), net.output_tensors()
    ops: list[Op] = []
    for op in net.ops:
        ops.append(op)
        source = op.inputs[0] if op.inputs else ""
        is_shared = len(readers.get(source, ())) > 1 or source in outputs
        wanted = [name for name in op.outputs if name in net.qparams]
        if not is_passing(op) or not wanted or source in net.qparams or not is_shared:
            continue
        names = {name: net.fresh(f"{name}_moved") for name in wanted}
        for name, moved in names.items():
            net.add_like(moved, name)
            ops.append(Op(f"{op.name}/quantize", "Identity", (moved,), (name,)))
        ops[-1 - len(names)] = replace(op, outputs=tuple(names.get(n, n) for n in op.outputs))
    net.ops = ops


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


def _integers(net: Net, steps: list[Step], held: Holding) -> dict[str, str]:
    """Leaders in ``net.reals`` that crossbars or products make or read, and who does."""
    found: dict[str, str] = {}
    for step in steps:
        if isinstance(step, Region) or step.op_type not in _INTEGER_OPS or step.domain:
            continue
        for name in (*step_inputs(net, step), *step_outputs(net, step)):
            if name in net.reals:
                found.setdefault(held.leader[name], f"{step.op_type} `{step.name}`")
    return found


def takes_floats(net: Net, op: Op) -> bool:
    """Whether an operator has a form in float32 instructions."""
    if op.op_type not in FLOAT_OPS or op.domain or is_group_norm(net, op):
        return False
    constants = [name for name in op.inputs if name and net.is_constant(name)]
    if op.op_type == "Pad":
        fill = net.constant(op.input(2)) if op.input(2) else np.zeros(())
        return bool(np.all(fill == np.rint(fill)) and np.abs(fill).max(initial=0) < 2**24)
    if op.op_type == "Pow":
        return op.inputs[0] not in constants
    if op.op_type == "Concat":
        return not constants
    return op.op_type != "Gather" or op.inputs[0] not in constants or is_lookup(net, op)
