"""Entries: where whole numbers of the inputs become quantities or truth values of the chip.

A mask of attention comes as 32 or 64 bits, or as truth values, and is moved about before somebody
makes floats of it, or compares it. Here that comes first, and the movement behind it moves 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx

from pimc.frontend.net import Net, Op
from pimc.frontend.regions import COMPARISONS, MOVES, RESHAPES, is_limit, is_lookup

_FLOAT, _BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
_READS_TRUTH = frozenset(("And", "Not", "Or", "Where", "Xor"))
_Path = tuple[Op, ...]


def enter_numbers(net: Net) -> None:
    """Rewrite ``net`` in place: number input, entry, movement; what does not fit is left."""
    for port in list(net.inputs):
        if port.tensor in net.numbers:
            for path, leaf in list(_leaves(net, port.tensor, ())):
                _enter(net, port.tensor, path, leaf)
    net.remove_unused()


def _leaves(net: Net, tensor: str, path: _Path) -> Iterator[tuple[_Path, Op]]:
    """What reads a number input, maybe after movement, and the movement."""
    for op in net.ops:
        if tensor not in op.inputs or op.domain:
            continue
        is_move = op.op_type in MOVES and not is_lookup(net, op) and op.inputs[0] == tensor
        if is_move and len(op.outputs) == 1 and all(map(net.is_constant, op.inputs[1:])):
            yield from _leaves(net, op.output, (*path, op))
        elif _is_leaf(net, op, tensor) or (path and _is_lookup_behind(net, op, tensor, path)):
            yield path, op


def _is_lookup_behind(net: Net, op: Op, tensor: str, path: _Path) -> bool:
    """Whether an operator takes rows of a constant by numbers that were only reshaped."""
    is_rows = op.op_type == "Gather" and op.input(1) == tensor and net.is_constant(op.inputs[0])
    is_rows &= int(op.attributes.get("axis", 0)) == 0
    return is_rows and all(move.op_type in RESHAPES for move in path)


def _is_leaf(net: Net, op: Op, tensor: str) -> bool:
    if op.op_type == "Cast":
        return op.attributes["to"] in (_FLOAT, _BOOL)
    if net.types.get(tensor) == _BOOL:
        return op.op_type in _READS_TRUTH and op.inputs.count(tensor) == 1
    return op.op_type in COMPARISONS and op.inputs[0] == tensor and is_limit(net, op.inputs[1])


def _enter(net: Net, source: str, path: _Path, leaf: Op) -> None:
    """Do what the leaf does before the path; a reader of truth values reads them behind it."""
    at = net.ops.index(leaf)
    if leaf.op_type == "Gather":
        net.ops[at : at + 1] = _looked_up(net, source, leaf)
        return
    reads = leaf.op_type in _READS_TRUTH
    kind = _BOOL if reads else net.types[leaf.output]
    result = net.fresh(f"{leaf.output}_entry") if path or reads else leaf.output
    if reads:
        entry = Op(f"{leaf.name}/entry", "Cast", (source,), (result,), {"to": _BOOL})
    else:
        entry = replace(leaf, inputs=(source, *leaf.inputs[1:]), outputs=(result,))
    net.shapes[result], net.types[result] = net.shapes[source], kind
    ops, name = [entry], result
    for number, move in enumerate(path):
        ends = number == len(path) - 1 and not reads
        moved = leaf.output if ends else net.fresh(f"{leaf.output}_moved")
        net.shapes[moved], net.types[moved] = net.shapes[move.output], kind
        inputs = (name, *move.inputs[1:])
        ops.append(replace(move, name=f"{move.name}/{moved}", inputs=inputs, outputs=(moved,)))
        name = moved
    if reads:
        last = path[-1].output if path else source
        ops.append(replace(leaf, inputs=tuple(name if n == last else n for n in leaf.inputs)))
    net.ops[at : at + 1] = ops


def _looked_up(net: Net, source: str, leaf: Op) -> list[Op]:
    """The rows by the numbers as they come, then in the shape that these were given."""
    shape, wide = net.shapes[leaf.output], net.fresh(f"{leaf.output}_rows")
    target = net.fresh(f"{leaf.output}_shape")
    net.constants[target], net.shapes[target] = np.array(shape, np.int64), (len(shape),)
    net.shapes[wide] = (*net.shapes[source], *net.shapes[leaf.inputs[0]][1:])
    net.types[wide] = net.types[leaf.output]
    return [
        replace(leaf, inputs=(leaf.inputs[0], source), outputs=(wide,)),
        Op(f"{leaf.name}/shape", "Reshape", (wide, target), leaf.outputs),
    ]
