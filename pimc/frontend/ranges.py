"""Ranges: one calibrated range for each tensor, over the input shapes of all programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isa.diagnostics import Diagnostic, Location, PimError
from pimc.frontend.assign import Holding, holding, insert_requantizations, unknown_ranges
from pimc.frontend.calibrate import Method, Ranges, calibrate
from pimc.frontend.islands import mark_islands, note_integers
from pimc.frontend.masks import raise_masks, warn_of_wide_choices
from pimc.frontend.net import Array, Net
from pimc.frontend.regions import Step, plan

Limits = dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Planned:
    """A net with its steps; unknown: the tensors whose range only samples tell."""

    net: Net
    steps: Sequence[Step]
    held: Holding
    unknown: list[str]


def planned(net: Net) -> Planned:
    """What of a net has to be calibrated. Requantizations of the model become steps."""
    insert_requantizations(net)
    note_integers(net, mark_islands(net))
    steps = plan(net)
    held = holding(net, steps)
    return Planned(net, steps, held, unknown_ranges(net, steps, held))


def common_ranges(
    plans: Sequence[Planned],
    calibration: Sequence[Mapping[str, Array]],
    method: Method,
    seed: int,
) -> Limits:
    """Range by tensor name, the widest that any shape's samples give.

    plans: of one network, one for each input shape. calibration: sample sets, each of one of the
    shapes; without any, random noise in every shape. A shape without samples of its own takes
    the ranges of the others. Raises PimError as ``calibrate``, F220 for samples of no shape, F223
    for tensors that only stand in shapes without samples.
    """
    if not any(each.unknown for each in plans):
        return {}
    own: list[Limits] = []
    for each, data in zip(plans, sorted_sets(plans, calibration), strict=True):
        own.append({})
        if each.unknown and (data is not None or not calibration):
            found = calibrate(each.net, each.unknown, data, method, seed)
            _note(each, found)
            own[-1] = found.limits
    common = _widest(own)
    for each in plans:
        _refuse_missing(each, common)
    limits = common | _widest([_raised(*pair, common) for pair in zip(plans, own, strict=True)])
    for each in plans:
        warn_of_wide_choices(each.net, limits, each.held.leader)
    return limits


def _widest(limits: Sequence[Limits]) -> Limits:
    found: Limits = {}
    for name, (low, high) in (item for each in limits for item in each.items()):
        known = found.get(name, (low, high))
        found[name] = (min(low, known[0]), max(high, known[1]))
    return found


def _raised(each: Planned, own: Limits, common: Limits) -> Limits:
    """The ranges of one shape after its masks are raised to what the common ranges ask for."""
    raised = raise_masks(each.net, common, each.held.leader)
    return own | {name: limit for name, limit in raised.items() if limit != common[name]}


def sorted_sets(
    plans: Sequence[Planned], calibration: Sequence[Mapping[str, Array]]
) -> list[Mapping[str, Array] | None]:
    """The samples of each shape, None where there are none or nothing is unknown.

    Sets of one shape are joined. Raises PimError F220 for samples of no shape.
    """
    if not any(each.unknown for each in plans):
        return [None] * len(plans)
    sets: list[list[Mapping[str, Array]]] = [[] for _ in plans]
    for data in calibration:
        fitting = [at for at, each in enumerate(plans) if _fits(each.net, data)]
        if not fitting and len(plans) > 1:
            found = ", ".join(f"`{name}` {list(np.shape(array))}" for name, array in data.items())
            message = f"calibration data {found} is of none of the input shapes"
            hint = f"expected {' or '.join(_samples_of(each.net) for each in plans)}"
            raise PimError(Diagnostic("F220", message, hint=hint))
        if not fitting:
            return [data]  # ``calibrate`` says what does not fit
        sets[fitting[0]].append(data)
    return [_joined(each.net, found) for each, found in zip(plans, sets, strict=True)]


def _joined(net: Net, sets: Sequence[Mapping[str, Array]]) -> Mapping[str, Array] | None:
    if len(sets) < 2:
        return sets[0] if sets else None
    return {port.name: np.concatenate([data[port.name] for data in sets]) for port in net.inputs}


def _fits(net: Net, data: Mapping[str, Array]) -> bool:
    wanted = _sample_shapes(net).items()
    return all(name in data and np.shape(data[name])[1:] == shape for name, shape in wanted)


def _sample_shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each input, without the batch axis."""
    batched = {port.name: port.tensor in net.batched for port in net.inputs}
    return {port.name: net.shapes[port.tensor][batched[port.name] :] for port in net.inputs}


def _samples_of(net: Net) -> str:
    shapes = _sample_shapes(net).items()
    return ", ".join(f"`{n}` [samples, {', '.join(map(str, shape))}]" for n, shape in shapes)


def _note(each: Planned, found: Ranges) -> None:
    if found.is_random:
        each.net.notes.warning(
            "F221",
            f"no calibration data: the ranges of {len(each.unknown)} tensors come from "
            f"{found.samples} samples of random noise, so the accuracy means nothing",
            hint="give real samples with --calib FILE.npz, one array per model input",
        )


def _refuse_missing(each: Planned, limits: Limits) -> None:
    missing = [name for name in each.unknown if name not in limits]
    if missing:
        text = f"no samples tell the range of tensor `{missing[0]}`"
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        hint = f"it only stands in one of the shapes; calibrate with {_samples_of(each.net)}, too"
        at = Location(node=f"tensor `{missing[0]}`")
        raise PimError(Diagnostic("F223", text + others, at, hint))
