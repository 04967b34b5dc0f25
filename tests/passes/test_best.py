"""Best: no worse than any single scheme, on random layers and on the trained networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.layers import layer_of

from isa.target import load_target
from passes.best import SCHEMES, Objective, choose
from passes.estimate import MappingCost, estimate, objective_value
from passes.graph import MatrixNode
from passes.weights import LayerWeights, layer_weights
from pimc.frontend.build import import_model

MODELS = Path(__file__).parents[2] / "models"
LONG = ("vggs", "resnet8")
OBJECTIVES: tuple[Objective, ...] = ("energy", "latency", "area")


@pytest.mark.parametrize("objective", ["energy", "latency", "area"])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_is_no_worse_than_any_single_scheme(objective: Objective, seed: int) -> None:
    target = load_target("ou9x8")
    weights = _sparse_layer(seed)
    choice = choose(weights, 49, target, objective)
    for name, scheme in SCHEMES.items():
        single = estimate(
            scheme(weights, target),
            49,
            target,
            kernel_size=weights.kernel_size,
            crossbars=choice.dense.crossbars,
            objective=objective,
        )
        assert objective_value(choice.cost, objective) <= objective_value(single, objective), name


def test_random_weights_pass_the_bars_against_dense() -> None:
    rng = np.random.default_rng(0)
    weights = layer_of(np.clip(np.rint(rng.normal(0, 36, (1, 1152, 256))), -127, 127), 9)
    choice = choose(weights, 196, load_target("ou9x8"))
    assert choice.dense.stored_cells > 8 * choice.cost.stored_cells
    assert choice.dense.energy_pj > 2.15 * choice.cost.energy_pj
    equal = choice.cost.time_equal_crossbars_ns
    assert choice.dense.time_equal_crossbars_ns > 4 * equal


def _sparse_layer(seed: int) -> LayerWeights:
    """Random, with zero kernels, few patterns, or repeated filters, by ``seed``."""
    rng = np.random.default_rng(seed)
    values = np.clip(np.rint(rng.normal(0, 30, (1, 144, 48))), -127, 127)
    changes: list[Callable[[], None]] = [
        lambda: None,
        lambda: values.reshape(16, 9, 48).__setitem__((slice(None), slice(4, 9)), 0),
        lambda: values.reshape(16, 9, 48).__setitem__((rng.random((16, 9, 48)) < 0.9), 0),
        lambda: values.__setitem__((..., slice(4, None)), np.resize(values[..., :4], (1, 144, 44))),
    ]
    changes[seed]()
    return layer_of(values, 9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "network",
    ["lenet5", "resnet8_pp4", *(pytest.param(n, marks=pytest.mark.long) for n in LONG)],
)
def test_the_best_is_no_worse_than_any_scheme_on_a_network(
    network: str, objective: Objective
) -> None:
    target = load_target("ou9x8")
    sums = dict.fromkeys((*SCHEMES, "best"), MappingCost())
    with np.load(MODELS / "fmnist_calib.npz") as data:
        graph = import_model(MODELS / f"{network}_fmnist.onnx", {"image": data["image"][:8]}).graph
    for node in graph.nodes:
        if isinstance(node, MatrixNode):
            rows, columns, _ = graph.values[node.output].shape
            weights, windows = layer_weights(node), rows * columns
            choice = choose(weights, windows, target, objective)
            sums["best"] += choice.cost
            for name, scheme in SCHEMES.items():
                blocks = scheme(weights, target)
                sums[name] += estimate(
                    blocks,
                    windows,
                    target,
                    kernel_size=weights.kernel_size,
                    crossbars=choice.dense.crossbars,
                    objective=objective,
                )
    best = objective_value(sums.pop("best"), objective)[0]
    for name, cost in sums.items():
        assert best <= objective_value(cost, objective)[0] * (1 + 1e-12), name
