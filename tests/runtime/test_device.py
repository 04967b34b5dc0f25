"""The non-ideal device: it is exact when nothing is on, and each effect does what physics says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.devices import (
    CHIP_OFF,
    Blocks,
    cells_of,
    device,
    inputs_of,
    placed,
    product,
)

from isa.diagnostics import PimError
from isa.matrix import BlockMatrix, Routes, Spans, pack_cells
from isa.target import load_target
from isa.target_nonideal import Wires
from runtime.analog import Place, analog_matrix, analog_product
from runtime.crossbar import block_product
from runtime.device import Device, Faults
from runtime.draws import normal_pool, philox
from runtime.wires import transfer_matrix

# ------------------------------------------------------------------ the ideal device


@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(1, 8),
    lines=st.sampled_from([2, 9, 16, 40]),
    cell_bits=st.sampled_from([1, 2]),
)
def test_a_device_without_imperfections_is_the_exact_machine(
    random_blocks: Blocks, seed: int, bits: int, lines: int, cell_bits: int
) -> None:
    blocks = random_blocks(seed, lines=lines, cell_bits=cell_bits, shared=True)
    overrides = {"adc.bits": str(bits), "crossbar.cell_bits": str(cell_bits)}
    chip = Device(load_target("ou9x8", overrides))
    u = inputs_of(seed, 6, blocks)
    out, saturated = product(u, blocks, chip)
    expected, clipped = block_product(u, blocks, chip.target.adc_max)
    assert np.array_equal(out, expected)
    assert saturated == clipped


def test_a_range_by_proof_that_the_codes_cover_is_the_unit_range(random_blocks: Blocks) -> None:
    blocks = random_blocks(5)
    u = inputs_of(5, 6, blocks)
    chip = device(adc__range="proof")
    assert np.array_equal(product(u, blocks, chip)[0], block_product(u, blocks, 15)[0])


def test_no_time_no_ohm_and_no_deviation_change_nothing(dense_blocks: Blocks) -> None:
    blocks = placed(dense_blocks(np.arange(-50, 50).reshape(20, 5), 9))
    ideal = cells_of(blocks, device())
    assert np.array_equal(ideal, blocks.cell_values() + CHIP_OFF - CHIP_OFF)
    same = device(drift__exponent=0.1, drift__exponent_sigma=0.1, drift__time_s=3,
                  drift__reference_s=3)  # fmt: skip
    assert np.array_equal(cells_of(blocks, same), ideal)
    still = device(drift__time_s=1000)
    assert np.array_equal(cells_of(blocks, still), ideal)


# ------------------------------------------------------------------ programming error


def cells_with(level: int, count: int, lines: int, cell_bits: int = 2) -> BlockMatrix:
    """One row group of ``count`` columns, every cell at ``level``."""
    values = np.full((count, lines), level, np.uint8)
    routes = Routes(
        np.array([0, count]), np.zeros(count + 1, np.int64), np.zeros(0, np.int32),
        np.zeros(0, np.uint8), np.zeros(0, np.int8),
    )  # fmt: skip
    rows = np.arange(lines, dtype=np.int32)[None]
    return BlockMatrix(
        lines, 1, cell_bits, rows, pack_cells(values, cell_bits),
        np.array([0, count]), np.zeros(1, np.int32), routes, Spans.empty(),
    )  # fmt: skip


FOUR_LEVELS = load_target("ou9x8", {"crossbar.cell_bits": "2", "adc.bits": "5"})


@pytest.mark.parametrize(
    ("distribution", "terms", "deviation"),
    [
        ("gaussian", {}, 0.05 * 3),
        ("proportional", {}, 0.05 * (2 + 3 * CHIP_OFF)),
        ("lognormal", {}, 0.05 * (2 + 3 * CHIP_OFF)),
        ("state-dependent", {"sigma_1": 0.03, "sigma_2": -0.045}, 0.05 * 3),
    ],
)
def test_programming_error_has_the_deviation_of_its_formula(
    distribution: str, terms: dict[str, float], deviation: float
) -> None:
    keys = {f"programming__{key}": value for key, value in terms.items()}
    chip = device(0, FOUR_LEVELS, programming__distribution=distribution,
                  programming__sigma=0.05, **keys)  # fmt: skip
    cells = cells_of(cells_with(2, 5000, 9), chip)
    error = cells - 2
    assert abs(error.mean()) < 4 * deviation / np.sqrt(cells.size) + 0.003  # lognormal: s^2 / 2
    assert error.std() == pytest.approx(deviation, rel=0.02)


def test_a_conductance_is_never_negative(dense_blocks: Blocks) -> None:
    chip = device(programming__sigma=0.5, off_current="true")
    cells = cells_of(dense_blocks(np.zeros((9, 200), np.int64), 9), chip)
    assert cells.min() == 0
    assert (cells == 0).mean() == pytest.approx(0.49, abs=0.02)


def test_cells_are_drawn_by_seed_core_and_index_only() -> None:
    blocks = cells_with(1, 40, 9)
    first = cells_of(blocks, device(1, programming__sigma=0.05))
    assert np.array_equal(first, cells_of(blocks, device(1, programming__sigma=0.05)))
    assert not np.array_equal(first, cells_of(blocks, device(2, programming__sigma=0.05)))
    assert not np.array_equal(first, cells_of(blocks, device(1, programming__sigma=0.05), core=1))


# ------------------------------------------------------------------ faults and drift


def test_stuck_cells_follow_their_rates(dense_blocks: Blocks) -> None:
    blocks = placed(dense_blocks(np.random.default_rng(0).integers(-128, 128, (252, 40)), 9))
    chip = device(faults__stuck_at_0=0.1, faults__stuck_at_1=0.05)
    values, cells = blocks.cell_values(), cells_of(blocks, chip)
    assert (cells[values == 1] < 0.5).mean() == pytest.approx(0.1, abs=0.01)
    assert (cells[values == 0] > 0.5).mean() == pytest.approx(0.05, abs=0.01)


def test_a_fault_map_is_honoured_cell_by_cell(dense_blocks: Blocks, tmp_path: Path) -> None:
    blocks = placed(dense_blocks(np.random.default_rng(0).integers(-128, 128, (252, 40)), 9))
    file = tmp_path / "faults.npz"
    place = {"core": [3, 3, 2], "crossbar": [9, 0, 0], "row": [13, 0, 0], "column": [70, 5, 5]}
    ideal = cells_of(blocks, device(), core=3)
    group, line, column = 14 + 1, 13 - 9, 128 + 70  # the place of crossbar 9, row 13, column 70
    at = int(blocks.column_start[group]) + column
    stuck = [1 - int(blocks.cell_values()[at, line]), 1 - int(blocks.cell_values()[5, 0]), 1]
    np.savez(file, **{k: np.array(v) for k, v in place.items()}, stuck=np.array(stuck))
    cells = cells_of(blocks, device(faults__map=f'"{file}"'), core=3)
    assert np.argwhere(np.abs(cells - ideal) > 0.5).tolist() == sorted([[5, 0], [at, line]])


def test_a_wrong_fault_map_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "faults.npz"
    whole = {name: np.zeros(2, int) for name in ("core", "crossbar", "row", "column", "stuck")}
    for change, message in [
        ({"row": np.array([0, 128])}, "`row` has values outside 0..128"),
        ({"stuck": np.array([0.5, 1])}, "integer lists of one length"),
        ({"core": np.zeros(3, int)}, "integer lists of one length"),
    ]:
        np.savez(file, **(whole | change))
        with pytest.raises(PimError, match=f"R731.*{message}"):
            Faults(device(faults__map=f'"{file}"'))
    with pytest.raises(PimError, match=r"R731.*is no fault map"):
        Faults(device(faults__map='"nowhere.npz"'))


def test_columns_without_a_place_cannot_be_stuck() -> None:
    with pytest.raises(PimError, match=r"R730.*`w` has columns without a place"):
        cells_of(cells_with(1, 4, 9), device(faults__stuck_at_0=0.1))


def test_drift_is_the_power_law() -> None:
    chip = device(drift__exponent=0.1, drift__time_s=1e4, off_current="true")
    cells = cells_of(cells_with(1, 4, 9), chip)
    assert cells == pytest.approx((1 + CHIP_OFF) * 1e4**-0.1)
    spread = device(drift__exponent_sigma=0.02, drift__time_s=1e4, off_current="true")
    logs = np.log(cells_of(cells_with(1, 3000, 9), spread) / (1 + CHIP_OFF)) / np.log(1e4)
    assert logs.std() == pytest.approx(0.02, rel=0.05)


# ------------------------------------------------------------------ wires


def nodal_solve(g: np.ndarray[Any, Any], wires: Wires) -> np.ndarray[Any, Any]:
    """The currents of all bit lines for one volt on each word line, by Kirchhoff at every node."""
    rows, columns = g.shape
    nodes = rows * columns
    matrix, drive = np.zeros((2 * nodes, 2 * nodes)), np.zeros((2 * nodes, rows))

    def connect(a: int, b: int, siemens: float) -> None:
        matrix[[a, b], [a, b]] += siemens
        matrix[a, b] -= siemens
        matrix[b, a] -= siemens

    for i in range(rows):
        for j in range(columns):
            word, bit = i * columns + j, nodes + i * columns + j
            connect(word, bit, g[i, j])
            if j:
                connect(word, word - 1, 1 / wires.row_ohm)
            else:
                matrix[word, word] += 1 / wires.driver_ohm
                drive[word, i] = 1 / wires.driver_ohm
            if i < rows - 1:
                connect(bit, bit + columns, 1 / wires.column_ohm)
            else:
                matrix[bit, bit] += 1 / wires.sense_ohm
    voltage = np.linalg.solve(matrix, drive)
    return voltage[nodes + (rows - 1) * columns :].T / wires.sense_ohm


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_the_transfer_of_an_array_is_that_of_a_nodal_solve(
    seed: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    g = np.where(rng.random((rows, columns)) < 0.5, 1e-4, 1e-6)
    row, column, driver, sense = (float(x) for x in 10 ** rng.uniform(-1, 3, 4))
    wires = Wires(row_ohm=row, column_ohm=column, driver_ohm=driver, sense_ohm=sense)
    assert transfer_matrix(g, wires) == pytest.approx(nodal_solve(g, wires), rel=1e-7)


def test_without_resistance_the_transfer_is_the_conductance() -> None:
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (20, 30))
    assert np.array_equal(transfer_matrix(g, Wires()), g)


def test_wires_lower_the_sums_most_far_from_driver_and_adc(dense_blocks: Blocks) -> None:
    blocks = placed(dense_blocks(np.full((126, 16), -1), 9))
    cells = cells_of(blocks, device(wires__row_ohm=1, wires__column_ohm=1))
    near, far = cells[13 * 128, 8], cells[127, 0]
    assert 0.3 < far < near < 1.0


# ------------------------------------------------------------------ read noise


def test_philox_gives_the_published_numbers() -> None:
    known = {
        ((0, 0, 0, 0), (0, 0)): "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2): "408f276d 41c83b0e a20bc7c6 6d5451fd",
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
        ): "d16cfe09 94fdcceb 5001e420 24126ea1",
    }
    for (counter, key), words in known.items():
        assert " ".join(f"{int(word):08x}" for word in philox(counter, key)) == words


def test_the_pool_is_the_normal_distribution_in_random_order() -> None:
    pool = normal_pool() / 4096
    assert pool.mean() == 0
    assert pool.std() == pytest.approx(1, abs=1e-4)
    assert (np.abs(pool) > 3).mean() == pytest.approx(0.0027, abs=1e-4)
    for lag in (1, 2, 7, 63):
        assert abs((pool * np.roll(pool, lag)).mean()) < 4 / 256


@pytest.mark.parametrize("distribution", ["gaussian", "proportional"])
def test_read_noise_has_the_variance_of_its_cells(distribution: str, dense_blocks: Blocks) -> None:
    """Through a fine ADC whose range is far from both ends: the sum's variance is theory's."""
    blocks = dense_blocks(np.full((9, 64), 127), 9)  # seven ones and a zero in each column of 8
    chip = device(3, load_target("ou9x8", {"adc.bits": "9"}), read__sigma=0.1,
                  read__distribution=distribution, adc__gain=20, adc__offset_lsb=100)  # fmt: skip
    u = np.full((200, 9), 1, np.uint8)
    u[:, 6:] = 0  # six driven cells, in the lowest input bit
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    out, saturated = analog_product(u, matrix, Place(windows=200))
    assert saturated == 0
    noise = out - out.mean(axis=0)
    weights = 4.0 ** np.arange(8)
    if distribution == "proportional":
        weights[7] = 0  # zeros are silent
    driven = 6 * (20 * 0.1) ** 2 * weights.sum()
    rounding = (4.0 ** np.arange(8)).sum() / 12  # to whole codes
    assert noise.var() == pytest.approx(driven + rounding, rel=0.05)


def test_read_noise_depends_on_image_and_window_only(random_blocks: Blocks) -> None:
    blocks = random_blocks(8, shared=True)
    chip = device(7, read__sigma=0.1)
    u = inputs_of(1, 12, blocks)  # 4 images of 3 windows
    matrix = analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w"))
    whole, _ = analog_product(u, matrix, Place(5, 100, 3))
    for image in range(4):
        for window in range(3):
            place = Place(5 + image, 100 + window, 1)
            alone, _ = analog_product(u[image * 3 + window][None], matrix, place)
            assert np.array_equal(alone[0], whole[image * 3 + window])
    other, _ = analog_product(u, matrix, Place(6, 100, 3))
    assert not np.array_equal(other, whole)


def test_more_noise_is_never_better_on_average(dense_blocks: Blocks) -> None:
    rng = np.random.default_rng(4)
    blocks = dense_blocks(rng.integers(-128, 128, (90, 16)), 9)
    u = inputs_of(2, 40, blocks)
    exact = block_product(u, blocks, 15)[0].astype(float)
    for key in ("programming__sigma", "read__sigma"):
        errors = []
        for sigma in (0, 0.02, 0.05, 0.1, 0.2):
            gaps = [product(u, blocks, device(seed, **{key: sigma}))[0] - exact for seed in (0, 1)]
            errors.append(float(np.mean([(gap**2).mean() for gap in gaps])))
        assert errors[0] == 0
        assert errors == sorted(errors)


# ------------------------------------------------------------------ the converter


def test_offset_gain_and_inl_move_the_codes(dense_blocks: Blocks) -> None:
    blocks = dense_blocks(np.ones((9, 1), np.int64), 9)  # the sum of nine inputs
    u = np.tril(np.ones((9, 9), np.uint8))  # sums 1..9 in the lowest bit

    def codes(**overrides: object) -> list[int]:
        return product(u, blocks, device(**overrides))[0][:, 0].tolist()

    assert codes() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert codes(adc__gain=0.5) == [1, 1, 2, 2, 3, 3, 4, 4, 5]  # halves go up
    assert codes(adc__inl_lsb__3=0.6) == [1, 2, 2, 4, 5, 6, 7, 8, 9]
    assert codes(adc__inl_lsb__4=-0.6) == [1, 2, 4, 4, 5, 6, 7, 8, 9]
    # an offset of one code adds one in each of the eight columns: 1 + 2 + ... + 64 - 128 = -1
    chip = device(adc__offset_lsb=1.0)
    assert product(u, blocks, chip)[0][:, 0].tolist() == [total - 255 for total in range(1, 10)]


def test_saturated_conversions_are_counted_at_the_top_of_the_range(dense_blocks: Blocks) -> None:
    blocks = dense_blocks(np.ones((9, 1), np.int64), 9)
    u = np.full((2, 9), 255, np.uint8)
    narrow = load_target("ou9x8", {"adc.bits": "3"})
    out, saturated = product(u, blocks, Device(narrow))
    assert (out.tolist(), saturated) == ([[7 * 255]] * 2, 16)
    wide = device(0, narrow, adc__range="proof")
    out, saturated = product(u, blocks, wide)
    assert (out.tolist(), saturated) == ([[9 * 255]] * 2, 0)


def test_a_range_from_samples_needs_samples(random_blocks: Blocks) -> None:
    blocks = random_blocks(1)
    with pytest.raises(PimError, match="R732"):
        product(inputs_of(0, 2, blocks), blocks, device(adc__range="calibration"))
    chip = replace(device(adc__range="calibration"), full_scales={(0, "w"): 30.0})
    assert analog_matrix(blocks, cells_of(blocks, chip), chip, (0, "w")).step == 2.0
