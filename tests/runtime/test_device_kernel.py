"""The device in C gives the bits of NumPy, whichever way it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.devices import (
    Blocks,
    cells_of,
    device,
    inputs_of,
)

from isa.matrix import BlockMatrix, fold
from isa.target import load_target
from runtime import analog_paths
from runtime.analog import Place, analog_matrix, analog_product
from runtime.analog_paths import AnalogCrossbars, load_device_extension, make_sparse_plan
from runtime.device import Device
from runtime.kernel import Kernel, load_extension

EXTENSION = load_device_extension()
LEVELS = range(load_extension().best_level() + 1) if EXTENSION is not None else ()  # type: ignore[union-attr]
needs_c = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")


@needs_c
@pytest.mark.parametrize("level", LEVELS)
@given(
    seed=st.integers(0, 2**32 - 1),
    lines=st.sampled_from([1, 2, 9, 10, 11, 16, 17, 40, 128]),
    cell_bits=st.sampled_from([1, 2]),
    bits=st.sampled_from([1, 3, 4, 5, 8]),
    windows=st.sampled_from([0, 1, 7, 33, 96, 130, 1030]),
    read=st.sampled_from([{}, {"sigma": 0.1}, {"sigma": 0.1, "distribution": "proportional"}]),
    transfer=st.sampled_from(
        [{}, {"range": "proof"}, {"offset_lsb": 1.3, "gain": 0.9}, {"inl_lsb.2": -0.7}]
    ),
)
def test_c_gives_the_bits_of_numpy(
    random_blocks: Blocks,
    level: int,
    seed: int,
    lines: int,
    cell_bits: int,
    bits: int,
    windows: int,
    read: dict[str, object],
    transfer: dict[str, object],
) -> None:
    blocks = random_blocks(seed, lines=lines, cell_bits=cell_bits, shared=seed % 2 == 0)
    chip = load_target("ou9x8", {"adc.bits": str(bits), "crossbar.cell_bits": str(cell_bits)})
    numbers = {"programming__sigma": 0.05}
    numbers |= {f"read__{key}": value for key, value in read.items()}  # type: ignore[misc]
    numbers |= {f"adc__{key}": value for key, value in transfer.items()}  # type: ignore[misc]
    chip = device(seed % 100, chip, **numbers)
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    if not matrix.narrow:
        return
    u = random_inputs(seed, windows, blocks)
    place = Place(3, 50, 4)
    expected, saturated = analog_product(u, matrix, place)
    for way in ("auto", "table"):
        crossbars = AnalogCrossbars(matrix, Kernel(load_extension(), level, way))
        out = np.full((windows, blocks.outputs), 12345, np.int32)
        assert crossbars.path in ("analog", "analog-sparse")
        assert crossbars.multiply(u, out, place) == saturated
        assert np.array_equal(out, expected)


@needs_c
@pytest.mark.parametrize("level", LEVELS)
@given(
    seed=st.integers(0, 2**32 - 1),
    lines=st.sampled_from([1, 2, 6, 7, 9, 12]),
    sigma=st.sampled_from([0, 0.03, 0.1]),
    bits=st.sampled_from([1, 3, 5]),
    transfer=st.sampled_from([{}, {"inl_lsb.2": -0.7}, {"gain": 1.01}]),
    most=st.sampled_from([0, 100, 10**9]),
    windows=st.sampled_from([11, 24, 64, 97]),  # one at a time; 64 at a time; both
)
def test_the_listed_differences_are_those_of_the_codes(
    random_blocks: Blocks,
    level: int,
    seed: int,
    lines: int,
    sigma: float,
    bits: int,
    transfer: dict[str, object],
    most: int,
    windows: int,
) -> None:
    blocks = random_blocks(seed, lines=lines, shared=seed % 2 == 0)
    numbers = {"programming__sigma": sigma, **{f"adc__{k}": v for k, v in transfer.items()}}
    chip = device(seed % 100, load_target("ou9x8", {"adc.bits": str(bits)}), **numbers)
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analog_paths, "SPARSE_SHARE", most / max(1, blocks.columns << lines))
        plan = make_sparse_plan(EXTENSION, matrix, level)
    if plan is None:
        assert most < 10**9
        return
    u = random_inputs(seed, windows, blocks)
    expected, saturated = analog_product(u, matrix, Place())
    out = (u.astype(np.int64) @ fold(blocks)).astype(np.int32)
    assert EXTENSION.sparse(plan, u, out, level) == saturated
    assert np.array_equal(out, expected)


@needs_c
def test_few_differences_are_listed_and_many_are_tabulated(dense_blocks: Blocks) -> None:
    blocks = dense_blocks(np.random.default_rng(0).integers(-128, 128, (90, 16)), 9)
    paths = {}
    for sigma in (0.05, 0.2):
        chip = device(programming__sigma=sigma)
        matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
        paths[sigma] = AnalogCrossbars(matrix, Kernel(load_extension(), 0, "auto")).path
    assert paths == {0.05: "analog-sparse", 0.2: "analog"}


@needs_c
def test_a_list_of_differences_has_a_bound_in_bytes(dense_blocks: Blocks) -> None:
    blocks = dense_blocks(np.random.default_rng(0).integers(-128, 128, (90, 16)), 9)
    chip = device(programming__sigma=0.05)
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analog_paths, "SPARSE_MOST", 10)
        assert make_sparse_plan(EXTENSION, matrix, 0) is None
    assert make_sparse_plan(EXTENSION, matrix, 0) is not None


def random_inputs(seed: int, windows: int, blocks: BlockMatrix) -> np.ndarray[Any, Any]:
    """Bytes; some draws are all ones, so that the largest sums occur, or small and mostly zero."""
    u = inputs_of(seed, windows, blocks)
    return np.full_like(u, 255) if seed % 3 == 0 else u * (u < 50) if seed % 3 == 1 else u


@needs_c
def test_sums_beyond_16_bits_are_left_to_numpy(random_blocks: Blocks) -> None:
    blocks = random_blocks(2, lines=128, cell_bits=3)
    chip = Device(load_target("ou9x8", {"adc.bits": "9", "crossbar.cell_bits": "3"}))
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    assert AnalogCrossbars(matrix, Kernel(load_extension(), 0, "auto")).path == "analog-numpy"
