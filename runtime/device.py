"""The cells of a core as a non-ideal device holds them: written, stuck, aged, behind wires.

All conductances are in *counts*: one count is the conductance range over the largest cell value,
so that an ideal cell of value v has v counts above the high-resistance state. `docs/device.md`
has every formula in the order of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, Location, PimError
from isa.matrix import BlockMatrix
from isa.program import Core
from isa.target import Target
from isa.target_nonideal import Drift, NonIdeal, Programming
from runtime.draws import generator, key_of
from runtime.wires import transfer_matrix

Float = NDArray[np.float64]
MAP_ARRAYS = ("core", "crossbar", "row", "column", "stuck")


@dataclass(frozen=True, eq=False)
class Device:
    """A chip with its imperfections; two devices of one target and seed are the same chip.

    full_scales: (core, matrix) -> largest sum seen on samples, where the ADC's range is calibrated.
    """

    target: Target
    seed: int = 0
    full_scales: Mapping[tuple[int, str], float] = field(default_factory=dict)

    @property
    def nonideal(self) -> NonIdeal:
        return self.target.nonideal

    @property
    def off_counts(self) -> float:
        """Conductance of the high-resistance state."""
        cell = self.target.device
        return self.target.cell_max * cell.lrs_ohm / max(cell.hrs_ohm - cell.lrs_ohm, 1e-12)


def effective_cells(core: Core, device: Device, faults: Faults) -> dict[str, Float]:
    """What each stored column adds to its sum for each driven word line, counts [columns, R].

    By matrix of the core. Raises PimError R730 where an effect needs the place of a column that
    has none.
    """
    nonideal, off = device.nonideal, device.off_counts
    wired = not nonideal.wires.is_ideal
    cells = {}
    for matrix in core.matrices:
        key = (core.index, matrix.name)
        values = matrix.blocks.cell_values().astype(np.float64)
        programmed = _programmed(values, nonideal.programming, device, key)
        if faults.any or wired:
            sites = _Sites(matrix.blocks, matrix.name)
            stuck = faults.at(core.index, sites)
        else:
            stuck = np.full((1, 1), -1, np.int8)
        programmed *= _drift(programmed.shape, nonideal.drift, device, key)
        programmed = np.where(stuck == 0, off, programmed)
        cells[matrix.name] = np.where(stuck == 1, device.target.cell_max + off, programmed)
    if wired:
        _through_wires(core, device, cells)
    subtracted = 0.0 if nonideal.off_current else off
    return {name: values - subtracted for name, values in cells.items()}


def _programmed(
    values: Float, programming: Programming, device: Device, key: tuple[int, str]
) -> Float:
    """Conductance after writing ``values``, at least 0."""
    nominal = values + device.off_counts
    if programming.is_ideal:
        return nominal
    largest = device.target.cell_max
    draws = generator(key_of(device.seed, "programming", *key)).standard_normal(values.shape)
    if programming.distribution == "lognormal":
        return nominal * np.exp(programming.sigma * draws)
    if programming.distribution == "proportional":
        deviation = programming.sigma * nominal
    elif programming.distribution == "gaussian":
        deviation = np.full_like(nominal, programming.sigma * largest)
    else:
        x = values / largest
        p = programming
        deviation = np.abs(p.sigma + p.sigma_1 * x + p.sigma_2 * x * x) * largest
    return np.maximum(nominal + deviation * draws, 0.0)


def _drift(
    shape: tuple[int, ...], drift: Drift, device: Device, key: tuple[int, str]
) -> Float | float:
    """The factor (t / t0)^-nu of each cell."""
    if drift.is_ideal:
        return 1.0
    age = drift.time_s / drift.reference_s
    if not drift.exponent_sigma:
        return float(age**-drift.exponent)
    draws = generator(key_of(device.seed, "drift", *key)).standard_normal(shape)
    return np.asarray(age ** -(drift.exponent + drift.exponent_sigma * draws))


class _Sites:
    """Where the cells of a matrix stand: crossbar [columns, 1], row [columns, R], column."""

    def __init__(self, blocks: BlockMatrix, name: str) -> None:
        spans = blocks.spans
        place = np.full((3, blocks.columns), -1, np.int64)
        index = np.repeat(blocks.column_start[spans.group] + spans.first, spans.count)
        within = np.arange(len(index)) - np.repeat(
            np.cumsum(spans.count) - spans.count, spans.count
        )
        place[0, index + within] = np.repeat(spans.crossbar, spans.count)
        place[1, index + within] = np.repeat(spans.row, spans.count)
        place[2, index + within] = np.repeat(spans.column, spans.count) + within
        if place.min(initial=0) < 0:
            message = f"matrix `{name}` has columns without a place in a crossbar"
            hint = "faults and wire resistance need the place of every column"
            raise PimError(Diagnostic("R730", message, hint=hint))
        self.crossbar = place[0][:, None]
        self.row = place[1][:, None] + np.arange(blocks.rows.shape[1])
        self.column = place[2][:, None]
        self.crossbars = np.unique(place[0])


class Faults:
    """Stuck cells by physical place: whatever is written there, they stay."""

    def __init__(self, device: Device) -> None:
        wanted = device.nonideal.faults
        self._device = device
        self._rates = (wanted.stuck_at_0, wanted.stuck_at_1)
        self._map = None if wanted.map is None else read_fault_map(Path(wanted.map), device.target)
        self.any = any(self._rates) or self._map is not None
        self._images: dict[tuple[int, int], NDArray[np.int8]] = {}

    def at(self, core: int, sites: _Sites) -> NDArray[np.int8]:
        """-1 for a sound cell, else the state in which it is stuck, int8 [columns, R]."""
        stuck = np.full(sites.row.shape, -1, np.int8)
        rows = self._device.target.crossbar.rows
        row = np.minimum(sites.row, rows - 1)  # unused word lines may lie beyond the array
        for crossbar in sites.crossbars:
            mine = sites.crossbar[:, 0] == crossbar
            image = self._image(core, int(crossbar))
            stuck[mine] = image[row[mine], sites.column[mine]]
        return stuck

    def _image(self, core: int, crossbar: int) -> NDArray[np.int8]:
        """The state of each cell of one array, int8 [rows, columns]."""
        if (core, crossbar) not in self._images:
            size = self._device.target.crossbar
            image = np.full((size.rows, size.columns), -1, np.int8)
            if any(self._rates):
                key = key_of(self._device.seed, "faults", core, crossbar)
                draws = generator(key).random(image.shape)
                image[draws < self._rates[0]] = 0
                image[draws >= 1 - self._rates[1]] = 1
            if self._map is not None:
                cores, crossbars, rows, columns, states = self._map
                mine = (cores == core) & (crossbars == crossbar)
                image[rows[mine], columns[mine]] = states[mine]
            self._images[core, crossbar] = image
        return self._images[core, crossbar]


def read_fault_map(file: Path, target: Target) -> NDArray[np.int64]:
    """The stuck cells of a map, int64 [5, cells] in the order of MAP_ARRAYS.

    Raises PimError R731 for a file that is no such map or names cells that are not there.
    """

    def wrong(message: str) -> PimError:
        hint = f"a fault map is an npz of integer arrays {', '.join(MAP_ARRAYS)}, one entry a cell"
        return PimError(Diagnostic("R731", message, Location(str(file)), hint))

    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = [np.asarray(archive[name]) for name in MAP_ARRAYS]
    except (OSError, ValueError, KeyError, AttributeError, EOFError, BadZipFile) as error:
        raise wrong(f"`{file}` is no fault map: {error}") from error
    sound = all(a.ndim == 1 and a.dtype.kind in "iu" for a in arrays)
    if not sound or len({len(array) for array in arrays}) > 1:
        raise wrong(f"`{file}`: the arrays are not integer lists of one length")
    size = target.crossbar
    bounds = (target.cores, target.crossbars_per_core, size.rows, size.columns, 2)
    for name, array, bound in zip(MAP_ARRAYS, arrays, bounds, strict=True):
        if len(array) and not 0 <= array.min() <= array.max() < bound:
            raise wrong(f"`{file}`: `{name}` has values outside 0..{bound}")
    return np.stack([array.astype(np.int64) for array in arrays])


def _through_wires(core: Core, device: Device, cells: dict[str, Float]) -> None:
    """Replace the conductances of a core by what reaches the ADC, array by array."""
    size, off = device.target.crossbar, device.off_counts
    sites = {m.name: _Sites(m.blocks, m.name) for m in core.matrices}
    used = {
        m.name: np.repeat(m.blocks.rows >= 0, np.diff(m.blocks.column_start), axis=0)
        for m in core.matrices
    }
    count = 1.0 / (device.target.device.lrs_ohm * (device.target.cell_max + off))  # siemens
    for crossbar in _all_crossbars(sites.values()):
        array = np.full((size.rows, size.columns), off)
        places = {}
        for name, site in sites.items():
            column, line = np.nonzero(used[name] & (site.crossbar == crossbar))
            places[name] = (column, line, site.row[column, line], site.column[column, 0])
            array[places[name][2:]] = cells[name][column, line]
        seen = transfer_matrix(array * count, device.nonideal.wires) / count
        for name, (column, line, row, at) in places.items():
            cells[name][column, line] = seen[row, at]


def _all_crossbars(sites: Iterable[_Sites]) -> list[int]:
    return sorted({int(crossbar) for site in sites for crossbar in site.crossbars})
