"""Assign: the scale and zero point of every tensor that is held in 8 bits.

In this order: what the user's model says; what costs nothing afterwards (the producer of a clamp
or of a concatenation takes over the result's parameters, so that saturation is the clamp and the
concatenation needs no requantization); the calibrated range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pimc.frontend.net import INT_NAMES, Net, Op, QParams
from pimc.frontend.regions import (
    PASSING,
    SAME_TYPE,
    Region,
    Step,
    is_bool,
    step_inputs,
    step_outputs,
)

TRUTH = QParams(np.float32(1), 0)  # 0 and 1 are what they are
_HEADROOM = 2.0  # of a softmax: rows may have larger elements than those of the samples
_Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Holding:
    """Which tensors are held alike: ``leader[t]`` was computed, ``t`` is made of its integers."""

    leader: dict[str, str]
    users: dict[str, list[tuple[str, Step]]]  # leader -> (member, step that computes with it)


def holding(net: Net, steps: Sequence[Step]) -> Holding:
    """Group the held tensors by the computed tensor whose integers they carry."""
    numbers = net.numbers | net.raw
    leader = {p.tensor: p.tensor for p in net.inputs if p.tensor not in numbers}
    users: dict[str, list[tuple[str, Step]]] = {name: [] for name in leader}
    for step in steps:
        for name in step_inputs(net, step):  # what is no quantity has to go to the host yet
            users.setdefault(leader.setdefault(name, name), [])
        passing = is_passing(step) and bool(step_inputs(net, step))
        for name in step_outputs(net, step):
            leader[name] = leader[step_inputs(net, step)[0]] if passing else name
            users.setdefault(leader[name], [])
        if not passing:
            for name in step_inputs(net, step):
                users[leader[name]].append((name, step))
    return Holding(leader, users)


def is_passing(step: Step) -> bool:
    """Whether the integers of the result are those of the input."""
    return isinstance(step, Op) and step.op_type in PASSING and not step.domain


def insert_requantizations(net: Net) -> None:
    """Put an explicit Identity where the user's model changes the parameters in mere movement.

    A movement or a maximum hands its input's integers on. Where the model asks for other
    parameters behind it, the requantization becomes a step of its own.
    """
    carried = dict(net.qparams)
    ops: list[Op] = []
    for op in net.ops:
        if not is_passing(op):
            ops.append(op)
            continue
        before = carried.get(op.inputs[0])
        outputs, after = [], []
        for name in op.outputs:
            wanted = net.qparams.get(name)
            if name and wanted is not None and before is not None and wanted != before:
                moved = net.fresh(f"{name}_moved")
                net.add_like(moved, name)
                if name in net.batched:
                    net.batched.add(moved)
                carried[moved] = before
                outputs.append(moved)
                after.append(Op(f"{op.name}/requantize", "Identity", (moved,), (name,)))
            else:
                outputs.append(name)
                if wanted is None and before is not None:
                    carried[name] = before
        ops += [replace(op, outputs=tuple(outputs)), *after]
    net.ops = ops


def unknown_ranges(net: Net, steps: Sequence[Step], held: Holding) -> list[str]:
    """Leaders whose range has to be calibrated."""
    return _assign(net, steps, held, None)[1][::-1]


def assign(
    net: Net,
    steps: Sequence[Step],
    held: Holding,
    ranges: _Ranges,
) -> dict[str, QParams]:
    """Quantization of every held tensor."""
    return _assign(net, steps, held, ranges)[0]


def _assign(
    net: Net,
    steps: Sequence[Step],
    held: Holding,
    ranges: _Ranges | None,
) -> tuple[dict[str, QParams], list[str]]:
    outputs = {held.leader[name] for name in net.output_tensors() if name in held.leader}
    explicit = explicit_qparams(net, held)
    for port in (*net.inputs, *net.outputs):  # integers that nobody gives a meaning keep their own
        if port.elem_type in INT_NAMES and port.tensor in held.leader:
            own = QParams(np.float32(1), 0, INT_NAMES[port.elem_type])
            explicit.setdefault(held.leader[port.tensor], own)
    truths = (name for name in held.users if is_bool(net, name))
    explicit |= dict.fromkeys(truths, TRUTH)
    dtypes = _dtypes(net, steps, held, explicit)
    chosen: dict[str, QParams] = {}
    unknown: list[str] = []
    softmax = {s.output for s in steps if isinstance(s, Op) and s.op_type == "Softmax"}
    for name in reversed(list(held.users)):  # consumers first
        follower = None if name in outputs else follower_of(net, held, name)
        if name in net.reals:
            continue
        if follower in net.reals:
            follower = None
        if name in explicit:
            chosen[name] = explicit[name]
        elif follower is not None and follower in chosen:
            chosen[name] = chosen[follower]
        elif follower is not None:
            pass  # the follower is calibrated, this one follows
        elif ranges is None:
            unknown.append(name)
        elif name in softmax:
            chosen[name] = _of_softmax(ranges[name][1]).retyped(dtypes[name])
        else:
            chosen[name] = from_range(*ranges[name], dtypes[name])
    members = {name: chosen[leader] for name, leader in held.leader.items() if leader in chosen}
    return members | net.qparams, unknown


def _of_softmax(largest: float) -> QParams:
    """From 0 to 1, which itself saturates; finer where many elements share a row."""
    return QParams(np.float32(min(1.0, _HEADROOM * largest) / 256), -128)


def explicit_qparams(net: Net, held: Holding) -> dict[str, QParams]:
    """What the user's model says about each leader, itself or through one of its members."""
    found: dict[str, QParams] = {}
    for name, leader in held.leader.items():
        if name in net.qparams and (leader == name or leader not in net.qparams):
            found.setdefault(leader, net.qparams[name])
    return found


def _dtypes(
    net: Net, steps: Sequence[Step], held: Holding, explicit: Mapping[str, QParams]
) -> dict[str, str]:
    """The integer type of each leader: the model's own, else what spares a change of type."""
    kinds = [qparams.dtype for qparams in net.qparams.values()]
    default = "u8" if kinds.count("u8") > kinds.count("s8") else "s8"
    found = {name: explicit[name].dtype if name in explicit else default for name in held.users}
    for step in steps:
        follows = step.is_clamp if isinstance(step, Region) else step.op_type in SAME_TYPE
        for name in step_outputs(net, step):
            if follows and held.leader[name] not in explicit:
                found[held.leader[name]] = found[held.leader[step_inputs(net, step)[0]]]
    return found


def follower_of(net: Net, held: Holding, name: str) -> str | None:
    """The tensor whose parameters ``name`` takes over: its only reader is a clamp, a Concat, or
    a choice by a constant, which is movement."""
    readers = held.users[name]
    if len(readers) != 1:
        return None
    _, step = readers[0]
    if isinstance(step, Region):
        return held.leader[step.output] if step.is_clamp else None
    constant = [net.is_constant(source) for source in step.inputs]
    is_known_choice = step.op_type == "Where" and constant == [True, False, False]
    return held.leader[step.output] if step.op_type == "Concat" or is_known_choice else None


def from_range(low: float, high: float, dtype: str = "s8") -> QParams:
    """Asymmetric parameters for a range, which is widened to hold zero exactly.

    A range of one point 0 gives scale 1. The scale is rounded to float32 before the zero point
    is derived from it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255.0)
    first = -128 if dtype == "s8" else 0
    if not scale > np.finfo(np.float32).tiny:
        return QParams(np.float32(1.0), first if low == 0 else first + 255, dtype)
    zero = int(np.clip(np.rint(first - low / float(scale)), first, first + 255))
    return QParams(scale, zero, dtype)
