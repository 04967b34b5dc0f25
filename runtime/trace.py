"""Chrome-trace JSON of a simulation; opens in Perfetto and in chrome://tracing.

A core is a process, its units are the threads; a slice is one executed instruction. Times stand
in microseconds, as the format wants.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isa.assembly import instruction_text
from runtime.stream_table import CoreTable
from runtime.timeline import Timeline

NS_PER_US = 1e3


def trace_events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Every executed instruction as a complete event ("X"), after the names of the tracks."""
    us = timeline.cycle_ns / NS_PER_US
    for index, table in enumerate(timeline.tables):
        yield _name("process_name", table.core, 0, f"core {table.core}: {table.view.layer}")
        yield {
            "ph": "M",
            "name": "process_sort_index",
            "pid": table.core,
            "args": {"sort_index": index},
        }
        texts = _texts(table)
        for unit, time in enumerate(timeline.units[index]):
            yield _name("thread_name", table.core, unit, time.name)
            steps = table.units[unit].steps
            for number, (start, end) in enumerate(zip(time.starts, time.ends, strict=True)):
                image, place = divmod(number, len(steps))
                static = table.static[steps[place]]
                yield {
                    "ph": "X",
                    "name": f"{static.instruction.mnemonic} {static.layer}",
                    "cat": static.layer,
                    "pid": table.core,
                    "tid": unit,
                    "ts": start * us,
                    "dur": (end - start) * us,
                    "args": {"image": image, "instruction": texts[steps[place]]},
                }


def trace_json(timeline: Timeline) -> str:
    """The whole trace as text."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    events = ",\n".join(encode(event) for event in trace_events(timeline))
    return '{"displayTimeUnit":"ns","traceEvents":[\n' + events + "\n]}\n"


def write_trace(timeline: Timeline, path: str | Path) -> None:
    """Write the trace to a file, compressed where its name ends in `.gz`."""
    data = trace_json(timeline).encode()
    path = Path(path)
    # no time stamp inside: the same simulation gives the same file
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _name(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _texts(table: CoreTable) -> list[str]:
    return [instruction_text(step.instruction) for step in table.static]
