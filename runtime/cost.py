"""Energy of an executed program: counts of events times the target's prices, per layer and group.

Never power times time, so no schedule changes the dynamic energy; static energy is leakage times
the time that the simulation gives, and has a row of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from isa.catalog import Mvm
from isa.diagnostics import Diagnostic, PimError
from isa.program import Core, Program
from isa.target import Target
from runtime.area import Extent, source_of
from runtime.core_view import Catalogue, CoreView
from runtime.counters import with_trips
from runtime.events import ADC_CONVERSION, GLOBAL_BIT, Context, events_of, spared_events
from runtime.skips import Skips

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "adc": (ADC_CONVERSION,),
    "accumulation": ("shift_add", "output_read", "output_write"),
    "array": ("word_line_drive", "row_select", "cell_read_lrs", "cell_read_hrs", "sample_hold"),
    "buffers": (
        "input_fetch",
        "input_write",
        "side_buffer_read",
        "side_buffer_write",
        "index_read",
        "index_write",
        "memory_access",
        "bus_transfer",
    ),
    "network": ("flit_hop", GLOBAL_BIT),
    "vector": ("vector_add", "vector_multiply", "vector_divide", "vector_table", "pool_compare"),
    "control": ("instruction_fetch", "instruction_decode"),
}
PROGRAMMING: Final = ("cell_set", "cell_reset")
GROUP_OF: Final = {event: group for group, events in GROUPS.items() for event in events}


@dataclass(frozen=True)
class Price:
    """Energy of one event, and where the number comes from."""

    energy_pj: float
    source: str


def prices(target: Target) -> dict[str, Price]:
    """The price of every kind of event, those of programming included."""
    found = {
        name: Price(
            getattr(target.events, name).energy_pj,
            source_of(target, f"events.{name}.energy_pj"),
        )
        for name in type(target.events).model_fields
    }
    bits = target.adc.bits
    source = source_of(target, f"adc.energy_pj.{bits}")
    found[ADC_CONVERSION] = Price(target.adc_energy_pj, source)
    source = source_of(target, "global_memory.energy_pj_per_bit")
    found[GLOBAL_BIT] = Price(target.global_memory.energy_pj_per_bit, source)
    return found


@dataclass(eq=False)
class LayerCost:
    """One layer, per image. events: counts by kind. macs: products that the stored cells stand for.

    fires: operation units, of which fires_skipped found no input, on average of a run, where the
    target skips those. programming: one-time events of writing the weights.
    """

    name: str
    events: dict[str, float] = field(default_factory=dict)
    programming: dict[str, float] = field(default_factory=dict)
    macs: int = 0
    fires: int = 0
    fires_skipped: float = 0.0
    crossbars: int = 0


@dataclass(frozen=True, eq=False)
class Cost:
    """What an image costs, by layer; all energies in pJ. used: the part of the chip that works.

    programming_cycles: to write the weights once, crossbars in parallel, row by row.
    takes_skips: whether fires that a run has skipped are taken off.
    """

    target: Target
    layers: dict[str, LayerCost]
    used: Extent
    cells: int
    programming_cycles: int
    takes_skips: bool = False

    @cached_property
    def prices(self) -> dict[str, Price]:
        return prices(self.target)

    def groups(self, layer: LayerCost) -> dict[str, float]:
        """Energy of a layer by group."""
        found = dict.fromkeys(GROUPS, 0.0)
        for event, count in layer.events.items():
            found[GROUP_OF[event]] += count * self.prices[event].energy_pj
        return found

    @cached_property
    def total(self) -> LayerCost:
        """All layers together."""
        total = LayerCost("total")
        for layer in self.layers.values():
            _add(total.events, layer.events)
            _add(total.programming, layer.programming)
            total.macs += layer.macs
            total.fires += layer.fires
            total.fires_skipped += layer.fires_skipped
            total.crossbars += layer.crossbars
        return total

    def energy_pj(self, layer: LayerCost) -> float:
        """Dynamic energy of a layer per image."""
        return sum(self.groups(layer).values())

    def programming_pj(self, layer: LayerCost) -> float:
        """Energy of writing a layer's weights once, all pulses included."""
        repeats = self.target.device.write_repeats
        return repeats * sum(
            count * self.prices[event].energy_pj for event, count in layer.programming.items()
        )

    def check(self) -> None:
        """Raise PimError I999 where parts do not sum to totals or something is negative."""
        for layer in (*self.layers.values(), self.total):
            for event, count in (*layer.events.items(), *layer.programming.items()):
                if count < 0:
                    raise _broken(f"{layer.name} counts {count} of `{event}`")
        layers = sum(self.energy_pj(layer) for layer in self.layers.values())
        events = sum(
            count * self.prices[event].energy_pj for event, count in self.total.events.items()
        )
        if not math.isclose(layers, events, rel_tol=1e-9):
            raise _broken(f"layers sum to {layers} pJ, events to {events} pJ")


def price_program(
    program: Program,
    target: Target,
    ones: Mapping[str, float] | None = None,
    skips: Skips | None = None,
) -> Cost:
    """What one image of a program costs.

    ones: share of one bits among the input bits of a layer, by layer, as a run has measured it.
    skips: what the run has skipped; without it every operation unit fires.
    """
    catalogue, layers = Catalogue.of(program), dict[str, LayerCost]()
    programming = cells = pes = crossbars = 0
    for core in program.cores:
        context = Context(CoreView(core, catalogue, target), dict(ones or {}))
        _count_stream(context, layers)
        taken, rows, stored = _count_matrices(context.view, layers)
        crossbars += len(taken)
        pes += len({crossbar // target.hierarchy.crossbars_per_pe for crossbar in taken})
        programming = max(programming, rows)
        cells += stored
    if skips is not None:
        _take_skips(skips, layers)
    used = Extent(len(program.cores), pes, crossbars, _routers(program.cores, target))
    row_cycles = target.events.cell_set.cycles * target.device.write_repeats
    cost = Cost(target, layers, used, cells, programming * row_cycles, skips is not None)
    cost.check()
    return cost


def _count_stream(context: Context, layers: dict[str, LayerCost]) -> None:
    """Add the events of one core's stream to its layers."""
    view = context.view
    for instruction, times in with_trips(view.core.body, 1):
        name = view.layer_of(instruction)
        layer = layers.setdefault(name, LayerCost(name))
        _add(layer.events, events_of(context, instruction), times)
        if isinstance(instruction, Mvm):
            work, windows = view.work(instruction.matrix), times * view.shape(instruction.into)[1]
            layer.macs += windows * work.products
            layer.fires += windows * work.units * view.target.inputs.bits


def _take_skips(skips: Skips, layers: Mapping[str, LayerCost]) -> None:
    """Take off what an average image of a run has skipped."""
    for name, spared in skips.layers.items():
        layer = layers[name]
        layer.fires_skipped = spared.fires_skipped / skips.images
        events = spared_events(spared).items()
        _add(layer.events, {event: count / skips.images for event, count in events}, -1)


def _count_matrices(view: CoreView, layers: dict[str, LayerCost]) -> tuple[set[int], int, int]:
    """Add the writing of one core's weights; its crossbars, most rows of one, and its cells."""
    rows, taken, stored = Counter[int](), set[int](), 0
    for name, matrix in view.matrices.items():
        work = view.work(name)
        layer = layers.setdefault(matrix.layer, LayerCost(matrix.layer))
        reset = work.cells - work.set_cells
        _add(layer.programming, {"cell_set": work.set_cells, "cell_reset": reset})
        layer.crossbars += len(work.crossbars)
        stored += work.cells
        taken.update(work.crossbars.tolist())
        rows.update(dict(enumerate(work.lines_by_crossbar.tolist())))
    return taken, max(rows.values(), default=0), stored


def _add(events: dict[str, float], more: Mapping[str, float], times: int = 1) -> None:
    """``events += times * more``."""
    for event, count in more.items():
        events[event] = events.get(event, 0) + times * count


def _routers(cores: tuple[Core, ...], target: Target) -> int:
    return len({target.router_of(core.index) for core in cores})


def _broken(message: str) -> PimError:
    return PimError(Diagnostic("I999", f"cost model: {message}"))
