"""PRAP-PIM's cost model as a closed form: latency and energy of a network under a mapping mode.

Behaviour as in the authors' simulator (MNSIM-derived), rewritten as formulas: 8x8 operation units,
8-bit weights on one-bit cells, one-bit inputs, 8 crossbars a PE, 3x3 PEs a tile. The hardware
numbers are the paper's; the crossbar size is inferred (see `CROSSBAR`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Final

from pimc.reproduce.prap_networks import Layer, Network, replicas

CROSSBAR: Final = 256  # rows and columns; inferred: only here both published ratios come out
OU: Final = 8  # rows and columns fired together
BITS: Final = 8  # of weights (one-bit cells) and of inputs (one a step)
PES: Final = 9  # of a tile
CROSSBARS: Final = 8  # of a PE
SHAPES: Final = 8  # entries of a group's pattern dictionary

CYCLE_NS: Final = 1 / 1.2  # digital part, 1.2 GHz, 32 nm
DEMUX_NS: Final = 0.5587  # at 256 lines
MUX_NS: Final = 0.131
DAC_NS: Final = 2.5
READ_NS: Final = 3.16
ADC_NS: Final = 6.667  # 6 bits, 1.2 GS/s, 8 cycles
BEAT_NS: Final = 1.2  # 32 bytes of a buffer
BEAT_BITS: Final = 256
STEP_NS: Final = 3 * CYCLE_NS + DEMUX_NS + DAC_NS + READ_NS + MUX_NS + ADC_NS
INTER_TILE_GBPS: Final = 20
INTRA_TILE_GBPS: Final = 1024
SUM_BITS: Final = 6  # of a partial sum between PEs

CROSSBAR_MW: Final = 0.3  # for 128x128, read as a whole
DAC_MW: Final = 0.0039
ADC_MW: Final = 0.6425
REGISTER_MW: Final = 0.23
SHIFTER_MW: Final = 0.05  # likewise an adder; two of each a crossbar
JOIN_MW: Final = 0.264 * (32 / 65) ** 2  # scaled from 65 nm
JOIN_CYCLES: Final = 4
BUFFER_MW_PER_KB: Final = 20.7 / 64


@dataclass(frozen=True)
class Mode:
    """A mapping mode: which lists it applies and which bookkeeping it pays for.

    prune, reuse: names of kept-share lists. by_column: each OU column has rows of its own, so
    inputs are read for each (SRE's row compression). shaped: kernels of a group have different
    shapes. similar: reuse with a power-of-two scale.
    """

    title: str
    prune: str | None = None
    reuse: str | None = None
    by_column: bool = False
    shaped: bool = False
    similar: bool = False

    @property
    def indexes_rows(self) -> bool:
        """Whether an index is read for each OU row."""
        return self.prune is not None and not self.by_column

    @property
    def indexes_units(self) -> bool:
        """Whether an index is read for each OU."""
        return self.by_column or self.reuse is not None

    def index_kilobytes(self, crossbar: int) -> float:
        """Return the index buffer of a PE in KB, rounded up to a power of two."""
        ou_rows = crossbar // OU
        size = 0
        if self.by_column:
            size += 8 * ou_rows**2
        elif self.shaped:
            size += ou_rows * _shape_table(SHAPES)
        elif self.prune is not None:
            size += 8 * ou_rows
        if self.reuse is not None:
            size += ou_rows**2 * (2 if self.similar else 1)  # pattern id, and the scale
        return _kilobytes(Fraction(size * CROSSBARS))


DENSE: Final = Mode("dense")
MODES: Final = {
    "S": Mode("S (channel pruning)", prune="channel"),
    "shape": Mode("shape pruning", prune="prune", shaped=True),
    "ORC": Mode("ORC (SRE)", prune="row", by_column=True),
    "identical": Mode("identical (PattPIM)", reuse="identical"),
    "similar": Mode("similar", reuse="similar", similar=True),
    "S+identical": Mode("S + identical", prune="channel", reuse="identical"),
    "PRAP": Mode("PRAP", prune="prune", reuse="joint", shaped=True, similar=True),
}


@dataclass(frozen=True)
class Corrections:
    """Which faults of the published code are mended.

    index_power: the index buffer draws power on its own beats (published: 0 W). adder_energy:
    adders are part of the sum. lists: no stale and no misplaced list entries. shape_fetches: an
    OU row with several shapes fetches inputs once a shape and its whole index, not one beat.
    """

    index_power: bool = False
    adder_energy: bool = False
    lists: bool = False
    shape_fetches: bool = False


AS_PUBLISHED: Final = Corrections()
CORRECTED: Final = Corrections(True, True, True, True)


@dataclass(frozen=True)
class Cost:
    """What one inference costs; layers one after the other. tiles: of a dense mapping."""

    latency_ns: float
    energy_nj: float
    tiles: int


@dataclass(frozen=True)
class _Extent:
    """How a layer lies on the chip: its tiles, and the rows and columns of a full crossbar."""

    tiles: int
    rows: int
    columns: int


@dataclass(frozen=True)
class _Buffers:
    """KB of the input and output buffer of a PE and of a tile's buffer; index KB of a PE."""

    inputs: float
    outputs: float
    tile: float
    index: float

    @property
    def milliwatts(self) -> float:
        """Power of a tile's data buffers."""
        return (PES * (self.inputs + self.outputs) + self.tile) * BUFFER_MW_PER_KB


@dataclass(frozen=True)
class _Window:
    """Times of one window in ns, one field for each group of parts that work in it.

    steps: OU steps one after the other. sums: OU columns finished.
    """

    steps: int
    sums: float
    data: float
    adds: float
    index: float
    tile_read: float
    tile_write: float
    network: float

    @property
    def latency(self) -> float:
        """Sum of all parts: nothing overlaps inside a window."""
        compute = self.steps * STEP_NS + self.sums * CYCLE_NS
        tile = self.tile_read * 2 + self.tile_write + self.network
        return compute + self.data + self.adds + self.index + tile


def evaluate(
    network: Network, mode: Mode, corrections: Corrections = AS_PUBLISHED, crossbar: int = CROSSBAR
) -> Cost:
    """Return latency, energy and tiles of `network` under `mode`.

    crossbar: rows and columns of a crossbar, a multiple of 8.
    """
    pruned = network.kept(mode.prune, corrections.lists)
    reused = network.kept(mode.reuse, corrections.lists)
    extents = [_extent(layer, crossbar) for layer in network.layers]
    buffers = _size_buffers(network, extents, mode, crossbar)
    latency = energy = 0.0
    for number, (layer, extent) in enumerate(zip(network.layers, extents, strict=True)):
        keep = (pruned[number], reused[number])
        window = _window(layer, extent, mode, keep, corrections, crossbar)
        # the first layer has three inputs and cannot fill the crossbars of a PE
        active = CROSSBARS if number else 3 if mode.shaped else 4
        power = _window_energy(window, buffers, active, corrections, crossbar)
        latency += window.latency * layer.windows
        energy += power * layer.windows * extent.tiles / 1000
    return Cost(latency, energy, _count_tiles(network, extents))


def _extent(layer: Layer, crossbar: int) -> _Extent:
    """Place a layer: PEs extend it along rows, the crossbars of a PE along columns."""
    units = crossbar // OU
    down = Fraction(ceil(Fraction(layer.rows, OU)), units)  # crossbars, not rounded
    across = Fraction(layer.outputs, units)
    rows, columns = min(layer.rows, crossbar), min(BITS * layer.outputs, crossbar)
    if layer.is_dense:
        tiles = ceil(Fraction(ceil(down) * ceil(across), PES * CROSSBARS))
        return _Extent(tiles, OU * ceil(Fraction(rows, OU)), OU * ceil(Fraction(columns, OU)))
    tiles_down = ceil(Fraction(ceil(down), PES))
    tiles_across = ceil(Fraction(ceil(across), CROSSBARS))
    full_rows = OU * ceil(rows * down / (PES * tiles_down) / OU)
    full_columns = OU * ceil(columns * across / (CROSSBARS * tiles_across) / OU)
    return _Extent(tiles_down * tiles_across * layer.multiple**2, full_rows, full_columns)


def _count_tiles(network: Network, extents: list[_Extent]) -> int:
    """Return the tiles of all layers; a residual sum takes one, a pooling one a replica.

    That rule for sums and poolings is inferred: it gives the published count of all four networks.
    """
    pools = sum(replicas(size) ** 2 for size in network.pools)
    return sum(extent.tiles for extent in extents) + pools + network.additions


def _size_buffers(network: Network, extents: list[_Extent], mode: Mode, crossbar: int) -> _Buffers:
    """Return buffers that serve the neediest layer of the network."""
    saved = 0 if mode.reuse is None else 2 if mode.similar else 1  # bytes of a reusable sum
    placed = list(zip(network.layers, extents, strict=True))
    inputs = max(Fraction(layer.input_bytes, PES * extent.tiles) for layer, extent in placed)
    outputs = max(Fraction(e.columns, PES * e.tiles) + e.columns * saved for e in extents)
    tile = max(Fraction(layer.output_bytes, layer.multiple**2) for layer in network.layers)
    index = mode.index_kilobytes(crossbar)
    return _Buffers(_kilobytes(inputs), _kilobytes(outputs), _kilobytes(tile), index)


def _shape_table(shapes: int) -> int:
    """Return the bytes that tell an OU row its shapes: four positions and a count for each."""
    return shapes * (4 + 1)


def _kilobytes(size: Fraction) -> float:
    """Round bytes up to a power of two; return KB."""
    return 2.0 ** (ceil(size) - 1).bit_length() / 1024 if size else 0.0


def _window(
    layer: Layer,
    extent: _Extent,
    mode: Mode,
    keep: tuple[Fraction, Fraction],
    corrections: Corrections,
    crossbar: int,
) -> _Window:
    """Return the times of one window. keep: shares of weights and of patterns that stay."""
    ou_rows = ceil(extent.rows // OU * keep[0])
    ou_columns = extent.columns // OU
    kept_columns = ceil(extent.columns * keep[1]) / OU
    steps = int(BITS * OU * ou_rows * kept_columns)  # OU columns share the ADC of a crossbar
    row_beats = BEAT_NS * ou_rows * CROSSBARS
    fetches = ou_columns if mode.by_column else 1
    shapes = min(SHAPES, ou_columns) if mode.shaped and corrections.shape_fetches else 1
    fresh = extent.rows if layer.is_dense else layer.stride**2  # bytes that a window adds
    data = row_beats * fetches * shapes
    data += _beats(fresh * 8) * extent.rows / OU * fetches
    data += 2 * row_beats * ou_columns  # partial sums: read and written
    data += row_beats * kept_columns if mode.reuse else 0  # sums saved for reuse
    add = ou_rows * ou_columns * CYCLE_NS  # similar: one more for the sum, one for its scale
    index = row_beats * ceil(_shape_table(shapes) * 8 / BEAT_BITS) if mode.indexes_rows else 0.0
    index += row_beats * ou_columns if mode.indexes_units else 0
    width = ou_columns * PES * CROSSBARS  # bits that leave the tile
    joined = PES * crossbar // OU * SUM_BITS
    network = 5 * CYCLE_NS + joined / INTRA_TILE_GBPS + width / INTER_TILE_GBPS
    network += floor(Fraction(layer.outputs * 8, INTER_TILE_GBPS * extent.tiles))
    return _Window(
        steps=steps,
        sums=ou_rows * kept_columns,
        data=data,
        adds=add * (3 if mode.similar else 1),
        index=index,
        tile_read=_beats(width),
        tile_write=_beats(joined * 8),
        network=network,
    )


def _beats(bits: int) -> float:
    """Return the time in ns to move that many bits through a buffer port."""
    return ceil(Fraction(bits, BEAT_BITS)) * BEAT_NS


def _window_energy(
    window: _Window, buffers: _Buffers, active: int, corrections: Corrections, crossbar: int
) -> float:
    """Return the energy of one window in one tile, in pJ: power of each part x its own time."""
    crossbars = PES * active
    line = CROSSBAR_MW * (crossbar / 128) ** 2 / (crossbar / OU) / crossbar
    step = line * READ_NS + OU * DAC_MW * DAC_NS + ADC_MW * ADC_NS
    step += (2 * SHIFTER_MW + OU * REGISTER_MW) * CYCLE_NS
    energy = crossbars * (window.steps * step + window.sums * REGISTER_MW * CYCLE_NS)
    energy += (PES - 1) * CROSSBARS * JOIN_MW * JOIN_CYCLES * CYCLE_NS
    beats = window.data + window.index + window.tile_read + window.tile_write
    energy += buffers.milliwatts * beats
    if corrections.index_power:
        energy += PES * buffers.index * BUFFER_MW_PER_KB * window.index
    if corrections.adder_energy:
        adding = window.steps * CYCLE_NS + window.adds
        energy += crossbars * 2 * SHIFTER_MW * adding
    return energy
