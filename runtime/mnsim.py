"""MNSIM 2.0's own latency and energy of a network, to check that we understand its figures.

It models one image through a pipeline of layers, output position by output position; energy is
power times time. Both are kept as they are, known defects included, and used for nothing else.
Sources: cost-models.md, sections 2 (formulas) and 2.1 (component values).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from isa.target import Target
from runtime.mnsim_places import Tiles, place_tiles


@dataclass(frozen=True)
class Charges:
    """What MNSIM charges and no target description has a place for."""

    value_bits: int = 9  # activations, outputs and weights
    port_bits: int = 64  # Buffer_Bitwidth
    port_ns: float = 20.0  # hard-coded; the table of SRAM cycles beside it is unused
    buffer_read_mw: float = 0.0075695 / 20 * 1e3 + 1.006428  # 2 KB, 90 nm: energy and leakage
    buffer_write_mw: float = 0.0131361 / 20 * 1e3 + 1.006428
    samples_extra: int = 2  # a conversion takes this many samples more than it has bits
    converter_gs_s: float = 1.0
    dac_mw: float = 0.0039
    adc_mw: float = 1.26
    decoder_ns: float = 0.27933  # 1:8, 65 nm
    mux_ns: float = 0.032744  # 8:1
    register_mw: float = 18.8e-6 * (45 / 65) ** 2
    shift_mw: float = 0.81e-3
    join_mw: float = 0.264 * (45 / 65) ** 2
    intra_tile_gb_s: float = 1024.0
    inter_tile_gb_s: float = 20.0
    pool_ns: float = 100.0  # for up to 64 channels and windows of up to 9
    pool_channels: int = 64
    pool_window: int = 9
    pool_mw: float = 3.082
    add_ns: float = 10.0


@dataclass(frozen=True)
class NetLayer:
    """One layer of MNSIM's network list. kind: "conv", "fc", "pool" or "add".

    before: its producers as distances back in the list. size: rows and columns of the output.
    """

    kind: str
    inputs: int
    outputs: int
    size: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    input_size: int = 1
    before: tuple[int, ...] = (1,)


@dataclass(frozen=True, eq=False)
class LayerResult:
    """start, finish: first start and last finish, us. energy_uj: of one image."""

    start_us: float
    finish_us: float
    energy_uj: float


def evaluate(
    layers: Sequence[NetLayer], target: Target, charges: Charges | None = None
) -> list[LayerResult]:
    """Start, finish and energy of every layer, one image through the element-wise pipeline.

    target: the shipped `mnsim`, or a variant of it.
    """
    charges = charges or Charges()
    models = [_Layer(layer, target, charges) for layer in layers]
    follows = [
        tuple(n for n, user in enumerate(layers) if n - index in user.before)
        for index in range(len(layers))
    ]
    width = target.hierarchy.mesh_height
    tiles = place_tiles([model.tiles for model in models], follows, layers_add(layers), width)
    finished: list[list[float]] = []
    results = []
    for index, model in enumerate(models):
        sources = [finished[index - back] for back in layers[index].before if index >= back]
        begun, ends = model.run(sources, tiles[index])
        finished.append(ends)
        results.append(LayerResult(begun * 1e-3, ends[-1] * 1e-3, model.energy_nj() * 1e-3))
    return results


def layers_add(layers: Sequence[NetLayer]) -> tuple[bool, ...]:
    """Which layers take no tiles of their own."""
    return tuple(layer.kind == "add" for layer in layers)


class _Layer:
    """One layer on its tiles."""

    def __init__(self, layer: NetLayer, target: Target, charges: Charges) -> None:
        self.layer, self.target, self.charges = layer, target, charges
        self.is_matrix = layer.kind in ("conv", "fc")
        self.period = target.cycle_ns
        crossbar, window = target.crossbar, layer.kernel**2
        whole = crossbar.rows // window  # whole kernels only, so some rows stay empty
        self.rows = min(whole, layer.inputs) * window
        self.columns = min(layer.outputs, crossbar.columns)
        planes = charges.value_bits - 1  # the sign is the crossbar of the pair
        across = planes * -(-layer.outputs // crossbar.columns)
        self.all_pes = across * -(-layer.inputs // whole) if self.is_matrix else 1
        per_tile = target.hierarchy.pes_per_core
        self.pes = min(self.all_pes, per_tile)
        self.tiles = 0 if layer.kind == "add" else -(-self.all_pes // per_tile)
        self.read_ns = self.write_ns = 0.0  # of its buffers, summed over the positions
        self.positions = layer.size**2
        self.pool_ns = 0.0

    def _port(self, values: float) -> float:
        """Time of a buffer for a number of values, ns."""
        bits = values * self.charges.value_bits
        return math.ceil(bits / self.charges.port_bits) * self.charges.port_ns

    @cached_property
    def drive_steps(self) -> int:
        """Steps per input bit: turns over the rows and columns that converters can take."""
        ou = self.target.ou
        return -(-self.rows // ou.rows) * -(-self.columns // ou.columns)

    @cached_property
    def steps(self) -> int:
        return self.charges.value_bits * self.drive_steps

    @cached_property
    def component_ns(self) -> dict[str, float]:
        """Time of each part for one position, ns."""
        c, t, m = self.charges, self.target, self.steps
        size = t.crossbar.rows * t.crossbar.columns / 8192
        wire = 1e-3 * (2e-4 * size**2 + 5e-6 * size + 4e-14)
        turns = [-(-t.crossbar.rows // t.ou.rows), -(-t.crossbar.columns // t.ou.columns)]
        down, across = (1 + _octal_digits(turn) for turn in turns)
        columns = -(-self.columns // t.ou.columns)
        return {
            "dac": m * (t.dac.bits + c.samples_extra) / c.converter_gs_s,
            "xbar": m * (t.device.read_ns + wire),
            "adc": m * (t.adc.bits + c.samples_extra) / c.converter_gs_s,
            "ireg": (self.drive_steps + m) * self.period,
            "shift": m * self.period,
            "oreg": columns * self.period,
            "demux": m * down * c.decoder_ns,
            "mux": m * across * c.mux_ns,
            "join": self.levels * self.period,
        }

    @property
    def levels(self) -> int:
        """Levels of the tree that joins the PEs in use."""
        return (self.pes - 1).bit_length()

    @cached_property
    def result_write_ns(self) -> float:
        """Into the tile's output buffer, before the partial sums are joined."""
        bits = (self.target.adc.bits + self.levels) * self.columns * self.pes
        return math.ceil(bits / self.charges.port_bits) * self.charges.port_ns

    @cached_property
    def intra_ns(self) -> float:
        """Over the wires of the joining tree."""
        levels, used = (self.target.hierarchy.pes_per_core - 1).bit_length(), self.levels
        bits = levels * (self.target.adc.bits + used) - used * (used + 1) / 2
        return bits * self.columns / self.charges.intra_tile_gb_s

    def run(self, sources: list[list[float]], tiles: Tiles) -> tuple[float, list[float]]:
        """First start and the finish of every position, ns; ``sources``: finishes of producers."""
        c, layer = self.charges, self.layer
        transfer = tiles.out * layer.outputs * c.value_bits / c.inter_tile_gb_s
        if layer.kind == "add":
            values = len(layer.before) * layer.outputs
            fixed = c.add_ns + transfer + 2 * self._port(values)
        elif layer.kind == "pool":
            units = -(-layer.inputs // c.pool_channels) * -(-(layer.kernel**2) // c.pool_window)
            self.pool_ns = c.pool_ns * units
            # the output buffer is read twice: once as part of the pool, once as merging
            fixed = self.pool_ns + 3 * self._port(layer.inputs) + transfer
        else:
            message = self.columns * self.pes
            merge = self._port(message)
            merge += tiles.within * (self.period + message * c.value_bits / c.inter_tile_gb_s)
            compute = sum(self.component_ns.values()) + self.intra_ns + self.result_write_ns
            fixed = compute + merge + transfer
        return self._positions(sources, fixed)

    def _positions(self, sources: list[list[float]], fixed: float) -> tuple[float, list[float]]:
        ends: list[float] = []
        begun, free = 0.0, 0.0
        for row in range(self.layer.size):
            for column in range(self.layer.size):
                needed = self._needed(row, column)
                ready = max((source[needed] for source in sources), default=0.0)
                start = max(ready, free)
                write, read = self._input_ns(row, column)
                self.write_ns += write
                self.read_ns += read
                free = start + write + read + fixed
                begun = start if not ends else begun
                ends.append(free)
        return begun, ends

    def _needed(self, row: int, column: int) -> int:
        """Position of the producer that must be finished before one of ours can start."""
        layer = self.layer
        if layer.kind == "fc":
            return -1
        if layer.kind == "add":
            return row * layer.size + column
        reach = max(layer.kernel - layer.padding, 1)
        rows, columns = (min(reach + layer.stride * n, layer.input_size) for n in (row, column))
        return (rows - 1) * layer.input_size + columns - 1

    def _input_ns(self, row: int, column: int) -> tuple[float, float]:
        """Writing new inputs into the line buffer, and reading a window's new part from it."""
        layer = self.layer
        if layer.kind == "add":
            return 0.0, 0.0
        if layer.kind == "fc":
            return self._port(self.rows), self._port(self.rows)
        window, stride = layer.kernel**2, layer.stride
        per_pe = self.rows / window if self.is_matrix else layer.inputs
        reach = max(layer.kernel - layer.padding, 0)
        if column == 0:
            new = stride * reach if row else reach**2
            return self._port(per_pe * new), self._port(per_pe * window)
        new = stride * layer.kernel if row == 0 and self.is_matrix else stride**2
        return self._port(per_pe * new), self._port(per_pe * stride * layer.kernel)

    def energy_nj(self) -> float:
        """Power times time, summed over parts; after ``run``. Sums of two tensors are free."""
        if self.layer.kind == "add":
            return 0.0
        picojoule = self._matrix_pj() if self.is_matrix else self._pool_pj()  # mW x ns
        return picojoule * 1e-3

    def _pool_pj(self) -> float:
        """Of a pool: its unit and the output buffer, which stands for the input buffer too."""
        c = self.charges
        out = self._port(self.layer.inputs) * self.positions
        buffers = c.buffer_read_mw * (self.read_ns + out)
        buffers += c.buffer_write_mw * (self.write_ns + out)
        return buffers + c.pool_mw * self.pool_ns * self.positions

    def _matrix_pj(self) -> float:
        """Of all tiles: PEs in use, the tree that joins them, and buffers.

        The converters that are powered follow from the columns in use, while the time takes
        turns over all columns, so a narrow layer pays half; kept as it is.
        """
        c, t, ns, n = self.charges, self.target, self.component_ns, self.positions
        turns_down = -(-t.crossbar.rows // t.ou.rows)
        turns_across = -(-t.crossbar.columns // t.ou.columns)
        rows, columns = -(-self.rows // turns_down), -(-self.columns // turns_across)
        cells = 2 * self.rows * self.columns / (turns_down * turns_across)
        per_pe = (
            rows * (c.dac_mw * ns["dac"] + c.register_mw * ns["ireg"])
            + columns * (c.adc_mw * ns["adc"] + c.shift_mw * ns["shift"])
            + columns * c.register_mw * ns["oreg"]
            + cells * _cell_mw(t) * ns["xbar"]
        )
        join = (self.pes - 1) * columns * c.join_mw * ns["join"]
        reading = self.read_ns + self._port(self.columns * self.pes) * n
        writing = self.write_ns + self.result_write_ns * n
        buffers = (self.pes + 1) * (c.buffer_read_mw * reading + c.buffer_write_mw * writing)
        return self.tiles * ((self.pes * per_pe + join) * n + buffers)


def _octal_digits(number: int) -> int:
    """Digits to base 8: how many levels of 8:1 multiplexers a choice takes."""
    return (number.bit_length() + 2) // 3


def _cell_mw(target: Target) -> float:
    """MNSIM's average read power of a cell, whatever it holds."""
    low, high = target.device.lrs_ohm, target.device.hrs_ohm
    ohm = low * high / (0.67 * low + 0.33 * high)
    return float(0.1 * target.device.read_voltage_v**2 / ohm * 1e3)
