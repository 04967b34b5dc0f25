"""Queue depths: with them no program can get stuck, without them some would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passes.queues import SLACK, Events, queue_depths


def runs_to_the_end(events: dict[int, Events], depths: dict[str, int], order: list[int]) -> bool:
    """Whether the bounded network ends when ready cores are advanced in the given order."""
    position, held = dict.fromkeys(events, 0), dict.fromkeys(depths, 0)
    moved = True
    while moved:
        moved = False
        for core in order:
            while position[core] < len(events[core]):
                channel, is_send = events[core][position[core]]
                if held[channel] == (depths[channel] if is_send else 0):
                    break
                held[channel] += 1 if is_send else -1
                position[core] += 1
                moved = True
    return all(position[core] == len(events[core]) for core in events)


def skip_network(lag: int, rows: int) -> tuple[dict[int, Events], dict[str, int]]:
    """Core 0 feeds core 1, which falls ``lag`` rows behind, and core 2, which needs both."""
    first = [event for _ in range(rows) for event in (("main", True), ("skip", True))]
    middle: list[tuple[str, bool]] = []
    for row in range(rows + lag):
        middle += [("main", False)] if row < rows else []
        middle += [("late", True)] if row >= lag else []
    last = [event for _ in range(rows) for event in (("late", False), ("skip", False))]
    return {0: first, 1: middle, 2: last}, {"main": 0, "skip": 0, "late": 1}


@given(st.integers(0, 6), st.integers(1, 12), st.permutations([0, 1, 2]))
def test_with_the_depths_found_no_order_of_the_cores_deadlocks(
    lag: int, rows: int, order: list[int]
) -> None:
    events, producer = skip_network(lag, rows)
    depths = queue_depths(events, producer)
    assert runs_to_the_end(events, depths, order)
    tight = {channel: depth - SLACK for channel, depth in depths.items()}
    assert runs_to_the_end(events, tight, order)


def test_a_skip_queue_is_as_deep_as_the_other_path_is_late() -> None:
    events, producer = skip_network(lag=4, rows=10)
    depths = queue_depths(events, producer)
    assert depths["skip"] == 4 + 1 + SLACK
    assert depths["main"] == depths["late"] == 1 + SLACK
    assert not runs_to_the_end(events, depths | {"skip": 3}, [0, 1, 2])


def test_two_sinks_advance_together_so_that_neither_piles_up_the_other_s_rows() -> None:
    first = [event for _ in range(50) for event in (("a", True), ("b", True))]
    events = {0: first, 1: [("a", False)] * 50, 2: [("b", False)] * 50}
    assert queue_depths(events, {"a": 0, "b": 0}) == {"a": 1 + SLACK, "b": 1 + SLACK}
