"""The time without a pipeline between layers: each starts when the one before has finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from isa.catalog import Send
from isa.program import Program
from isa.target import Target
from runtime.skips import Skips
from runtime.stream_table import CoreTable
from runtime.timing import core_tables, simulate_alone


def layer_by_layer(program: Program, target: Target, skips: Skips | None = None) -> dict[str, int]:
    """Cycles of each layer for one image, alone on the chip; an image takes their sum.

    All messages from other layers wait in their queues when a layer starts, and there is room
    for all that it sends, as if queues were as deep as a whole value: the baseline without
    overlap, with the same streams. Units within a core and cores of a layer still overlap.
    skips: what a run has skipped; its first image is taken.
    """
    layers: dict[str, list[CoreTable]] = {}
    tables = core_tables(program, target)
    for core, table in zip(program.cores, tables, strict=True):
        layers.setdefault(core.layer or f"core {core.index}", []).append(table)
    messages = _messages(tables)
    return {
        name: simulate_alone(program, target, own, messages, skips).makespan
        for name, own in layers.items()
    }


def _messages(tables: Iterable[CoreTable]) -> Counter[str]:
    """Messages per image on each channel."""
    found = Counter[str]()
    for table in tables:
        for unit in table.units:
            for step in unit.steps:
                instruction = table.static[step].instruction
                if isinstance(instruction, Send):
                    found[instruction.channel] += 1
    return found
