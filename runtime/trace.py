"""Chrome-trace JSON of a simulation; opens in Perfetto and in chrome://tracing.

A core is a process, its units are the threads; a slice is one executed instruction. Times stand
in microseconds, as the format wants, in whole picoseconds. Slices of one thread must not overlap,
or Perfetto drops the later one; so a slice ends at the latest a picosecond before its unit starts
the next instruction, and says in `result_us` when its own result is there. The picosecond is for
readers that cut times to nanoseconds: a number that is not exact in binary may lose one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from isa.assembly import instruction_text
from isa.drafts import drafted_file
from runtime.timeline import Timeline

PS_PER_NS, PS_PER_US = 1e3, 1e6


def trace_events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Every executed instruction as a complete event ("X"), after the names of its track.

    The slices of one thread come in the order of their times.
    """
    for index, table in enumerate(timeline.tables):
        yield _meta("process_name", table.core, 0, name=f"core {table.core}: {table.view.layer}")
        yield _meta("process_sort_index", table.core, 0, sort_index=index)
        texts = [instruction_text(step.instruction) for step in table.static]
        for unit in range(len(table.units)):
            yield from _track(timeline, index, unit, texts)


def _track(
    timeline: Timeline, index: int, unit: int, texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The names and slices of one unit; texts: of the core's static steps."""
    table, time = timeline.tables[index], timeline.units[index][unit]
    yield _meta("thread_name", table.core, unit, name=time.name)
    yield _meta("thread_sort_index", table.core, unit, sort_index=unit)
    steps, to_ps = table.units[unit].steps, timeline.cycle_ns * PS_PER_NS
    following = chain(time.starts[1:], [time.ends[-1] + 1])
    for number, times in enumerate(zip(time.starts, time.ends, following, strict=True)):
        image, place = divmod(number, len(steps))
        static = table.static[steps[place]]
        start, end, after = (round(cycle * to_ps) for cycle in times)
        args: dict[str, Any] = {"image": image, "instruction": texts[steps[place]]}
        if after < end:
            args["result_us"] = end / PS_PER_US
        yield {
            "ph": "X",
            "name": f"{static.instruction.mnemonic} {static.layer}",
            "cat": static.layer,
            "pid": table.core,
            "tid": unit,
            "ts": start / PS_PER_US,
            "dur": max(0, min(end, after - 1) - start) / PS_PER_US,
            "args": args,
        }


def trace_json(timeline: Timeline) -> str:
    """The whole trace as text."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    events = ",\n".join(encode(event) for event in trace_events(timeline))
    return '{"displayTimeUnit":"ns","traceEvents":[\n' + events + "\n]}\n"


def write_trace(timeline: Timeline, path: str | Path) -> None:
    """Write the trace to a file, compressed where its name ends in `.gz`.

    All of it or nothing. Raises PimError C508, C509.
    """
    data = trace_json(timeline).encode()
    path = Path(path)
    with drafted_file(path) as draft:
        # no time stamp inside: the same simulation gives the same file
        draft.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _meta(what: str, process: int, thread: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": args}
