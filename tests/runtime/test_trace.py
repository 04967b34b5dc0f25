"""The trace: what Perfetto shows is what the simulation found."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from support.timed import overlapping_products, three_layers

from isa.target import load_target
from runtime.timing import simulate
from runtime.trace import trace_events, trace_json, write_trace


def test_every_executed_instruction_is_a_slice_on_the_track_of_its_unit() -> None:
    timeline = simulate(three_layers(), load_target("tiny"), images=2)
    events = json.loads(trace_json(timeline))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == sum(len(unit.starts) for unit in timeline.all_units()) == 2 * 2 * 9
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    first = next(s for s in slices if tracks[s["pid"], s["tid"]] == "matrix")
    assert first["name"] == "mvm conv"
    assert first["args"]["image"] == 0
    assert first["args"]["instruction"].split() == ["mvm", "acc,", "a,", "rows"]
    assert (first["ts"], first["dur"]) == (0.005833, 0.140834)  # cycle 7 to 176, in picoseconds
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: "core 0: conv", 1: "core 1: pool"}


def test_a_trace_follows_the_event_format_that_perfetto_reads() -> None:
    timeline = simulate(three_layers(), load_target("tiny"), images=3)
    trace = json.loads(trace_json(timeline))
    assert set(trace) == {"displayTimeUnit", "traceEvents"}
    named = defaultdict[tuple[int, int], set[str]](set)
    for event in trace["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "args"} <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            named[event["pid"], event["tid"]].add(event["name"])
            (key,) = event["args"]
            assert key == ("sort_index" if event["name"].endswith("sort_index") else "name")
            continue
        assert event["ph"] == "X"
        assert {"thread_name", "thread_sort_index"} <= named[event["pid"], event["tid"]]
        assert {"process_name", "process_sort_index"} <= named[event["pid"], 0]
        assert event["args"]["image"] in range(3)


def test_slices_of_a_track_are_in_order_and_never_overlap_in_whole_nanoseconds() -> None:
    # Perfetto cuts times to nanoseconds and drops a slice that begins within the one before
    target = load_target("tiny", {"clock_ghz": "1.0"})  # whole nanoseconds: 1.001 us is less
    timeline = simulate(overlapping_products(), target, images=100)
    tracks = defaultdict[tuple[int, int], list[dict[str, Any]]](list)
    for event in trace_events(timeline):
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    assert len(tracks) == sum(1 for _ in timeline.all_units())
    has_cut = False
    for slices in tracks.values():
        free = 0
        for event in slices:
            start, duration = (int(event[key] * 1000) for key in ("ts", "dur"))
            assert start >= free
            assert event["dur"] >= 0
            free = start + duration
            result = event["args"].get("result_us")
            has_cut |= result is not None
            assert result is None or result > event["ts"] + event["dur"]
    assert has_cut, "the matrix unit drains while it starts the next instruction"


def test_a_compressed_trace_is_the_same_each_time(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json.gz", "b.json.gz")]
    for path in paths:
        write_trace(simulate(three_layers(), load_target("tiny"), images=2), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert json.loads(gzip.decompress(paths[0].read_bytes()))["displayTimeUnit"] == "ns"


def test_names_from_the_model_are_escaped() -> None:
    name = 'a"},{"b\n</script>'
    program = three_layers()
    first = dataclasses.replace(program.cores[0], layer=name)
    program = dataclasses.replace(program, cores=(first, program.cores[1]))
    events = json.loads(trace_json(simulate(program, load_target("tiny"))))["traceEvents"]
    assert events[0]["args"]["name"] == f"core 0: {name}"
