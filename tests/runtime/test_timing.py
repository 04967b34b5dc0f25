"""Event simulation: hand-computed programs to the cycle, an oracle in SimPy, and what must hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.timed import HEAD, random_program, three_layers, two_copies
from support.timing_oracle import Oracle

from isa.assembly import parse_program
from isa.diagnostics import PimError
from isa.target import Target, load_target
from runtime.timeline import Timeline
from runtime.timing import simulate

SEEDS = st.integers(0, 10_000)


def tiny(**overrides: str) -> Target:
    return load_target("tiny", {key.replace("__", "."): value for key, value in overrides.items()})


def ends(timeline: Timeline) -> dict[tuple[int, str], list[int]]:
    return {(unit.core, unit.name): unit.ends for unit in timeline.all_units()}


def test_two_cores_and_three_layers_take_the_cycles_worked_out_by_hand() -> None:
    # load 6 + 1; mvm 4 windows x 8 bits x 5 cycles, 3 to fetch the inputs and 6 on the way out;
    # requant 3; send 2 flits, one hop of 5; recv 3; maxpool 1; mvm 3 + 40 + 6; store 6 + 1
    found = ends(simulate(three_layers(), tiny(), images=1))
    assert found[0, "memory"] == [7, 183]  # the second waits until the mvm has read the row
    assert found[0, "matrix"] == [176, 352]
    assert found[0, "vector"] == [179, 355]
    assert found[0, "send"] == [181, 357]
    assert found[1, "receive"] == [189, 365]  # sent at 179: there at 179 + 5 + 2
    assert found[1, "vector"] == [190, 242, 366, 418]  # maxpool, requant, ...
    assert found[1, "matrix"] == [239, 415]
    assert found[1, "memory"] == [249, 425]


def test_images_follow_each_other_without_a_barrier() -> None:
    timeline = simulate(three_layers(), tiny(), images=5)
    assert timeline.latency == 425
    assert timeline.image_ends == [425 + 352 * image for image in range(5)]
    assert timeline.interval == 352.0  # 176 a row: 160 of work, 9 for the way out, 7 to load
    assert timeline.bound == (320.0, "core 0 matrix (conv)")


def test_two_copies_that_take_turns_take_the_cycles_worked_out_by_hand() -> None:
    timeline = simulate(two_copies(), tiny(), images=2)
    found = ends(timeline)
    # each as above with one row of an image, both at once: the global memory has a link for each
    for core in (0, 2):
        assert found[core, "matrix"] == [176, 352]
        assert found[core, "send"] == [181, 357]
    # row 0 is there at 179 + 5 + 2 and received at 189. Row 1 could enter core 1 at 184, too; it
    # goes behind the flits of row 0, is there at 188, and received after the maxpool of row 0 (190)
    assert found[1, "receive"] == [189, 193, 365, 369]
    # maxpool; requant of row 0, in order before the maxpool of row 1; requant of row 1
    assert found[1, "vector"][:4] == [190, 242, 243, 295]
    assert found[1, "memory"] == [249, 302, 425, 478]
    assert timeline.latency == 302  # one copy: 425
    assert timeline.interval == 176.0  # one copy: 352
    assert timeline.bound == (160.0, "core 0 matrix (conv)")


def test_a_stall_is_put_down_to_what_the_unit_waited_for() -> None:
    timeline = simulate(three_layers(), tiny(), images=1)
    matrix = {unit.core: unit.stalls for unit in timeline.all_units() if unit.name == "matrix"}
    # before the first mvm: 7 cycles of load; between the two: the way out, then the next load
    assert matrix[0] == {"memory": 7 + 7, "matrix": 9}
    # idle until 190 and from 230 to 366: a maxpool of 1 cycle, before it nothing had come; in
    # between its own way out of 9 cycles and a requant of 3, on which the vector unit was busy
    assert matrix[1] == {"channel empty": 189 + 123, "vector": 1 + 3 + 1, "matrix": 9}


def test_a_full_channel_holds_the_sender_back() -> None:
    text = """
.channel c core 0 -> 1 s8[4, 1] depth=1 @0x0100
.core 0 "from"
  .buffer row s8[1, 4, 1] @0x0000
  fill row, value=3
  loop y = 0..3 {
    send c, row
  }
.core 1 "to"
  .buffer row  s8[1, 4, 1]   @0x0000
  .buffer slow s8[1, 4, 1] @0x0010
  loop y = 0..3 {
    recv row, c
    mul  slow, row, row
  }
"""
    timeline = simulate(parse_program(HEAD + text), tiny(), images=1)
    found = ends(timeline)
    # fill 3; one flit, five cycles to the neighbour, recv 3; then the credit is back
    assert found[0, "send"] == [4, 12 + 1, 22 + 1]
    # mul has 7 lane steps; a message that comes before they end waits for its row
    assert found[1, "receive"] == [12, 22, 32]
    assert found[1, "vector"] == [19, 29, 39]
    (send,) = [unit for unit in timeline.all_units() if unit.name == "send"]
    assert send.stalls == {"memory": 3, "channel full": 8 + 9}


def test_messages_share_the_last_link_into_a_core() -> None:
    text = """
.channel c core 0 -> 5 s8[4, 8] depth=1 @0x0100
.channel d core 1 -> 5 s8[4, 8] depth=1 @0x0200
.core 0 "a"
  .buffer row s8[1, 4, 8] @0x0000
  send c, row
.core 1 "b"
  .buffer row s8[1, 4, 8] @0x0000
  send d, row
.core 5 "to"
  .buffer row s8[2, 4, 8] @0x0000
  recv row[0], c
  recv row[1], d
"""
    timeline = simulate(parse_program(HEAD + text), tiny(), images=1)
    # d: one hop, its 8 flits use the link into core 5 from cycle 5 to 13. c: two hops, the second
    # one from (1, 0) down, behind d, from 8 on; at 13 it may enter the core
    assert ends(timeline)[5, "receive"] == [21 + 3, 24 + 3]
    assert sum(link.waited for link in timeline.links) == 3
    assert {link.name: link.busy for link in timeline.links}["into core 5"] == 16


def test_a_deadlock_names_the_channels() -> None:
    text = """
.channel c core 0 -> 1 s8[4, 1] depth=1 @0x0100
.channel d core 1 -> 0 s8[4, 1] depth=1 @0x0100
.core 0 "a"
  .buffer row s8[1, 4, 1] @0x0000
  recv row, d
  send c, row
.core 1 "b"
  .buffer row s8[1, 4, 1] @0x0000
  recv row, c
  send d, row
"""
    with pytest.raises(PimError) as caught:
        simulate(parse_program(HEAD + text), tiny())
    assert [d.code for d in caught.value.diagnostics] == ["R711", "R711"]
    assert "core 0 waits on channel `d`" in str(caught.value)


@given(seed=SEEDS, images=st.integers(1, 4))
def test_the_simulation_agrees_with_simpy_on_random_programs(seed: int, images: int) -> None:
    program, target = random_program(seed), tiny()
    assert ends(simulate(program, target, images)) == dict(Oracle(program, target, images).ends)


@given(seed=SEEDS)
def test_the_same_program_always_takes_the_same_time(seed: int) -> None:
    first, second = (simulate(random_program(seed), tiny(), 3) for _ in range(2))
    assert ends(first) == ends(second)


@given(seed=SEEDS)
def test_no_time_is_shorter_than_the_busiest_unit(seed: int) -> None:
    timeline = simulate(random_program(seed), tiny(), 4)
    assert timeline.interval >= timeline.bound[0]
    assert timeline.makespan >= 4 * timeline.bound[0]
    for unit in timeline.all_units():
        assert unit.busy + sum(unit.stalls.values()) <= unit.ends[-1]
        assert all(start < end for start, end in zip(unit.starts, unit.ends, strict=True))


@given(seed=SEEDS)
def test_busy_and_stalled_cycles_add_up_to_the_last_start(seed: int) -> None:
    program, target = random_program(seed), tiny()
    for unit in simulate(program, target, 2).all_units():
        assert unit.busy + sum(unit.stalls.values()) >= unit.starts[-1]


@given(seed=SEEDS)
def test_a_faster_clock_is_never_slower(seed: int) -> None:
    program = random_program(seed)
    slow, fast = (simulate(program, tiny(clock_ghz=clock), 3) for clock in ("1.2", "2.4"))
    assert fast.makespan * fast.cycle_ns <= slow.makespan * slow.cycle_ns


@given(seed=SEEDS, images=st.integers(1, 3))
def test_one_more_image_never_ends_sooner(seed: int, images: int) -> None:
    program = random_program(seed)
    fewer, more = (simulate(program, tiny(), count) for count in (images, images + 1))
    assert more.makespan > fewer.makespan


def test_without_the_pipeline_inside_a_pe_a_fire_takes_the_sum_of_its_stages() -> None:
    # 6 cycles of other stages + 2 conversions (core 0) or 1 (core 1), instead of 5
    timeline = simulate(three_layers(), tiny(ou__pipelined="false"), images=1)
    matrix = {unit.core: unit.busy for unit in timeline.all_units() if unit.name == "matrix"}
    assert matrix == {0: 2 * 4 * 8 * 8, 1: 2 * 8 * 7}
