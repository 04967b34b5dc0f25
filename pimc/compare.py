"""Compare: every mapping scheme on one network, priced by one model, proved and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isa.diagnostics import Findings
from isa.matrix import BlockMatrix, fold
from isa.target import Target
from passes.best import SCHEMES, Objective, choose
from passes.estimate import MappingCost, estimate
from passes.graph import Graph, MatrixNode
from passes.mapping import MappedLayer
from passes.mapping import Mapping as Mapped
from passes.ou_tile import ou_tile
from passes.schedule import Schedule
from passes.split import Split
from passes.weights import LayerWeights, layer_weights
from pimc.check import verify_program
from pimc.data import Array, random_feeds
from pimc.frontend.build import Imported

BEST = "best"
FIGURES = (
    "stored_columns",
    "stored_cells",
    "crossbars",
    "ou_fires",
    "conversions",
    "route_adds",
    "table_bits",
    "energy_pj",
    "area_um2",
    "time_ns",
    "time_equal_crossbars_ns",
)


@dataclass(frozen=True)
class Row:
    """One scheme on the whole network. equal: None when it was not run."""

    scheme: str
    cost: MappingCost
    reconstructs: bool
    equal: bool | None

    def as_json(self) -> dict[str, Any]:
        figures = {name: getattr(self.cost, name) for name in FIGURES}
        return {
            "scheme": self.scheme,
            **figures,
            "reconstructs": self.reconstructs,
            "equal": self.equal,
        }


def scheme_names() -> tuple[str, ...]:
    """What can be compared; the plain mapping first, the optimizer last."""
    return (*SCHEMES, BEST)


def compare_schemes(
    imported: Imported,
    target: Target,
    schemes: Sequence[str],
    objective: Objective = "energy",
    samples: int = 1,
    progress: Callable[[str], None] = lambda scheme: None,
) -> list[Row]:
    """One row per scheme, all bookkeeping charged, on the same integer weights.

    samples: random ones on which each scheme's program is run against onnxruntime; 0 for none.
    Raises PimError U902 for unknown schemes, all of them.
    """
    _check_names(schemes)
    rows = []
    for scheme in schemes:
        progress(scheme)
        mapping, cost = _mapped(imported.graph, target, scheme, objective)
        rows.append(Row(scheme, cost, _reconstructs(mapping), _equal(imported, mapping, samples)))
    return rows


def _check_names(schemes: Sequence[str]) -> None:
    findings = Findings()
    for name in schemes:
        if name not in scheme_names():
            hint = f"the schemes are {', '.join(scheme_names())}"
            if name == "prap":
                hint = "prap changes weights: `pimc.compress` does that; then compare the result"
            findings.error("U902", f"there is no exact scheme `{name}`", hint=hint)
    findings.raise_if_any()


def _mapped(
    graph: Graph, target: Target, scheme: str, objective: Objective
) -> tuple[Mapped, MappingCost]:
    """All layers under one scheme, and the sum of their costs."""
    layers: dict[str, MappedLayer] = {}
    total = MappingCost()
    for node in graph.nodes:
        if isinstance(node, MatrixNode):
            rows, columns, _ = graph.values[node.output].shape
            weights = layer_weights(node)
            blocks, cost = _layer(weights, rows * columns, target, scheme, objective)
            layers[node.name] = MappedLayer(node, blocks)
            total = total + cost
    return Mapped(graph, target, layers), total


def _layer(
    weights: LayerWeights, windows: int, target: Target, scheme: str, objective: Objective
) -> tuple[BlockMatrix, MappingCost]:
    if scheme == BEST:
        choice = choose(weights, windows, target, objective)
        return choice.blocks, choice.cost
    sizes = {"kernel_size": weights.kernel_size, "sections": len(weights.values)}
    dense = estimate(ou_tile(weights, target), windows, target, objective=objective, **sizes)
    blocks = SCHEMES[scheme](weights, target)
    cost = estimate(
        blocks, windows, target, crossbars=dense.crossbars, objective=objective, **sizes
    )
    return blocks, cost


def _reconstructs(mapping: Mapped) -> bool:
    """Whether every layer's blocks give its integer weights back."""
    return all(
        np.array_equal(fold(layer.blocks), layer_weights(layer.node).matrix())
        for layer in mapping.layers.values()
    )


def _equal(imported: Imported, mapping: Mapped, samples: int) -> bool | None:
    """Whether the scheme's program computes onnxruntime's integers on random samples."""
    if not samples:
        return None
    program = Schedule(grow=True).run(Split().run(mapping))
    target = mapping.target.with_mesh(len(program.cores))
    program = replace(program, target=target.name, target_sha256=target.sha256)
    feeds: Mapping[str, Array] = random_feeds(program, samples, seed=0)
    found = verify_program(program, target, imported.reference, None, feeds, per_layer=True)
    return found.max_abs_diff_lsb == 0


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each figure relative to the first row: how many times smaller it is."""
    first = rows[0].cost
    return [
        {
            "scheme": row.scheme,
            **{
                name: getattr(first, name) / max(getattr(row.cost, name), 1e-30)
                for name in ("stored_cells", "crossbars", "energy_pj", "time_equal_crossbars_ns")
            },
        }
        for row in rows
    ]
