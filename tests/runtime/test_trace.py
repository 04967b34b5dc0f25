"""The trace: what Perfetto shows is what the simulation found."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

from support.timed import three_layers

from isa.target import load_target
from runtime.timing import simulate
from runtime.trace import trace_json, write_trace


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
    assert (first["ts"], first["dur"]) == (7 / 1.2 / 1000, 169 / 1.2 / 1000)
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: "core 0: conv", 1: "core 1: pool"}


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
