"""How many events of which kind one execution of each instruction causes.

One function per instruction class, as with the executors and the durations. The kinds are those
of the target's ``events``, and ADC_CONVERSION and GLOBAL_BIT. Nothing here depends on data, save
for the share of input bits that are one, which drives cells (ONES_SHARE where no run has
measured it), and for what a run has skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from isa.catalog import Const, Copy, Fill, Gather, Host, Load, Mvm, Recv, Requant, Send, Store
from isa.catalog_normalize import GroupNorm, LayerNorm
from isa.instruction import Instruction
from isa.operands import Region
from runtime.core_view import CoreView, beats
from runtime.durations import gathered_words, outside_bytes
from runtime.input_zeros import Spared
from runtime.lanes import VECTOR_CLASSES, lane_elements, lane_steps

ADC_CONVERSION: Final = "adc_conversion"
GLOBAL_BIT: Final = "global_bit"  # moved from or to the global memory
ONES_SHARE: Final = 0.5  # of input bits, where it is not known: cost-models.md 7.1

Kind = TypeVar("Kind", bound=Instruction)


@dataclass(frozen=True, eq=False)
class Context:
    """A core, and for its layers the share of input bits that are one."""

    view: CoreView
    ones: dict[str, float]


EVENTS: dict[type[Instruction], Callable[[Context, Any], dict[str, float]]] = {}


def causes(
    cls: type[Kind],
) -> Callable[
    [Callable[[Context, Kind], dict[str, float]]], Callable[[Context, Kind], dict[str, float]]
]:
    """Register the events of one instruction class."""

    def register(
        function: Callable[[Context, Kind], dict[str, float]],
    ) -> Callable[[Context, Kind], dict[str, float]]:
        EVENTS[cls] = function
        return function

    return register


def events_of(context: Context, instruction: Instruction) -> dict[str, float]:
    """Events of one execution, fetch and decode included."""
    found = {
        "instruction_fetch": 1,
        "instruction_decode": 1,
        **EVENTS[type(instruction)](context, instruction),
    }
    size = outside_bytes(context.view, instruction)
    if size:  # on top of what the same operand costs within a core, through which it goes
        found[GLOBAL_BIT] = found.get(GLOBAL_BIT, 0) + 8 * size
    return found


def _touched(view: CoreView, *sizes: int) -> dict[str, float]:
    """Accesses of the core's memory over its bus, for pieces of ``sizes`` bytes."""
    return {
        "memory_access": sum(view.memory_beats(size) for size in sizes),
        "bus_transfer": sum(view.bus_beats(size) for size in sizes),
    }


def _global(view: CoreView, size: int) -> dict[str, float]:
    return {GLOBAL_BIT: 8 * size, **_touched(view, size)}


@causes(Load)
def load(context: Context, i: Load) -> dict[str, float]:
    return _global(context.view, context.view.bytes(i.into))


@causes(Store)
def store(context: Context, i: Store) -> dict[str, float]:
    return _global(context.view, context.view.bytes(i.source))


@causes(Host)
def host(context: Context, i: Host) -> dict[str, float]:
    """The global memory's part; what the host itself spends is not the chip's."""
    return {GLOBAL_BIT: 8 * context.view.partition_bytes(i.partition)}


@causes(Send)
def send(context: Context, i: Send) -> dict[str, float]:
    """Read from memory, then flits over hops; into the global memory where the queue is there."""
    view = context.view
    size, channel = view.bytes(i.source), view.catalogue.channels[i.channel]
    if channel.address is None:
        return _global(view, size)
    hops = view.target.hops(channel.source, channel.target)
    return {"flit_hop": view.flits(size) * hops, **_touched(view, size)}


@causes(Recv)
def recv(context: Context, i: Recv) -> dict[str, float]:
    """The message is written to its queue as it arrives, then read and written to the buffer."""
    view = context.view
    size = view.bytes(i.into)
    if view.catalogue.channels[i.channel].address is None:
        return _global(view, size)
    return _touched(view, size, size, size)


@causes(Fill)
def fill(context: Context, i: Fill) -> dict[str, float]:
    return _touched(context.view, context.view.bytes(i.into))


@causes(Const)
def const(context: Context, i: Const) -> dict[str, float]:
    view = context.view
    read = view.index_beats(view.table_bits(i.table))
    return {"index_read": read, **_touched(view, view.bytes(i.into))}


@causes(Copy)
def copy(context: Context, i: Copy) -> dict[str, float]:
    size = context.view.bytes(i.into)
    return _touched(context.view, size, size)


@causes(Gather)
def gather(context: Context, i: Gather) -> dict[str, float]:
    """One index per element out of the index memory, a word of the source per change of word."""
    view = context.view
    index_bits = view.elements(i.into) * max(1, (view.elements(i.source) - 1).bit_length())
    found = Counter[str](_touched(view, view.bytes(i.into)))
    words = gathered_words(view, i.source, i.index)
    found.update({"memory_access": words, "bus_transfer": words})
    return {"index_read": view.index_beats(index_bits), **found}


@causes(Mvm)
def mvm(context: Context, i: Mvm) -> dict[str, float]:
    """Every input bit of every window through all operation units; routes once or per bit."""
    view, target = context.view, context.view.target
    work = view.work(i.matrix)
    windows = view.shape(i.into)[1]
    steps = windows * target.inputs.bits
    conversions = steps * work.blocks.columns
    routings = steps if target.accumulation.routing == "per-bit" else windows
    words = beats(target.accumulation.bits, target.events.output_write)
    ones = context.ones.get(view.layer_of(i), ONES_SHARE)
    inputs = [view.bus_beats(int(size)) for size in work.input_bytes_by_pe]
    writes = [beats(8 * int(size), target.events.input_write) for size in work.input_bytes_by_pe]
    fetches = [beats(int(lines), target.events.input_fetch) for lines in work.lines_by_crossbar]
    found = Counter[str](_touched(view, view.bytes(i.into)))
    found.update({"memory_access": windows * sum(inputs), "bus_transfer": windows * sum(inputs)})
    return {
        "word_line_drive": steps * work.driven_rows,
        "row_select": steps * work.driven_rows,
        "cell_read_lrs": steps * ones * work.conducting_cells,
        "cell_read_hrs": steps * ones * (work.cells - work.conducting_cells),
        "sample_hold": conversions,
        ADC_CONVERSION: conversions,
        "shift_add": conversions + routings * work.routes,
        "output_read": routings * work.output_updates * words,
        "output_write": routings * work.output_updates * words,
        "input_write": windows * sum(writes),
        "input_fetch": steps * sum(fetches),
        "index_read": windows * sum(map(view.index_beats, (work.table_bits, work.mask_bits))),
        **found,
    }


def spared_events(spared: Spared) -> dict[str, float]:
    """Events that do not happen where fires are skipped.

    Cells are not among them: only ones drive cells, and a skipped fire has none. Routes are
    taken all the same.
    """
    return {
        "word_line_drive": spared.lines_skipped,
        "row_select": spared.lines_skipped,
        "sample_hold": spared.conversions_skipped,
        ADC_CONVERSION: spared.conversions_skipped,
        "shift_add": spared.conversions_skipped,
    }


def lane_events(context: Context, i: Instruction) -> dict[str, float]:
    """Operands and result through memory, every element through the steps of its lane."""
    view = context.view
    (into,) = i.written_regions()
    regions: tuple[Region, ...] = (*i.read_regions(), into)
    found = Counter[str](_touched(view, *(view.bytes(region) for region in regions)))
    elements = lane_elements(view, i)
    for name, count in lane_steps(view, i):
        found[name] += elements * count
    tables: tuple[str, ...] = ()
    if isinstance(i, Requant):
        tables = (i.bias, i.scale)
    elif isinstance(i, LayerNorm | GroupNorm):
        tables = (i.gain, i.offset)
    found["index_read"] += view.index_beats(sum(map(view.table_bits, tables)))
    return dict(found)


for _cls in VECTOR_CLASSES:
    EVENTS[_cls] = lane_events
