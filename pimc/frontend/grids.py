"""Grids: a word where 256 steps are too coarse for what a tensor holds on the samples.

A divisor that rounds to 0 makes infinite quotients, and a range that a few outliers have widened
leaves one or two steps for everything else. The integers are right all the same, so that no
comparison of integers shows either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from isa.diagnostics import Location
from pimc.frontend.calibrate import feeds_of
from pimc.frontend.export import float_model
from pimc.frontend.net import Array, Net, Op, QParams
from pimc.frontend.partitions import body_of, is_host
from pimc.frontend.session import open_session, runtime_error

SAMPLES = 4  # that are looked at
CROWDED = 0.99  # share of the elements within one step of 0
_DIVISORS = {"Div": 1, "Reciprocal": 0}  # operator -> the input that it divides by
_NARROWER = (
    "calibrate without them, or with `--calib-method percentile`, which leaves out 1 in 200,000"
)
Grids = Mapping[str, QParams]


class Census(NamedTuple):
    """How many elements of a tensor are not 0, and of those, are within one step or round to 0."""

    others: float
    near: float
    lost: float


def warn_of_grids(
    net: Net, grids: Grids, calibrated: Iterable[str], data: Mapping[str, Array] | None, seed: int
) -> None:
    """Note F230 for divisors that round to 0 and F231 for crowded tensors, on a few samples.

    grids: of every tensor held in 8 bits. calibrated: those whose range is from samples; noise
    (no ``data``) tells nothing of how they are spread. Raises PimError F240.
    """
    divisors = {name: op for name, op in _divisors(net) if name in grids}
    spread = dict.fromkeys(calibrated if data is not None else ())
    wanted = {name: grids[name] for name in (*divisors, *spread) if name in net.shapes}
    if not wanted:
        return
    found = _census(net, wanted, data, seed)
    for name, op in divisors.items():
        if name in found and found[name].lost:
            _warn_of_divisor(net, op, name, grids[name], found[name])
    crowded = [name for name in spread if name in found and _is_crowded(found[name])]
    if crowded:
        _warn_of_crowd(net, crowded, grids[crowded[0]], found[crowded[0]])


def _divisors(net: Net) -> Iterator[tuple[str, Op]]:
    for op in net.ops:
        for inner in body_of(op) if is_host(op) else (op,):
            if inner.op_type in _DIVISORS and not inner.domain:
                yield inner.inputs[_DIVISORS[inner.op_type]], inner


def _is_crowded(found: Census) -> bool:
    return found.near >= CROWDED * found.others > 0


def _census(
    net: Net, grids: Grids, data: Mapping[str, Array] | None, seed: int
) -> dict[str, Census]:
    """Counts over the samples, made by onnxruntime beside the float network."""
    model = float_model(net)
    del model.graph.output[:]
    for number, (name, held) in enumerate(grids.items()):
        _count(model.graph, name, f"census/{number}", float(held.scale))
    session = open_session(model)
    total = np.zeros((len(grids), len(Census._fields)))
    try:
        for feed in islice(feeds_of(net, data, seed)[0], SAMPLES):
            total += np.reshape(session.run(None, feed), total.shape)
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise runtime_error("cannot run the float model", error) from error
    return {name: Census(*counts) for name, counts in zip(grids, total.tolist(), strict=True)}


def _count(graph: onnx.GraphProto, tensor: str, prefix: str, step: float) -> None:
    """Add nodes and three outputs: elements that are not 0, near 0, and lost."""

    def add(op: str, result: str, *inputs: str, **attributes: Any) -> str:
        node = helper.make_node(op, inputs, [f"{prefix}/{result}"], **attributes)
        graph.node.append(node)
        return f"{prefix}/{result}"

    size = add("Abs", "size", tensor)
    is_other = add("Cast", "is_other", size, to=onnx.TensorProto.BOOL)
    for result, limit in zip(Census._fields, (np.inf, step, step / 2), strict=True):
        graph.initializer.append(
            numpy_helper.from_array(np.array(limit, np.float32), f"{prefix}/{result}/limit")
        )
        below = add("Less", f"{result}/below", size, f"{prefix}/{result}/limit")
        both = add("And", f"{result}/both", below, is_other)
        ones = add("Cast", f"{result}/ones", both, to=onnx.TensorProto.FLOAT)
        add("ReduceSum", result, ones, keepdims=0)
        graph.output.append(
            helper.make_tensor_value_info(f"{prefix}/{result}", onnx.TensorProto.FLOAT, ())
        )


def _grid(held: QParams) -> str:
    low, high = ((limit - held.zero) * float(held.scale) for limit in held.limits)
    return f"range {low:.4g}..{high:.4g}, held in steps of {float(held.scale):.4g}"


def _warn_of_divisor(net: Net, op: Op, name: str, held: QParams, found: Census) -> None:
    label = f"{op.op_type} `{op.name}`"
    share = found.lost / found.others
    net.notes.warning(
        "F230",
        f"{label} divides by `{name}` ({_grid(held)}), and {share:.2%} of its elements that are "
        "not 0 round to 0: their quotients are infinite",
        Location(node=label),
        f"add at least {float(held.scale):.4g} to the divisor, clip it there, or narrow its range. "
        f"Outliers: {_NARROWER}",
    )


def _warn_of_crowd(net: Net, crowded: list[str], held: QParams, found: Census) -> None:
    name = crowded[0]
    others = f"; so do those of {len(crowded) - 1} other tensors" if crowded[1:] else ""
    net.notes.warning(
        "F231",
        f"{found.near / found.others:.1%} of the elements of `{name}` that are not 0 "
        f"({_grid(held)}) lie within one step of 0, where 8 bits hardly tell them apart{others}",
        Location(node=f"tensor `{name}`"),
        f"look for what makes the outliers; {_NARROWER}",
    )
