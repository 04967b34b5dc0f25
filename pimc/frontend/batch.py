"""Batch: which tensors keep the images on axis 0, so that the reference runs on any number of them.

Shapes are fixed at batch 1, where a Reshape to [1, 400] does not say whether its 1 is the batch:
each operator is asked whether it keeps axis 0 apart.
"""

from __future__ import annotations

import math

import numpy as np

from pimc.frontend.net import Net, Op
from pimc.frontend.partitions import is_host
from pimc.frontend.recurrent import KINDS
from pimc.frontend.regions import is_lookup

_REDUCTIONS = frozenset(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"))


def spread_batch(net: Net) -> None:
    """Extend ``net.batched`` from the inputs to every tensor.

    What meets a tensor that has mixed its images, as windows of a shifted attention do, is mixed.
    """
    mixed: set[str] = set()
    for op in net.ops:
        sources = [name for name in op.inputs if name in net.batched]
        is_mixed = not mixed.isdisjoint(op.inputs)
        for name in op.outputs:
            if not name or not (sources or is_mixed):
                continue
            if not is_mixed and all(_keeps(net, op, source, name) for source in sources):
                net.batched.add(name)
            else:
                mixed.add(name)


def _keeps(net: Net, op: Op, source: str, output: str) -> bool:
    before, after = net.shapes.get(source), net.shapes.get(output)
    if not before or not after or after[0] != before[0]:
        return False
    kind, rank = op.op_type, len(before)
    if is_host(op) or is_lookup(net, op):  # the host runs image by image, at batch 1
        return True
    if kind in KINDS:
        return False  # axis 0 is the sequence
    if kind in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        is_whole = math.prod(before) == math.prod(after)  # else it writes a shape of several images
        return is_whole and 0 not in _axes(net, op, rank if kind == "Squeeze" else len(after))
    if kind == "Transpose":
        return int(op.attributes.get("perm", range(rank)[::-1])[0]) == 0
    if kind in ("Concat", "Gather", "Split", "Softmax", "LogSoftmax"):
        default = -1 if kind.endswith("Softmax") else 0
        holds_one = kind == "Concat" and any(map(net.is_constant, op.inputs))  # of one image
        return not holds_one and int(op.attributes.get("axis", default)) % rank != 0
    if kind == "Slice":
        return 0 not in _slice_axes(net, op, rank)
    if kind == "MatMul":
        return rank > 1 and (source == op.inputs[0] or rank > 2)
    if kind == "LayerNormalization":
        return int(op.attributes.get("axis", -1)) % rank != 0
    if kind == "Gemm":
        return not op.attributes.get("transA")
    if kind in _REDUCTIONS:
        return 0 not in _axes(net, op, rank)
    return len(after) == rank


def _axes(net: Net, op: Op, rank: int) -> set[int]:
    axes = op.attributes.get("axes")
    if axes is None and op.op_type != "Reshape" and op.input(1) and net.is_constant(op.input(1)):
        axes = net.constant(op.input(1)).reshape(-1).tolist()
    return {int(axis) % rank for axis in axes or ()}


def _slice_axes(net: Net, op: Op, rank: int) -> set[int]:
    if op.input(3) and net.is_constant(op.input(3)):
        return {int(axis) % rank for axis in np.ravel(net.constant(op.input(3)))}
    starts = op.input(1)
    return set(range(net.constant(starts).size)) if net.is_constant(starts) else set(range(rank))
