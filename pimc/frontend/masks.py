"""Masks: what attention adds to its scores so that a softmax leaves elements out.

A mask is minus infinity, or a number as low as the exporter could think of. Its value means
nothing, but in the range of a quantized tensor it would leave no steps for the scores. So it is
written as a sum with a finite constant, or a choice of one by a computed mask, and raised as far
as the softmax cannot tell. A maximum over what a choice left out is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from isa.diagnostics import Location
from pimc.frontend.net import Net, Op

LOWEST = np.float32(-1e9)  # stands for minus infinity until ranges are known
FEWEST_STEPS = 4  # that a choice has to leave its tensor
MASKED = -1e3  # a computed mask this low leaves its elements out
MARGIN = 8.0  # e^-8 of the largest weight is less than half a step of 1/256

_MAXIMA = frozenset(("ReduceMax", "GlobalMaxPool", "MaxPool"))
_SEES_THROUGH = frozenset(
    ("Add", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)

Limits = Mapping[str, tuple[float, float]]


def spell_masks(net: Net) -> None:
    """Write masks as sums with finite constants, in place; drop tests of a softmax for NaN.

    A row without any finite element stays: its softmax is not a number.
    """
    _drop_nan_tests(net)
    _add_masks(net)
    _spell_choices(net)
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
    for op, tensor, margin in _choices_of_lowest(net):
        known = found.get(leader.get(tensor, tensor))
        if known is not None and op.output in limits:
            low, high = limits[op.output]
            found[op.output] = (max(low, known[0] - margin), high)
    for scores, add, mask in _sums_before_softmax(net):
        known = found.get(leader.get(scores, scores))
        if known is None or add.output not in limits:
            continue
        lowest = _lowest_kept(net, mask, known, limits.get(leader.get(mask, mask)))
        if lowest is not None:
            low, high = limits[add.output]
            found[add.output] = (max(low, known[0] + lowest - MARGIN), high)
    return found


def warn_of_wide_choices(net: Net, limits: Limits, leader: Mapping[str, str]) -> None:
    """Note each choice whose constant takes the tensor beside it nearly all of the 256 steps."""
    for op in net.ops:
        tensors = [name for name in op.inputs[1:] if not net.is_constant(name)]
        if op.op_type != "Where" or op.domain or len(tensors) != 1:
            continue
        known, result = limits.get(leader.get(tensors[0], tensors[0])), limits.get(op.output)
        if known is None or result is None or known[0] == known[1] or result[0] == result[1]:
            continue
        steps = 255 * (known[1] - known[0]) / (result[1] - result[0])
        if steps < FEWEST_STEPS:
            net.notes.warning(
                "F227",
                f"Where `{op.name}`: its constant makes its result range from {result[0]:.4g} to "
                f"{result[1]:.4g}; that leaves `{tensors[0]}`, from {known[0]:.4g} to "
                f"{known[1]:.4g}, {steps:.1f} of 256 steps",
                Location(node=f"Where `{op.name}`"),
                "choose a constant nearer to the values, or do it behind the model",
            )


def _lowest_kept(
    net: Net, mask: str, scores: tuple[float, float], computed: tuple[float, float] | None
) -> float | None:
    """The lowest value of a mask that keeps an element, None where it leaves none out.

    scores, computed: the ranges of the scores, and of a mask that depends on the inputs.
    """
    values = net.constants.get(mask)
    if values is None:  # it is 0, or as low as its range says
        return min(computed[1], 0.0) if computed and computed[0] <= MASKED else None
    if not values.ndim or not values.size:
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


def _spell_choices(net: Net) -> None:
    """Where(computed, lowest, x) where nobody sees how low: with a finite constant of its own."""
    for op, _, _ in list(_choices_of_lowest(net)):
        at = net.ops.index(op)
        inputs = list(op.inputs)
        for place in (1, 2):
            if _is_lowest(net, inputs[place]):
                own = net.fresh(f"{op.output}_lowest")
                net.constants[own] = np.maximum(net.constants[inputs[place]], LOWEST)
                net.add_like(own, inputs[place])
                inputs[place] = own
        net.ops[at] = replace(op, inputs=tuple(inputs))


def _is_lowest(net: Net, name: str) -> bool:
    values = net.constants.get(name)
    return values is not None and values.dtype.kind == "f" and bool(np.any(values <= MASKED))


def _choices_of_lowest(net: Net) -> Iterator[tuple[Op, str, float]]:
    """A choice of a lowest constant that a softmax or a maximum leaves out, and what else it takes.

    Also how far below that the constant has to be: a maximum never takes what is as low.
    """
    margins = _margins(net)
    for op in net.ops:
        if op.op_type != "Where" or op.domain or op.output not in margins:
            continue
        if net.is_constant(op.inputs[0]):
            continue
        for kept, other in ((op.inputs[1], op.inputs[2]), (op.inputs[2], op.inputs[1])):
            if _is_lowest(net, other) and not _is_lowest(net, kept):
                yield op, kept, margins[op.output]


def _margins(net: Net) -> dict[str, float]:
    """Tensors that nothing but softmaxes and maxima reads, maybe after sums or other choices."""
    found: dict[str, float] = {}
    readers, outputs = net.consumers(), net.output_tensors()
    for op in reversed(net.ops):
        for name in op.outputs:
            margins = [_margin(net, reader, name, found) for reader in readers.get(name, ())]
            if margins and name not in outputs and None not in margins:
                found[name] = max(margin for margin in margins if margin is not None)
    return found


def _margin(net: Net, reader: Op, name: str, known: Mapping[str, float]) -> float | None:
    """How far below all others a value has to be so that a reader leaves it out."""
    if reader.domain or name not in net.shapes:
        return None
    if reader.op_type in _MAXIMA:
        return 0.0
    if _is_softmax(net, reader):
        return MARGIN
    passes = reader.op_type in _SEES_THROUGH or (
        reader.op_type == "Where" and name != reader.inputs[0]
    )
    return known.get(reader.output) if passes else None


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
        values = net.constants.get(mask)
        if values is not None and values.ndim and values.size and not net.is_constant(scores):
            yield scores, add, mask
