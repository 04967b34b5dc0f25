"""Treat: what the specs do to the weights of one layer, with its statistics at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from passes.compensate import Statistics, from_sections, solve, support_of, to_sections
from passes.compensate_tied import Refit, refit_translated
from passes.pattern_prune import PatternPrune, Patterns, global_dictionary, prune_inputs
from passes.pattern_search import search_patterns
from passes.translate_identical import TranslateIdentical
from passes.translate_similar import TranslateSimilar, shape_after
from passes.translation import LARGEST, Translation, quantize_rows, to_patterns
from pimc.compress.layers import MatrixLayer
from pimc.compress.spec import (
    IdenticalSpec,
    InputSpec,
    PatternSpec,
    SimilarSpec,
    Spec,
    TranslateSpec,
    at_layer,
)

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grid:
    """Integer weights that must survive quantization. integers: int16, -127..127, [O, C, rows,
    columns]; scale: float32 [O].
    """

    integers: NDArray[np.int16]
    scale: NDArray[np.float32]

    def real(self) -> Array:
        """The weights, float64."""
        return self.integers * self.scale.astype(np.float64)[:, None, None, None]


@dataclass(frozen=True, eq=False)
class Treated:
    """A layer's new weights and bias; ``plain`` weights are the same without compensation.

    stored: positions of ``mask`` that hold no translated copy.
    """

    weights: Array
    bias: Array
    plain: Array
    mask: Mask
    stored: int
    grid: Grid | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which specs meet a layer, with their values for it, and the network's dictionary."""

    pattern: PatternSpec | None = None
    keep: int = 9
    inputs: InputSpec | None = None
    translate: TranslateSpec | None = None
    t: float = 1.0
    dictionary: Patterns | None = None

    @property
    def is_dense(self) -> bool:
        return self.pattern is None and self.inputs is None and self.translate is None

    def describe(self) -> str:
        """The treatment in a few words, for the report."""
        words = []
        if self.pattern is not None:
            words.append(f"pattern {self.keep} of 9")
        if self.inputs is not None:
            words.append(f"inputs {self.keep}/{self.inputs.group}")
        if self.translate is not None:
            joint = isinstance(self.translate, SimilarSpec) and self.translate.joint
            words.append(f"{'joint' if joint else self.translate.kind} t={self.t:g}")
        return ", ".join(words) or "dense"


def make_plans(
    layers: Sequence[MatrixLayer], weights: Sequence[Array], specs: Sequence[Spec]
) -> list[Plan]:
    """One plan per layer. The k-th layer that a spec meets takes its k-th value."""
    plans: list[dict[str, Any]] = [{} for _ in layers]
    for spec in specs:
        met = [i for i, layer in enumerate(layers) if _meets(spec, layer, i, len(layers))]
        for count, index in enumerate(met):
            if isinstance(spec, PatternSpec):
                plans[index].update(pattern=spec, keep=at_layer(spec.keep, count))
            elif isinstance(spec, InputSpec):
                plans[index].update(inputs=spec, keep=at_layer(spec.keep, count))
            elif isinstance(spec, IdenticalSpec | SimilarSpec):
                plans[index].update(translate=spec, t=at_layer(spec.t, count))
        if isinstance(spec, PatternSpec) and spec.dictionary == "global" and met:
            keep = at_layer(spec.keep, 0)
            shared = global_dictionary([weights[i] for i in met], keep, spec.patterns)
            for index in met:
                plans[index].update(dictionary=shared, keep=keep)
    return [Plan(**plan) for plan in plans]


def _meets(spec: Spec, layer: MatrixLayer, index: int, count: int) -> bool:
    """Whether a spec works on a layer; depthwise kernels are all their outputs have: left whole."""
    if isinstance(spec, PatternSpec):
        is_kernel = layer.positions == 9 and (layer.groups == 1 or layer.shape[1] > 1)
        return is_kernel and (index > 0 or spec.first)
    if isinstance(spec, InputSpec):
        wide = layer.positions == 1 and layer.groups == 1 and layer.shape[1] >= spec.group
        return wide and (index > 0 or spec.first) and (index < count - 1 or spec.last)
    if isinstance(spec, IdenticalSpec | SimilarSpec):
        inner = (index > 0 or spec.first) and (index < count - 1 or spec.last)
        return layer.groups == 1 and inner
    return False


def treat(
    layer: MatrixLayer,
    weights: Array,
    bias: Array,
    plan: Plan,
    statistics: Statistics | None,
    ridge: float,
) -> Treated:
    """Apply a plan to one layer. Without ``statistics`` nothing is compensated."""
    mask = _mask(layer, weights, plan, statistics)
    plain = weights * mask
    solved, solved_bias = plain, bias
    if statistics is not None:
        support = support_of(mask, layer.groups, layer.can_have_bias)
        found = solve(statistics, to_sections(plain, bias, layer.groups), support, ridge)
        solved, solved_bias = from_sections(found, weights.shape)
    if plan.translate is None:
        return Treated(solved, solved_bias, plain, mask, int(mask.sum()))
    untouched, _, _ = _translated(layer, plain, weights, mask, plan)
    grid, table, shapes = _translated(layer, solved, weights, mask, plan)
    if statistics is not None:
        largest = plan.translate.max_shift if isinstance(plan.translate, SimilarSpec) else 0
        start = Refit(grid.integers, solved_bias, table, shapes)
        refit = refit_translated(statistics, start, grid.scale, True, largest, ridge=ridge)
        grid, solved_bias = Grid(refit.weights, grid.scale), refit.bias
        table, shapes = refit.translation, refit.mask
    kept = to_patterns(shapes, table.group)[table.kept]
    stored = int(kept.sum())
    return Treated(grid.real(), solved_bias, untouched.real(), shapes, stored, grid)


def _mask(layer: MatrixLayer, weights: Array, plan: Plan, statistics: Statistics | None) -> Mask:
    mask = np.ones(weights.shape, np.bool_)
    if plan.pattern is not None:
        spec = plan.pattern
        divides = layer.groups == 1 and weights.shape[1] % spec.group == 0
        if spec.choose == "error" and statistics is not None and divides:
            mask &= search_patterns(
                statistics, weights, plan.keep, spec.group, spec.patterns, shared=plan.dictionary
            ).mask
        else:
            mask &= _published(spec, plan.keep).run(weights, plan.dictionary).mask
    if plan.inputs is not None:
        mask &= prune_inputs(weights, plan.inputs.group, plan.keep).mask
    return mask


def _published(spec: PatternSpec, keep: int) -> PatternPrune:
    dictionary = "global" if spec.dictionary == "global" else "local"
    return PatternPrune(keep, spec.patterns, spec.group, dictionary, spec.connectivity)  # type: ignore[arg-type]


def _translated(
    layer: MatrixLayer, weights: Array, full: Array, mask: Mask, plan: Plan
) -> tuple[Grid, Translation, Mask]:
    """Quantize, translate and return the integers, the table and the shapes after it."""
    spec = plan.translate
    assert spec is not None
    integers, scale = quantize_rows(weights)
    group = spec.group if layer.positions > 1 else spec.inputs
    if isinstance(spec, SimilarSpec):
        steps = np.rint(full / scale[:, None, None, None].astype(np.float64))
        before = np.clip(steps, -LARGEST, LARGEST)
        table = TranslateSimilar(plan.t, group, spec.joint, spec.max_shift).run(integers, before)
    else:
        table = TranslateIdentical(plan.t, group).run(integers)
    return Grid(table.apply(integers), scale), table, shape_after(mask, table)
