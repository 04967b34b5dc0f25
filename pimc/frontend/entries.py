"""Entries: where whole numbers of the inputs become quantities or truth values of the chip.

A mask of attention comes as 32 or 64 bits, or as truth values, and is moved about before somebody
makes floats of it, or compares it. Here that comes first, and the movement behind it moves 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx

from pimc.frontend.net import Net, Op
from pimc.frontend.regions import COMPARISONS, MOVES, is_lookup

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
        elif _is_leaf(net, op, tensor):
            yield path, op


def _is_leaf(net: Net, op: Op, tensor: str) -> bool:
    if op.op_type == "Cast":
        return op.attributes["to"] in (_FLOAT, _BOOL)
    if net.types.get(tensor) == _BOOL:
        return op.op_type in _READS_TRUTH and op.inputs.count(tensor) == 1
    if op.op_type not in COMPARISONS or op.inputs[0] != tensor:
        return False
    other = net.constants.get(op.inputs[1])
    return other is not None and other.size == 1 and abs(int(other.reshape(()))) < 2**24


def _enter(net: Net, source: str, path: _Path, leaf: Op) -> None:
    """Do what the leaf does before the path; a reader of truth values reads them behind it."""
    at = net.ops.index(leaf)
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
        ops.append(replace(move, inputs=(name, *move.inputs[1:]), outputs=(moved,)))
        name = moved
    if reads:
        last = path[-1].output if path else source
        ops.append(replace(leaf, inputs=tuple(name if n == last else n for n in leaf.inputs)))
    net.ops[at : at + 1] = ops
