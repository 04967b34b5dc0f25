"""Products: MatMul with constants that are not one matrix behind the data, written with such ones.

Constant rows in front are turned around, ``A x = (x' A')'``; several matrices, as of the experts
of a layer or the heads of an attention, become a product each.
"""

from __future__ import annotations

import numpy as np

from pimc.frontend.net import Array, Op
from pimc.frontend.writer import Writer

MOST_MATRICES = 128  # each becomes a weight layer of its own


def constant_product(write: Writer) -> list[Op] | None:
    """A product of a computed tensor and constant matrices; None where that needs no rewriting."""
    net, (first, second) = write.net, write.op.inputs[:2]
    if net.is_constant(first) == net.is_constant(second):
        return None
    is_turned = net.is_constant(first)
    constant, data = (first, second) if is_turned else (second, first)
    shape, result = net.shapes.get(data, ()), net.shapes[write.op.output]
    values = net.constant(constant)
    if min(values.ndim, len(shape)) < 2 or max(values.ndim, len(shape)) > len(result):
        return None
    varying = [
        at for at, size in enumerate(values.shape[:-2], len(result) - values.ndim) if size > 1
    ]
    is_one = not varying and values.ndim <= len(shape)
    if is_one and not is_turned:
        return None  # as the machine has it
    if not is_one and (len(varying) != 1 or constant in net.quantized):
        return None
    if varying and result[varying[0]] > MOST_MATRICES:
        return None
    if is_turned:
        data, values = _turned(write, data), values.swapaxes(-1, -2)
    whole = (*result[:-2], *result[:-3:-1]) if is_turned else result
    matrices = [np.ascontiguousarray(m) for m in values.reshape(-1, *values.shape[-2:])]
    if is_one:
        product = _product(write, data, matrices[0], whole, "product")
    else:
        product = _joined(write, data, matrices, whole, varying[0], is_turned)
    if is_turned:
        write.add("Transpose", (product,), None, perm=_turn(len(result)))
    return write.ops


def _joined(
    write: Writer,
    data: str,
    matrices: list[Array],
    whole: tuple[int, ...],
    axis: int,
    is_inner: bool,
) -> str:
    """A product for each matrix, behind one another along ``axis`` of the result."""
    shape = write.net.shapes[data]
    own = axis - len(whole) + len(shape)  # that axis of the data
    is_shared = own < 0 or shape[own] == 1
    place = (*whole[:axis], 1, *whole[axis + 1 :])
    parts = []
    for at, matrix in enumerate(matrices):
        source = data if is_shared else _part(write, data, own, at)
        sizes = (*write.net.shapes[source][:-1], matrix.shape[1])
        part = _product(write, source, matrix, sizes, f"product{at}")
        parts.append(part if sizes == place else write.reshape(part, place, f"place{at}"))
    return write.add("Concat", parts, whole if is_inner else None, "join" * is_inner, axis=axis)


def _product(write: Writer, data: str, matrix: Array, shape: tuple[int, ...], wish: str) -> str:
    weights = write.constant(f"{wish}_weights", matrix)
    return write.add("MatMul", (data, weights), shape, wish)


def _part(write: Writer, data: str, axis: int, at: int) -> str:
    """One element of an axis, which it keeps."""
    shape = list(write.net.shapes[data])
    shape[axis] = 1
    limits = [
        write.constant(f"part{at}_{name}", np.array([value], np.int64))
        for name, value in (("start", at), ("end", at + 1), ("axis", axis))
    ]
    return write.add("Slice", (data, *limits), shape, f"part{at}")


def _turned(write: Writer, data: str) -> str:
    shape, turn = write.net.shapes[data], _turn(len(write.net.shapes[data]))
    return write.add("Transpose", (data,), [shape[a] for a in turn], "turned", perm=turn)


def _turn(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]
