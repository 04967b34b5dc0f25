"""The manager: passes run in order, and a pass that breaks its promise is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from isa.diagnostics import PimError
from isa.program import Program
from isa.target import Target, load_target
from passes.base import Pass
from passes.graph import Graph, MatrixNode, Value
from passes.manager import check_mapping, run_passes
from passes.mapping import Mapping
from passes.ou_tile import OuTile
from passes.pipelines import MAPPINGS, pipeline
from passes.split import Split


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("tiny")


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Two dense layers, 12 -> 10 -> 4."""
    rng = np.random.default_rng(0)
    sizes = (12, 10, 4)
    values = {
        name: Value(name, "s8", (1, 1, size), 0.1, 3, name, (size,), (0,))
        for name, size in zip(("x", "h", "y"), sizes, strict=True)
    }
    nodes = tuple(
        MatrixNode(
            name=f"fc{index}",
            inputs=(source,),
            output=output,
            weights=rng.integers(-128, 128, (after, 1, 1, before)).astype(np.int16),
            bias=np.zeros(after, np.int32),
            scale=np.full(1, 1e-3, np.float32),
        )
        for index, (source, output, before, after) in enumerate(
            (("x", "h", *sizes[:2]), ("h", "y", *sizes[1:]))
        )
    )
    return Graph(("x",), ("y",), nodes, values)


@dataclass(frozen=True)
class WrongTile(Pass[Graph, Mapping]):
    """Loses one row of the second layer."""

    name: ClassVar[str] = "wrong-tile"
    exact: ClassVar[bool] = True
    target: Target

    def run(self, unit: Graph) -> Mapping:
        mapping = OuTile(self.target).run(unit)
        layer = mapping.layers["fc1"]
        rows = layer.blocks.rows.copy()
        rows[0, :2] = rows[0, 1::-1]  # two selectors swapped: the misplaced multiplication
        broken = replace(layer, blocks=replace(layer.blocks, rows=rows))
        return replace(mapping, layers={**mapping.layers, "fc1": broken})


@dataclass(frozen=True)
class HonestLossyTile(WrongTile):
    """The same, but it says so."""

    name: ClassVar[str] = "lossy-tile"
    exact: ClassVar[bool] = False


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_mapping_ends_in_a_program(mapping: str, graph: Graph, target: Target) -> None:
    assert isinstance(run_passes(graph, pipeline(target, mapping, True)), Program)


def test_every_mapping_is_exact_and_names_a_mapping(target: Target) -> None:
    passes = {name: make(target) for name, make in MAPPINGS.items()}
    assert {step.name for step in passes.values()} <= set(MAPPINGS)
    assert all(step.exact for step in passes.values())


def test_an_exact_pass_that_changes_weights_is_named_with_the_layer(
    graph: Graph, target: Target
) -> None:
    with pytest.raises(PimError) as caught:
        run_passes(graph, (WrongTile(target), *pipeline(target, "ou-tile", True)[1:]))
    (finding,) = caught.value.diagnostics
    assert finding.code == "X802"
    assert "`fc1`" in finding.message
    assert "`wrong-tile`" in finding.message


def test_a_lossy_pass_may_change_weights(graph: Graph, target: Target) -> None:
    steps = (HonestLossyTile(target), *pipeline(target, "ou-tile", True)[1:])
    assert isinstance(run_passes(graph, (*steps[:1], Lossy(), *steps[2:])), Program)


@dataclass(frozen=True)
class Lossy(Split):
    """A split that promises nothing, for a mapping that promises nothing."""

    exact: ClassVar[bool] = False


def test_blocks_that_a_pass_hands_on_are_not_proved_twice(
    graph: Graph, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = OuTile(target).run(graph)
    folded: list[object] = []
    monkeypatch.setattr("passes.manager.fold", folded.append)
    check_mapping("split", mapping, Split().run(mapping))
    assert folded == []


def test_the_clock_and_the_observer_hear_of_every_pass_in_order(
    graph: Graph, target: Target
) -> None:
    timed, seen = [], []

    @contextmanager
    def around(name: str) -> Iterator[None]:
        timed.append(name)
        yield

    passes = pipeline(target, "ou-tile", True)
    run_passes(graph, passes, around, lambda step, unit: seen.append((step.name, type(unit))))
    order = ["ou-tile", "split", "schedule", "mesh-place"]
    assert [name for name in timed if name != "prove blocks"] == order
    assert seen == list(zip(order, [Mapping, Mapping, Program, Program], strict=True))


def test_an_unknown_mapping_is_a_usage_error_with_a_guess(target: Target) -> None:
    with pytest.raises(PimError, match="did you mean `pattern-dedup`") as caught:
        pipeline(target, "pattern-dedupe", False)
    assert caught.value.exit_code == 2


def test_a_pipeline_without_its_last_pass_is_a_bug(graph: Graph, target: Target) -> None:
    with pytest.raises(TypeError, match="made a Mapping"):
        run_passes(graph, pipeline(target, "ou-tile", False)[:2])
