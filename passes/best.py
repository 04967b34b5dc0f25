"""Best: per layer, the mapping that a target's energy, time or area likes most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np

from isa.matrix import BlockMatrix
from isa.target import Target
from passes.base import Pass
from passes.encoding import encode, encodings_for, plain_encoding, signed_bits
from passes.estimate import MappingCost, estimate, objective_value, span_cycles
from passes.graph import Graph, MatrixNode
from passes.grouping import coded_height, exact_height
from passes.kernel_reorder import kernel_reorder, reordered_groups
from passes.mapping import MappedLayer, Mapping
from passes.ou_tile import ou_tile
from passes.pattern_dedup import DedupPlan, pattern_dedup
from passes.plane_skip import plane_skip
from passes.prices import prices
from passes.row_compress import compressed_groups, row_compress
from passes.shared_columns import distinct_columns
from passes.weights import LayerWeights, layer_weights

Objective = Literal["energy", "latency", "area"]
SAMPLE_GROUPS = 16  # row groups that a plan is ranked by
HEIGHTS = 7  # row-group heights that are tried, from the tallest down
Scheme = Callable[[LayerWeights, Target], BlockMatrix]
SCHEMES: Final[dict[str, Scheme]] = {
    "dense": ou_tile,
    "dedup": lambda weights, target: pattern_dedup(weights, target),
    "pattpim": lambda weights, target: pattern_dedup(weights, target, DedupPlan("filter")),
    "plane-skip": plane_skip,
    "occ": lambda weights, target: row_compress(weights, target, "output"),
    "sre": row_compress,
    "yu": kernel_reorder,
    "sre+dedup": lambda weights, target: row_compress(weights, target, shared=True),
    "yu+dedup": lambda weights, target: kernel_reorder(weights, target, shared=True),
}
# row groups of the schemes that store distinct columns on the groups of another one
SHARED: Final = {"sre+dedup": compressed_groups, "yu+dedup": reordered_groups}


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen for a layer.

    scheme: a name of ``SCHEMES``, or "plan" with the plan of pattern de-duplication. cost: with
    ``time_equal_crossbars_ns`` on as many crossbars as ``dense`` takes.
    """

    scheme: str
    plan: DedupPlan | None
    blocks: BlockMatrix
    cost: MappingCost
    dense: MappingCost


@dataclass(frozen=True)
class Best(Pass[Graph, Mapping]):
    """Choose scheme, row-group height, encoding and row order for each layer.

    Before -> after: 64 outputs -> groups of 5 rows, whose 31 columns repeat often; 2048 outputs
    -> groups of 8 rows: taller groups need fewer routes, and firing 255 columns is nothing.
    Exact: yes. It only picks among exact schemes. Never worse than any single one of them by
    `MappingCost`, because those that could win are built and priced as well.
    """

    name: ClassVar[str] = "best"
    exact: ClassVar[bool] = True
    target: Target
    objective: Objective = "energy"

    def run(self, unit: Graph) -> Mapping:
        layers = {}
        for node in unit.nodes:
            if isinstance(node, MatrixNode):
                rows, columns, _ = unit.values[node.output].shape
                choice = choose(layer_weights(node), rows * columns, self.target, self.objective)
                layers[node.name] = MappedLayer(node, choice.blocks)
        return Mapping(unit, self.target, layers)


def choose(
    weights: LayerWeights, windows: int, target: Target, objective: Objective = "energy"
) -> Choice:
    """The best mapping of one layer that takes ``windows`` windows per image.

    Plans of pattern de-duplication are ranked on a sample of the row groups; the winner and every
    single scheme that could still beat it are then built and priced in full.
    """
    task = _Task(weights, windows, target, objective)
    plan = task.best_plan()
    best = task.priced("plan", pattern_dedup(weights, target, plan), plan)
    for name, scheme in SCHEMES.items():
        if name == "dense":
            best = min(best, task.dense_choice, key=task.value)
        elif task.floor(name) < task.value(best)[0]:
            blocks = scheme(weights, target)
            if task.column_floor(blocks.columns) < task.value(best)[0]:
                best = min(best, task.priced(name, blocks), key=task.value)
    return best


class _Task:
    """One layer's search: what it asks of the schemes, and its dense mapping to compare with."""

    def __init__(
        self, weights: LayerWeights, windows: int, target: Target, objective: Objective
    ) -> None:
        self._weights, self._windows, self._target = weights, windows, target
        self._objective = objective
        blocks = ou_tile(weights, target)
        dense = self._estimate(blocks)
        self._crossbars: int | None = dense.crossbars
        self.dense_choice = Choice("dense", None, blocks, dense, dense)

    def _estimate(self, blocks: BlockMatrix, crossbars: int | None = None) -> MappingCost:
        return estimate(
            blocks,
            self._windows,
            self._target,
            kernel_size=self._weights.kernel_size,
            sections=len(self._weights.values),
            crossbars=crossbars,
            objective=self._objective,
        )

    def priced(self, scheme: str, blocks: BlockMatrix, plan: DedupPlan | None = None) -> Choice:
        cost = self._estimate(blocks, self._crossbars)
        return Choice(scheme, plan, blocks, cost, self.dense_choice.cost)

    def value(self, choice: Choice) -> tuple[float, float]:
        return objective_value(choice.cost, self._objective)

    def best_plan(self) -> DedupPlan:
        """Height, then encoding, granularity and row order: each the best, given the former."""
        plan = DedupPlan("column", plain_encoding(self._target.crossbar.cell_bits))
        for options in (self._heights, self._encodings, self._filters, self._orders):
            ranked = {option: self._sampled(option) for option in options(plan)}
            plan = min(ranked, key=lambda option: ranked[option])
        return plan

    def _heights(self, plan: DedupPlan) -> Iterator[DedupPlan]:
        tallest = coded_height(self._target)
        for height in range(tallest, max(0, tallest - HEIGHTS), -1):
            yield replace(plan, height=height)

    def _encodings(self, plan: DedupPlan) -> Iterator[DedupPlan]:
        yield plan
        for encoding in encodings_for(self._target.crossbar.cell_bits):
            if encoding not in (plan.encoding, "differential"):  # its columns: sign-magnitude's
                yield replace(plan, encoding=encoding)

    def _filters(self, plan: DedupPlan) -> Iterator[DedupPlan]:
        yield plan
        for height in {plan.height, coded_height(self._target)}:
            yield DedupPlan("filter", None, height)

    def _orders(self, plan: DedupPlan) -> Iterator[DedupPlan]:
        yield plan
        if self._weights.kernel_size > 1:
            yield replace(plan, order="position")
        yield replace(plan, order="magnitude")

    def _sampled(self, plan: DedupPlan) -> tuple[float, float]:
        """The objective of a plan, extrapolated from a sample of its row groups."""
        height, _ = plan.coding(self._weights, self._target)
        per_section = -(-self._weights.values.shape[1] // height)
        groups = per_section * len(self._weights.values)
        part = pattern_dedup(self._weights, self._target, plan, sample=SAMPLE_GROUPS)
        share = min(1.0, part.groups / groups) if part.groups else 1.0
        crossbars = max(1, round((self._crossbars or 1) * share))
        first, second = objective_value(self._estimate(part, crossbars), self._objective)
        return first / share, second / share

    def floor(self, name: str) -> float:
        """What a scheme costs at least: the columns that its kept weights fill, fired."""
        if name in SHARED:
            groups = SHARED[name](self._weights, self._target)
            return self.column_floor(distinct_columns(self._weights, self._target, groups))
        if name not in ("sre", "yu"):
            return 0.0
        weights, cell_bits = self._weights, self._target.crossbar.cell_bits
        digits = encode(weights.values[:0], cell_bits, signed_bits(weights.values)).shift
        kept = int(np.count_nonzero(weights.values)) * len(digits)
        return self.column_floor(-(-kept // exact_height(self._target)))

    def column_floor(self, columns: int) -> float:
        """What any mapping with so many stored columns costs at least."""
        target = self._target
        fires = self._windows * target.inputs.bits * columns
        if self._objective == "energy":
            return fires * prices(target).conversion
        if self._objective == "latency":
            width = target.ou.columns
            each = int(span_cycles(np.array([width]), target)[0]) / width
            return fires * each * target.cycle_ns / max(1, self._crossbars or 1)
        return 0.0
