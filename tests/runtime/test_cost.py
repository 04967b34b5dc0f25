"""Energy, area and the checks: every instruction has a price and a time, and parts make totals."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.networks import compiled, lenet
from support.timed import HEAD, THREE_LAYERS, random_program, three_layers

from isa.assembly import parse_program
from isa.catalog import CATALOG
from isa.diagnostics import PimError
from isa.target import list_targets, load_target
from runtime.area import area_mm2, parts, static_mw, whole_chip
from runtime.core_view import global_latency_cycles, global_transfer_cycles
from runtime.cost import GROUP_OF, GROUPS, PROGRAMMING, price_program, prices
from runtime.durations import DURATIONS
from runtime.events import EVENTS, GLOBAL_BIT
from runtime.summary import check_times, summary
from runtime.timing import simulate

SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize("mnemonic", CATALOG)
def test_every_instruction_has_a_duration_and_a_cost(mnemonic: str) -> None:
    assert CATALOG[mnemonic] in DURATIONS
    assert CATALOG[mnemonic] in EVENTS


@pytest.mark.parametrize("name", list_targets())
def test_every_event_has_a_price_a_source_and_one_group(name: str) -> None:
    found = prices(load_target(name))
    assert set(found) == set(GROUP_OF) | set(PROGRAMMING)
    assert sum(len(events) for events in GROUPS.values()) == len(GROUP_OF)
    assert all(price.source != "not stated" for price in found.values())


def test_the_default_chip_has_the_area_and_leakage_of_the_reference() -> None:
    target = load_target("ou9x8")
    found = {part.name: part for part in parts(target, whole_chip(target))}
    per_crossbar = ("adc", "cell", "driver", "sample_hold", "shift_add", "column_mux")
    crossbar = sum(found[name].area_mm2 for name in per_crossbar) / target.crossbars
    assert crossbar * 1e6 == pytest.approx(666.6, abs=0.05)
    registers = (found["input_register"].area_mm2 + found["output_register"].area_mm2) * 1e6
    pe = crossbar * 1e6 * 8 + registers / found["input_register"].count
    assert pe == pytest.approx(8202.5, abs=0.5)
    assert area_mm2(target, whole_chip(target)) == pytest.approx(40.8, abs=0.05)
    assert static_mw(target, whole_chip(target)) == pytest.approx(1240, abs=5)


def test_events_of_a_small_program_are_those_counted_by_hand() -> None:
    cost = price_program(three_layers(), load_target("tiny"))
    conv = cost.layers["conv"].events
    # two rows of four windows, eight bits: one unit, one word line, two columns of cells 1 and 2
    assert conv["word_line_drive"] == 2 * 4 * 8
    assert conv["adc_conversion"] == 2 * 4 * 8 * 2
    assert conv["cell_read_lrs"] == 2 * 4 * 8 * 0.5 * (1 + 2) / 3
    assert conv["shift_add"] == conv["adc_conversion"] + 2 * 4 * 2
    assert conv["output_write"] == 2 * 4 * 2 * 2  # a route each; 24 bits are two 16-bit words
    assert conv["flit_hop"] == 2 * 2
    assert conv["instruction_fetch"] == 2 * 4
    assert cost.layers["conv"].macs == 2 * 4 * 2
    pool = cost.layers["pool"].events
    assert pool["pool_compare"] == 2 * 4
    assert cost.layers["pool"].programming == {"cell_set": 4, "cell_reset": 0}


def test_a_buffer_in_global_memory_costs_a_crossing_for_each_access() -> None:
    text = HEAD + THREE_LAYERS
    moved = text.replace(".buffer out  s8[1, 4, 2]  @0x0040", ".buffer out  s8[1, 4, 2]  @global")
    here, there = (parse_program(source, file="p.pim") for source in (text, moved))
    target = load_target("tiny")
    before, after = (price_program(p, target).layers["conv"].events for p in (here, there))
    # two rows, each written by the requant and read by the send, 8 bytes
    extra = after[GLOBAL_BIT] - before[GLOBAL_BIT]
    assert extra == 2 * 2 * 8 * 8
    assert {name: n for name, n in after.items() if name != GLOBAL_BIT} == {
        name: n for name, n in before.items() if name != GLOBAL_BIT
    }
    slow, quick = (simulate(p, target, images=1).latency for p in (there, here))
    way = global_latency_cycles(target) + global_transfer_cycles(target, 8)
    assert slow - quick >= 2 * way  # of the first row; the second one waits less


def test_more_ones_in_the_inputs_cost_array_energy_only() -> None:
    program, target = three_layers(), load_target("tiny")
    half, all_ones = (price_program(program, target, {"conv": share}) for share in (0.5, 1.0))
    less, more = (cost.groups(cost.layers["conv"]) for cost in (half, all_ones))
    assert more["array"] > less["array"]
    assert {k: v for k, v in more.items() if k != "array"} == {
        k: v for k, v in less.items() if k != "array"
    }


@given(seed=SEEDS)
def test_the_schedule_of_time_does_not_change_the_dynamic_energy(seed: int) -> None:
    program = random_program(seed)
    costs = [
        price_program(program, load_target("tiny", {"clock_ghz": clock}))
        for clock in ("1.2", "2.4")
    ]
    assert costs[0].energy_pj(costs[0].total) == costs[1].energy_pj(costs[1].total)


@given(seed=SEEDS)
def test_parts_sum_to_totals_and_nothing_is_negative(seed: int) -> None:
    found = summary(random_program(seed), load_target("tiny"), images=3)
    energy = found["energy_pj"]
    assert energy["dynamic"] == pytest.approx(sum(energy[group] for group in GROUPS))
    assert energy["total"] == energy["dynamic"] + energy["static"]
    layers = [layer["energy_pj"]["dynamic"] for layer in found["layers"]]
    assert sum(layers) == pytest.approx(energy["dynamic"])
    areas = dict(found["area_mm2"])
    assert areas.pop("total") == pytest.approx(sum(areas.values()))
    assert all(number >= 0 for number in numbers(found))


def numbers(document: Any) -> list[float]:
    """Every number in a JSON document."""
    if isinstance(document, dict | list):
        inner = document.values() if isinstance(document, dict) else document
        return [number for item in inner for number in numbers(item)]
    return [document] if isinstance(document, int | float) else []


@pytest.mark.parametrize("name", list_targets())
def test_lenet_has_a_summary_on_every_target(name: str) -> None:
    program, target = compiled(*lenet(), load_target(name))
    found = json.loads(json.dumps(summary(program, target, images=3)))
    keys = {"images", "interval_ns", "bound_interval_ns", "latency_ns", "energy_pj", "area_mm2"}
    assert keys | {"utilization", "layers"} <= set(found)
    assert found["interval_ns"] >= found["bound_interval_ns"]
    assert found["macs"] == 651_720
    assert all(0 <= share <= 1 for share in found["utilization"].values())


def test_the_default_target_reaches_its_dense_efficiency() -> None:
    # 0.29 TOPS/W at peak power with every unit at work; fires alone would give 2 / 2.03
    program, target = compiled(*lenet(), load_target("ou9x8"))
    assert 0.29 < summary(program, target, images=2)["tops_per_w_dynamic"] < 2 / 2.03


def test_a_cost_that_does_not_add_up_is_an_internal_error() -> None:
    cost = price_program(three_layers(), load_target("tiny"))
    cost.layers["conv"].events["adc_conversion"] = -1
    with pytest.raises(PimError) as caught:
        cost.check()
    assert caught.value.diagnostics[0].code == "I999"


def test_a_time_below_the_busiest_unit_is_an_internal_error() -> None:
    timeline = simulate(three_layers(), load_target("tiny"), images=2)
    unit = timeline.units[0][0]
    timeline.units[0][0] = dataclasses.replace(unit, busy=unit.busy + 10_000)
    with pytest.raises(PimError) as caught:
        check_times(timeline)
    assert caught.value.diagnostics[0].code == "I999"
