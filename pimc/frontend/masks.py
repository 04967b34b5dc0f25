"""Masks: what attention adds to its scores so that a softmax leaves elements out.

A mask is minus infinity, or a number as low as the exporter could think of. Its value means
nothing, but in the range of a quantized tensor it would leave no steps for the scores. So it is
written as a sum with a finite constant, and raised as far as the softmax cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from pimc.frontend.net import Net, Op

LOWEST = np.float32(-1e9)  # stands for minus infinity until ranges are known
MASKED = -1e3  # a computed mask this low leaves its elements out
MARGIN = 8.0  # e^-8 of the largest weight is less than half a step of 1/256

Limits = Mapping[str, tuple[float, float]]


def spell_masks(net: Net) -> None:
    """Write masks as sums with finite constants, in place; drop tests of a softmax for NaN.

    A row without any finite element stays: its softmax is not a number.
    """
    _drop_nan_tests(net)
    _add_masks(net)
    for _, add, mask in list(_masked_sums(net)):
        values = net.constants[mask]
        largest = values.max(axis=-1, keepdims=True)
        if (values < largest - MARGIN).any() and np.isfinite(largest).all():
            own = net.fresh(f"{add.output}_mask")  # scores of another layer have another range
            net.constants[own] = np.maximum(values, LOWEST)
            net.add_like(own, mask)
            at = net.ops.index(add)
            net.ops[at] = replace(add, inputs=tuple(own if n == mask else n for n in add.inputs))
    net.remove_unused()


def raise_masks(net: Net, limits: Limits, leader: Mapping[str, str]) -> Limits:
    """Raise masks, in place, to what still leaves an element out; return the new limits.

    limits: calibrated ranges. leader: of a tensor, the one whose integers it is made of. An
    element is left out where, on the calibrated range of the scores, it stays ``MARGIN`` below the
    largest of its row: the softmax gives it less than half a step.
    """
    found = dict(limits)
    for scores, add, mask in _sums_before_softmax(net):
        known = limits.get(leader.get(scores, scores))
        if known is None or add.output not in limits:
            continue
        lowest = _lowest_kept(net, mask, known, limits.get(leader.get(mask, mask)))
        if lowest is not None:
            low, high = limits[add.output]
            found[add.output] = (max(low, known[0] + lowest - MARGIN), high)
    return found


def _lowest_kept(
    net: Net, mask: str, scores: tuple[float, float], computed: tuple[float, float] | None
) -> float | None:
    """The lowest value of a mask that keeps an element, None where it leaves none out.

    scores, computed: the ranges of the scores, and of a mask that depends on the inputs.
    """
    values = net.constants.get(mask)
    if values is None:  # it is 0, or as low as its range says
        return min(computed[1], 0.0) if computed and computed[0] <= MASKED else None
    if not values.ndim:
        return None
    floor = values.max(axis=-1, keepdims=True) - np.float32(scores[1] - scores[0] + MARGIN)
    is_kept = values >= floor
    if is_kept.all():
        return None
    net.constants[mask] = np.maximum(values, floor)
    return float(values[is_kept].min())


def _drop_nan_tests(net: Net) -> None:
    """Where(IsNaN(s), c, s) of a softmax s becomes s: whole numbers hold no NaN."""
    makers = net.producers()
    for at, op in enumerate(net.ops):
        if op.op_type != "Where" or op.domain:
            continue
        test, softmax = makers.get(op.inputs[0]), makers.get(op.inputs[2])
        if (
            test is not None
            and softmax is not None
            and test.op_type == "IsNaN"
            and softmax.op_type == "Softmax"
            and test.inputs[0] == softmax.output
            and net.is_constant(op.inputs[1])
        ):
            net.ops[at] = Op(op.name, "Identity", (softmax.output,), op.outputs)


def _add_masks(net: Net) -> None:
    """Where(constant, lowest, x) before a softmax becomes x + (lowest, or 0)."""
    readers = net.consumers()
    for at, op in enumerate(net.ops):
        if op.op_type != "Where" or op.domain or op.inputs[0] not in net.constants:
            continue
        if not any(_is_softmax(net, reader) for reader in readers.get(op.output, ())):
            continue
        condition = net.constants[op.inputs[0]].astype(bool)
        for kept, other, where in ((2, 1, condition), (1, 2, ~condition)):
            scores, value = op.inputs[kept], net.constants.get(op.inputs[other])
            if value is None or not np.all(value <= MASKED) or scores in net.constants:
                continue
            if net.shapes.get(scores) != net.shapes.get(op.output):
                continue
            mask = net.fresh(f"{op.output}_mask")
            net.constants[mask] = np.where(where, value, np.float32(0)).astype(np.float32)
            net.shapes[mask], net.types[mask] = net.constants[mask].shape, net.types[scores]
            net.ops[at] = Op(op.name, "Add", (scores, mask), op.outputs)
            break


def _is_softmax(net: Net, op: Op) -> bool:
    """Whether an operator is a softmax over the last axis, along which masks leave out."""
    if op.op_type != "Softmax" or op.domain or op.inputs[0] not in net.shapes:
        return False
    rank = len(net.shapes[op.inputs[0]])
    return int(op.attributes.get("axis", -1)) % rank == rank - 1


def _sums_before_softmax(net: Net) -> Iterator[tuple[str, Op, str]]:
    """A tensor, the Add to another that a softmax reads, and that other: both ways round."""
    makers = net.producers()
    for op in net.ops:
        add = makers.get(op.inputs[0]) if _is_softmax(net, op) else None
        if add is not None and add.op_type == "Add" and not add.domain:
            yield add.inputs[0], add, add.inputs[1]
            yield add.inputs[1], add, add.inputs[0]


def _masked_sums(net: Net) -> Iterator[tuple[str, Op, str]]:
    """Scores, the Add, and the constant added."""
    for scores, add, mask in _sums_before_softmax(net):
        if mask in net.constants and net.constants[mask].ndim and not net.is_constant(scores):
            yield scores, add, mask
