"""What a run costs in events, per layer: known from the text alone, but for what the data decides.

Control flow never depends on data, so one walk over the text gives every count; a run only adds
the conversions that clipped and the fires that were skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from isa.catalog import Load, Mvm, Recv, Send, Store
from isa.instruction import Instruction
from isa.operands import Region
from isa.program import DTYPES, Buffer, Core, Loop, Program, Shape, Statement, Tensor
from isa.target import Target


@dataclass
class LayerCounters:
    """Events of one layer; all counts, `_bytes` in bytes.

    windows: input vectors that a matrix took. ou_fires: operation units per input bit, of which
    fires_skipped found no input, where the target skips those (conversions are of all).
    conversions: ADC conversions, one per stored column and input bit. route_adds: additions of a
    column's sum to an output. vector_elements: elements that vector instructions wrote.
    """

    windows: int = 0
    ou_fires: int = 0
    fires_skipped: int = 0
    conversions: int = 0
    route_adds: int = 0
    saturations: int = 0
    vector_elements: int = 0
    moved_bytes: int = 0  # within a core: fill, copy, gather, const
    sent_bytes: int = 0
    received_bytes: int = 0
    loaded_bytes: int = 0
    stored_bytes: int = 0

    def add(self, other: LayerCounters, times: int = 1) -> None:
        """Add ``times`` the counts of ``other``."""
        for item in fields(self):
            value = getattr(self, item.name) + times * getattr(other, item.name)
            setattr(self, item.name, value)

    def as_json(self) -> dict[str, int]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass
class Counters:
    """Events of a run over ``images`` images.

    layers: by name; a matrix counts for its own layer, all else for the layer of its core
    ("core N" where the core names none). executed: instructions by mnemonic.
    """

    images: int = 1
    layers: dict[str, LayerCounters] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)

    def layer(self, name: str) -> LayerCounters:
        """The counters of a layer, made when it is new."""
        return self.layers.setdefault(name, LayerCounters())

    def total(self) -> LayerCounters:
        """The sum over all layers."""
        total = LayerCounters()
        for counters in self.layers.values():
            total.add(counters)
        return total

    def add(self, other: Counters) -> None:
        """Add the events of other images."""
        self.images += other.images
        for name, layer in other.layers.items():
            self.layer(name).add(layer)
        for mnemonic, count in other.executed.items():
            self.executed[mnemonic] = self.executed.get(mnemonic, 0) + count

    def scaled(self, images: int) -> Counters:
        """The counters of ``images`` images; self must be those of one."""
        scaled = Counters(images)
        for name, counters in self.layers.items():
            scaled.layer(name).add(counters, images)
        scaled.executed = {name: count * images for name, count in self.executed.items()}
        return scaled

    def as_json(self) -> dict[str, object]:
        return {
            "images": self.images,
            "executed": dict(sorted(self.executed.items())),
            "total": self.total().as_json(),
            "layers": {name: counters.as_json() for name, counters in self.layers.items()},
        }


def count_program(program: Program, target: Target) -> Counters:
    """The counters of one image, without saturations and skips."""
    counters = Counters()
    tensors = {tensor.name: tensor for tensor in program.tensors}
    for core in program.cores:
        _CoreCounter(core, tensors, target, counters).count()
    return counters


class _CoreCounter:
    """Counts the instructions of one core."""

    def __init__(
        self, core: Core, tensors: Mapping[str, Tensor], target: Target, counters: Counters
    ) -> None:
        self._core = core
        self._layer = counters.layer(core.layer or f"core {core.index}")
        self._counters = counters
        self._boxes: dict[str, Tensor | Buffer] = {**tensors, **{b.name: b for b in core.buffers}}
        self._matrices = {matrix.name: matrix for matrix in core.matrices}
        self._routes = {m.name: m.blocks.route_count() for m in core.matrices}
        self._units = {m.name: m.blocks.blocks(target.ou.columns) for m in core.matrices}
        self._input_bits = target.inputs.bits
        self._bits_routed = target.inputs.bits if target.accumulation.routing == "per-bit" else 1

    def count(self) -> None:
        executed = self._counters.executed
        for instruction, times in with_trips(self._core.body, 1):
            name = instruction.mnemonic
            executed[name] = executed.get(name, 0) + times
            if isinstance(instruction, Mvm):
                self._count_mvm(instruction, times)
            else:
                self._count_move(instruction, times)

    def _count_mvm(self, i: Mvm, times: int) -> None:
        matrix = self._matrices[i.matrix]
        layer = self._counters.layer(matrix.layer)
        windows = times * self._shape(i.into)[1]
        layer.windows += windows
        layer.ou_fires += windows * self._input_bits * self._units[i.matrix]
        layer.conversions += windows * self._input_bits * matrix.blocks.columns
        layer.route_adds += windows * self._bits_routed * self._routes[i.matrix]

    def _count_move(self, i: Instruction, times: int) -> None:
        layer = self._layer
        written = sum(self._elements(region) for region in i.written_regions()) * times
        if i.unit == "vector":
            layer.vector_elements += written
        elif isinstance(i, Send):
            layer.sent_bytes += times * self._bytes(i.source)
        elif isinstance(i, Recv):
            layer.received_bytes += times * self._bytes(i.into)
        elif isinstance(i, Load):
            layer.loaded_bytes += times * self._bytes(i.source)
        elif isinstance(i, Store):
            layer.stored_bytes += times * self._bytes(i.into)
        else:
            layer.moved_bytes += times * sum(self._bytes(r) for r in i.written_regions())

    def _shape(self, region: Region) -> Shape:
        rows, columns, channels = self._boxes[region.name].shape
        return (
            rows if region.rows is None else region.rows.count,
            columns if region.columns is None else region.columns.count,
            channels if region.channels is None else region.channels.count,
        )

    def _elements(self, region: Region) -> int:
        rows, columns, channels = self._shape(region)
        return rows * columns * channels

    def _bytes(self, region: Region) -> int:
        return self._elements(region) * DTYPES[self._boxes[region.name].dtype].itemsize


def with_trips(body: tuple[Statement, ...], trips: int) -> Iterator[tuple[Instruction, int]]:
    """Every instruction of the text with how often it is executed."""
    for statement in body:
        if isinstance(statement, Loop):
            rounds = len(range(statement.start, statement.stop, statement.step))
            yield from with_trips(statement.body, trips * rounds)
        else:
            yield statement, trips
