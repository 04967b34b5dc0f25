"""A chip that skips zero inputs: times to the cycle, energy to the event, values untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.timed import random_program, three_layers
from support.timing_oracle import Oracle

from isa.matrix import BlockMatrix
from isa.program import Program
from isa.target import Target, load_target
from passes.place import packed_spans
from runtime.analog import Place
from runtime.array_work import ArrayWork, fire_cycles
from runtime.cost import Cost, price_program
from runtime.input_zeros import InputZeros, counting_crossbars
from runtime.kernel import choose_kernel
from runtime.machine import Machine
from runtime.skips import Skips, skips_of
from runtime.summary import summary
from runtime.timeline import Timeline
from runtime.timing import simulate
from runtime.unpipelined import layer_by_layer

PLAIN = load_target("tiny")
WAYS = ("group", "group-bit")
# bytes at the word lines, u = x + 128; ones per window 0, 1, 8, 2, then a row of zeros
SPARSE = np.array([[[0], [1], [255], [3]], [[0], [0], [0], [0]]])


def chip(skip: str, **overrides: str) -> Target:
    others = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_target("tiny", {"inputs.skip": skip, **others})


def skips_after(program: Program, target: Target, *images: np.ndarray) -> Skips:
    crossbars = counting_crossbars(program, target, keeps_times=True)
    Machine(program, target, crossbars).run({"image": (np.stack(images) - 128).astype(np.int8)})
    found = skips_of(program, target, crossbars)
    assert found is not None
    return found


def ends(timeline: Timeline) -> dict[tuple[int, str], list[int]]:
    return {(unit.core, unit.name): unit.ends for unit in timeline.all_units()}


def test_two_cores_and_three_layers_take_the_cycles_worked_out_by_hand() -> None:
    # five cycles a fire; a window never takes less than its two routes, two transfers on the
    # bus or two cycles for the mask: 2 + 5 + 40 + 10 in the first row, 4 x 2 in the second.
    # The second layer sees 129, 130, 255, 255, all eight planes of which have ones, then four
    # times 128, which have one
    program, target = three_layers(), chip("group-bit")
    found = ends(simulate(program, target, 1, skips_after(program, target, SPARSE)))
    assert found[0, "memory"] == [7, 73 + 7]
    assert found[0, "matrix"] == [7 + 3 + 57 + 6, 80 + 3 + 8 + 6]
    assert found[0, "vector"] == [76, 100]
    assert found[1, "receive"] == [76 + 7 + 3, 100 + 7 + 3]
    assert found[1, "vector"] == [87, 139, 140, 157]
    assert found[1, "matrix"] == [87 + 3 + 40 + 6, 140 + 3 + 5 + 6]
    assert found[1, "memory"] == [146, 164]


def test_groups_are_skipped_only_where_all_their_inputs_are_zero() -> None:
    program, target = three_layers(), chip("group")
    skips = skips_after(program, target, SPARSE)
    found = ends(simulate(program, target, 1, skips))
    assert found[0, "matrix"][0] == 7 + 3 + (2 + 3 * 40) + 6
    assert skips.layers["conv"].fires_skipped == 5 * 8
    assert skips.layers["pool"].fires_skipped == 0  # a zero of s8 is 128 at the word lines


def test_all_zero_inputs_leave_routes_bus_and_mask() -> None:
    program, target = three_layers(), chip("group-bit")
    skips = skips_after(program, target, np.zeros_like(SPARSE))
    timeline = simulate(program, target, 3, skips)
    busy = {unit.core: unit.busy for unit in timeline.all_units() if unit.name == "matrix"}
    assert busy == {0: 3 * 2 * 4 * 2, 1: 3 * 2 * 5}
    assert skips.layers["conv"].fires_skipped == 2 * 4 * 8


@pytest.mark.parametrize("skip", WAYS)
def test_without_zeros_only_the_masks_are_added(skip: str) -> None:
    program, target = three_layers(), chip(skip)
    skips = skips_after(program, target, np.full_like(SPARSE, 255))
    assert ends(simulate(program, target, 3, skips)) == ends(simulate(program, PLAIN, 3))
    plain, found = price_program(program, PLAIN).total, price_program(program, target, {}, skips)
    read = found.total.events.pop("index_read") - plain.events.pop("index_read")
    assert read == 2 * 4 + 2  # windows, each with one group
    assert found.total.events == plain.events


def test_energy_loses_just_what_the_skipped_fires_would_have_taken() -> None:
    program, target = three_layers(), chip("group-bit")
    skips = skips_after(program, target, SPARSE)
    plain, found = price_program(program, target), price_program(program, target, {}, skips)
    fired, columns = 11, 2  # 0 + 1 + 8 + 2 ones, of one line and two columns
    events = found.layers["conv"].events
    assert events["adc_conversion"] == events["sample_hold"] == fired * columns
    assert events["word_line_drive"] == events["row_select"] == fired
    adc = plain.groups(plain.layers["conv"])["adc"] - found.groups(found.layers["conv"])["adc"]
    assert adc == pytest.approx((64 - fired) * columns * target.adc_energy_pj, rel=1e-12)
    before = plain.layers["conv"].events
    assert before["shift_add"] - events["shift_add"] == (64 - fired) * columns
    untouched = before.keys() - {
        "adc_conversion", "sample_hold", "word_line_drive", "row_select", "shift_add",
    }  # fmt: skip
    assert all(events[name] == before[name] for name in untouched)
    assert found.layers["conv"].fires_skipped == 64 - fired


def test_images_take_the_times_of_the_samples_in_turn() -> None:
    program, target = three_layers(), chip("group-bit")
    skips = skips_after(program, target, SPARSE, np.full_like(SPARSE, 255))
    assert skips.images == 2
    timeline = simulate(program, target, 4, skips)
    (conv,) = (u for u in timeline.all_units() if (u.core, u.name) == (0, "matrix"))
    assert conv.busy == 2 * (57 + 8 + 2 * 160)
    cost = price_program(program, target, {}, skips)
    assert cost.layers["conv"].fires_skipped == (64 - 11) / 2


def test_layer_after_layer_takes_the_skips_of_the_first_sample() -> None:
    program, target = three_layers(), chip("group-bit")
    skips = skips_after(program, target, SPARSE)
    plain, found = layer_by_layer(program, target), layer_by_layer(program, target, skips)
    assert plain["conv"] - found["conv"] == (160 - 57) + (160 - 8)


def fire_by_fire(blocks: BlockMatrix, target: Target, u: np.ndarray) -> list[int]:
    """Cycles of each window on the busiest crossbar: every fire, bit and crossbar by itself."""
    spans, width = blocks.spans, target.ou.columns
    routes = ArrayWork(blocks, target).route_cycles
    per_bit = target.accumulation.routing == "per-bit"
    found = []
    for window in u:
        fires = np.zeros((8, len(routes)), int)
        for group, crossbar, columns in zip(spans.group, spans.crossbar, spans.count, strict=True):
            inputs = window[blocks.rows[group][blocks.rows[group] >= 0]]
            if target.inputs.skip == "group":
                inputs = np.where(inputs.any(), 255, inputs)
            for first in range(0, int(columns), width):
                cycles = fire_cycles(min(width, int(columns) - first), target)
                for bit in range(8):
                    fires[bit, crossbar] += cycles * bool(((inputs >> bit) & 1).any())
        steps = fires if per_bit else fires.sum(axis=0, keepdims=True)
        found.append(int(np.maximum(steps, routes).sum(axis=0).max()))
    return found


@pytest.mark.parametrize("routing", ["after-bits", "per-bit"])
@pytest.mark.parametrize("skip", WAYS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_window_cycles_are_those_of_the_fires_that_are_left(
    seed: int, skip: str, routing: str, random_blocks: Callable[..., BlockMatrix]
) -> None:
    target = chip(skip, accumulation__routing=routing)
    blocks = random_blocks(seed, lines=target.ou.rows)
    blocks = replace(blocks, spans=packed_spans(blocks, target))
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 8, (6, blocks.inputs), dtype=np.uint8)
    u[rng.random(u.shape) < 0.7] = 0
    counting = InputZeros(blocks, target, choose_kernel(), "m", keeps_times=True)
    counting.multiply(u, np.empty((6, blocks.outputs), np.int32), Place(0, 5, 3))
    (times,) = counting.cycles[5]
    assert times.shape == (2, 3)
    assert times.ravel().tolist() == fire_by_fire(blocks, target, u)
    assert times.sum() == counting.counts.spared(target.inputs.skip).crossbar_cycles
    assert times.max() <= ArrayWork(blocks, target).window_cycles


@given(seed=st.integers(0, 10_000), skip=st.sampled_from(WAYS), images=st.integers(1, 4))
def test_the_simulation_agrees_with_simpy_where_every_image_skips_its_own(
    seed: int, skip: str, images: int
) -> None:
    program, target = random_program(seed), chip(skip)
    shape = next(t.shape for t in program.tensors if t.role == "input")
    samples = np.random.default_rng(seed).integers(0, 8, (3, *shape))
    samples *= np.array([0, 1, 16])[:, None, None, None]  # idle, low and high bits
    skips = skips_after(program, target, *samples)
    found = simulate(program, target, images, skips)
    assert ends(found) == dict(Oracle(program, target, images, skips).ends)


@given(seed=st.integers(0, 300), skip=st.sampled_from(WAYS))
def test_skips_change_no_value_and_all_parts_still_sum(seed: int, skip: str) -> None:
    program, target = random_program(seed), chip(skip)
    rng = np.random.default_rng(seed)
    shape = next(t.shape for t in program.tensors if t.role == "input")
    sparse = rng.integers(-128, -120, (3, *shape)).astype(np.int8)
    crossbars = counting_crossbars(program, target, keeps_times=True)
    found = Machine(program, target, crossbars).run({"image": sparse})
    plain = Machine(program, PLAIN).run({"image": sparse})
    for name, values in plain.outputs.items():
        assert np.array_equal(found.outputs[name], values)
    skips = skips_of(program, target, crossbars)
    assert skips is not None
    counted = {name: layer.fires_skipped for name, layer in found.counters.layers.items()}
    for name, spared in skips.layers.items():
        assert counted[name] == spared.fires_skipped
    timeline = simulate(program, target, 5, skips)
    cost = price_program(program, target, {}, skips)
    figures = summary(program, target, 5, timeline, cost)  # checks times and sums itself
    assert timeline.makespan <= simulate(program, target, 5).makespan
    assert _dynamic(cost) <= _dynamic(price_program(program, target))
    layers = sum(layer["energy_pj"]["dynamic"] for layer in figures["layers"])
    assert layers == pytest.approx(figures["energy_pj"]["dynamic"], rel=1e-9)


def _dynamic(cost: Cost) -> float:
    return cost.energy_pj(cost.total)


def test_counts_of_skips_do_not_depend_on_batches_or_processes() -> None:
    program, target = three_layers(), chip("group-bit")
    images = np.stack([SPARSE, np.full_like(SPARSE, 255), np.zeros_like(SPARSE)])
    inputs = {"image": (images - 128).astype(np.int8)}
    machine = Machine(program, target)
    first, again = (machine.run(inputs).counters.as_json() for _ in range(2))
    assert first == again == Machine(program, target).run(inputs, jobs=2).counters.as_json()
    layers = machine.run(inputs).counters.layers
    assert layers["conv"].fires_skipped == 53 + 0 + 64


def test_a_chip_that_skips_nothing_has_no_skips_and_is_written_as_before() -> None:
    program = three_layers()
    assert skips_of(program, PLAIN, counting_crossbars(program, PLAIN, True)) is None
    assert "skip" not in PLAIN.to_json()
    assert chip("none").sha256 == PLAIN.sha256 != chip("group").sha256
    assert Target.from_json(chip("group").to_json()).inputs.skip == "group"
