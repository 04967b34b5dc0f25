"""Devices with imperfections for tests: numbers set by name, cells, products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from isa.matrix import BlockMatrix, Spans
from isa.program import Core, Matrix
from isa.target import Target, load_target
from runtime.analog import Place, analog_matrix, analog_product
from runtime.device import Device, Faults, effective_cells

Blocks = Callable[..., BlockMatrix]
CHIP = load_target("ou9x8")
CHIP_OFF = 10_000 / 990_000  # lrs / (hrs - lrs): the high-resistance state, in counts


def device(seed: int = 0, chip: Target = CHIP, **overrides: object) -> Device:
    """A device with numbers of `nonideal` set; `programming__sigma=0.05`."""
    texts = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    return Device(chip.with_nonideal(texts), seed)


def placed(blocks: BlockMatrix) -> BlockMatrix:
    """The groups one below the other, 128 columns and 126 rows a crossbar."""
    parts = []
    for group in range(blocks.groups):
        columns = int(np.diff(blocks.column_start)[group])
        for first in range(0, columns, 128):
            stack = group // 14, first // 128
            place = (group, first, min(128, columns - first), stack[0] * 8 + stack[1])
            parts.append((*place, group % 14 * 9, 0))
    return replace(blocks, spans=Spans(*np.array(parts, np.int32).T))


def core_of(blocks: BlockMatrix, name: str = "w", index: int = 0) -> Core:
    matrix = Matrix(name, "layer", (0, blocks.inputs), (0, blocks.outputs), blocks)
    return Core(index, "layer", (matrix,), (), ())


def cells_of(blocks: BlockMatrix, chip: Device, core: int = 0) -> np.ndarray[Any, Any]:
    return effective_cells(core_of(blocks, index=core), chip, Faults(chip))["w"]


def product(
    u: np.ndarray[Any, Any], blocks: BlockMatrix, chip: Device, place: Place | None = None
) -> tuple[np.ndarray[Any, Any], int]:
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    return analog_product(u, matrix, place or Place(windows=len(u)))


def inputs_of(seed: int, windows: int, blocks: BlockMatrix) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (windows, blocks.inputs)).astype(np.uint8)
