"""One-hot inputs and one-hot weights through the machine, for every scheme: the two classic bugs.

A deleted row shifts the inputs behind it, a moved column adds to another output: both show where
only one input, or only one weight, is not zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import evaluate

from isa.target import load_target
from passes.best import SCHEMES, Best
from passes.graph import Graph, MatrixNode, Value
from passes.mapping import Mapping, map_layers
from passes.schedule import Schedule
from passes.split import Split
from runtime.machine import Machine

TARGET = load_target("ou9x8")
NAMES = (*SCHEMES, "best")
SIZE, CHANNELS, OUTPUTS, ZERO, ONE = 5, 4, 6, 3, 100


def graph(weights: np.ndarray) -> Graph:  # type: ignore[type-arg]
    """A 3x3 convolution whose output is the weight that the only active input meets."""
    values = {
        "x": Value("x", "s8", (SIZE, SIZE, CHANNELS), 0.1, ZERO, "x", (CHANNELS, SIZE, SIZE),
                   (1, 2, 0)),
        "y": Value("y", "s8", (3, 3, OUTPUTS), 0.1, 0, "y", (OUTPUTS, 3, 3), (1, 2, 0)),
    }  # fmt: skip
    scale = np.full(1, 1 / (ONE - ZERO), np.float32)
    groups = CHANNELS // weights.shape[3]
    node = MatrixNode("conv", ("x",), "y", weights, np.zeros(OUTPUTS, np.int32), scale, groups)
    return Graph(("x",), ("y",), (node,), values)


def random_weights(groups: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """Weights with zero kernels, repeated filters and pattern-pruned kernels."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-127, 128, (OUTPUTS, 3, 3, CHANNELS // groups))
    weights[1] = weights[0]
    weights[2, :, :, 0] = 0
    weights[3, 0] = 0
    return weights.astype(np.int16)


def machine(name: str, network: Graph) -> Machine:
    mapping = (
        Best(TARGET).run(network)
        if name == "best"
        else map_layers(network, TARGET, lambda weights: SCHEMES[name](weights, TARGET))
    )
    return run_on(mapping)


def run_on(mapping: Mapping) -> Machine:
    return Machine(Schedule(grow=True).run(Split().run(mapping)), TARGET)


def one_hot_inputs() -> np.ndarray:  # type: ignore[type-arg]
    """An image for every input: ``ONE`` there, the zero point elsewhere."""
    count = SIZE * SIZE * CHANNELS
    images = np.full((count, count), ZERO, np.int8)
    np.fill_diagonal(images, ONE)
    return images.reshape(count, SIZE, SIZE, CHANNELS)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_one_active_input_reads_its_own_weights(name: str, groups: int) -> None:
    weights = random_weights(groups, seed=7)
    network = graph(weights)
    (got,) = machine(name, network).run({"x": one_hot_inputs()}).outputs.values()
    np.testing.assert_array_equal(got, evaluate(network, {"x": one_hot_inputs()})["y"])
    if groups == 1:  # the input in the middle meets every weight, one at each position
        middle = got[np.ravel_multi_index((2, 2, 1), (SIZE, SIZE, CHANNELS))]
        np.testing.assert_array_equal(middle[::-1, ::-1], weights[:, :, :, 1].transpose(1, 2, 0))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6)
@given(place=st.integers(0, OUTPUTS * 9 * CHANNELS - 1), value=st.sampled_from((-128, -93, 1, 127)))
def test_one_weight_reaches_its_own_output_only(name: str, place: int, value: int) -> None:
    weights = np.zeros((OUTPUTS, 3, 3, CHANNELS), np.int16)
    weights.ravel()[place] = value
    network = graph(weights)
    feeds = np.random.default_rng(place).integers(-128, 128, (2, SIZE, SIZE, CHANNELS))
    (got,) = machine(name, network).run({"x": feeds.astype(np.int8)}).outputs.values()
    np.testing.assert_array_equal(got, evaluate(network, {"x": feeds.astype(np.int8)})["y"])
    assert not np.delete(got, place // (9 * CHANNELS), axis=3).any()


def test_the_test_sees_a_shifted_input_and_a_moved_column() -> None:
    network = graph(random_weights(1, seed=7))
    wanted = evaluate(network, {"x": one_hot_inputs()})["y"]
    mapping = map_layers(network, TARGET, lambda weights: SCHEMES["dedup"](weights, TARGET))
    layer = mapping.layers["conv"]
    rows = layer.blocks.rows.copy()
    rows[0, 0], rows[0, 1] = rows[0, 1], rows[0, 0]
    output = layer.blocks.routes.output.copy()
    output[0] = (output[0] + 1) % OUTPUTS
    routes = replace(layer.blocks.routes, output=output)
    for wrong in (replace(layer.blocks, rows=rows), replace(layer.blocks, routes=routes)):
        changed = replace(mapping, layers={"conv": replace(layer, blocks=wrong)})
        (got,) = run_on(changed).run({"x": one_hot_inputs()}).outputs.values()
        assert (got != wanted).any()
