"""The pass manager: runs a pipeline and holds every exact pass to its promise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from isa.diagnostics import Diagnostic, Findings, Location
from isa.matrix import fold
from isa.program import Program
from passes.base import Pass
from passes.graph import Graph
from passes.mapping import MappedLayer, Mapping
from passes.weights import layer_weights

Around = Callable[[str], AbstractContextManager[object]]
Observe = Callable[[Pass[Any, Any], object], None]


def run_passes(
    unit: Graph | Mapping,
    passes: tuple[Pass[Any, Any], ...],
    around: Around = lambda name: nullcontext(),
    observe: Observe = lambda step, unit: None,
) -> Program:
    """Run the passes from a Graph or a Mapping to a Program; see ``apply_passes``."""
    made = apply_passes(unit, passes, around, observe)
    if not isinstance(made, Program):
        raise TypeError(f"the last pass made a {type(made).__name__}, not a Program")
    return made


def apply_passes(
    unit: object,
    passes: tuple[Pass[Any, Any], ...],
    around: Around = lambda name: nullcontext(),
    observe: Observe = lambda step, unit: None,
) -> Any:
    """Run passes one after another; the unit that the last one made.

    around: entered for the time of each pass and of each check, with its name: clock and progress.
    observe: hears of each pass and the unit it made, after the check: dumps and statistics.
    Raises PimError X802 when an exact mapping pass changed a weight.
    """
    for step in passes:
        with around(step.name):
            after = step.run(unit)
        if step.exact and isinstance(after, Mapping):
            with around("prove blocks"):
                check_mapping(step.name, unit, after)
        unit = after
        observe(step, unit)
    return unit


def check_mapping(name: str, before: object, after: Mapping) -> None:
    """Refuse a mapping whose blocks do not fold back to the weights W*.

    name: of the pass that made it. before: the unit it was given; layers whose blocks are those
    of ``before`` have been checked already. Raises PimError X802 with every layer that differs.
    """
    known = before.layers if isinstance(before, Mapping) else {}
    findings = Findings()
    for layer in after.layers.values():
        given = known.get(layer.node.name)
        if given is not None and given.blocks is layer.blocks:
            continue
        if problem := _problem(name, layer):
            findings.add(problem)
    findings.raise_if_any()


def _problem(name: str, layer: MappedLayer) -> Diagnostic | None:
    wanted = layer_weights(layer.node).matrix()
    differing = int(np.count_nonzero(fold(layer.blocks) != wanted))
    if not differing:
        return None
    return Diagnostic(
        "X802",
        f"`{layer.node.name}`: {differing} of {wanted.size} weights are not what the blocks of "
        f"`{name}` reconstruct",
        Location(node=layer.node.name),
        "this is a bug in the pass; compile with another `--mapping` and please report it",
    )
