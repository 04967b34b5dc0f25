"""The kernels of a crossbar: NumPy's definition, and the C kernel that must equal it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.diagnostics import PimError
from isa.matrix import BlockMatrix, fold
from runtime.crossbar import block_product, exact_pieces, linear_product
from runtime.kernel import Kernel, choose_kernel, describe_kernel, load_extension
from runtime.kernel_source import EXTENSIONS, FOLDER, source_files, source_hash
from runtime.paths import Crossbars, make_plan, pack_weights

Blocks = Callable[..., BlockMatrix]
EXTENSION = load_extension()
LEVELS = range(EXTENSION.best_level() + 1) if EXTENSION is not None else ()
needs_c = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")
numpy_kernel = Kernel(None, 0, "auto")


def extension() -> ModuleType:
    assert EXTENSION is not None
    return EXTENSION


def c_kernel(path: str = "auto") -> Kernel:
    return Kernel(extension(), extension().best_level(), path)


def by_definition(u: np.ndarray, matrix: BlockMatrix, adc_max: int) -> tuple[np.ndarray, int]:
    """The formula of isa.catalog.Mvm, one stored column and input bit at a time."""
    out = np.zeros((len(u), matrix.outputs), np.int64)
    cells = matrix.cell_values().astype(np.int64)
    slots, groups = matrix.slot_of_column(), matrix.group_of_column()
    saturated = 0
    for column in range(matrix.columns):
        selector = matrix.rows[groups[column]]
        used = selector >= 0
        total = np.zeros(len(u), np.int64)
        for bit in range(8):
            sums = ((u[:, selector[used]] >> bit) & 1).astype(np.int64) @ cells[column][used]
            saturated += int((sums > adc_max).sum())
            total += np.minimum(sums, adc_max) << bit
        for route in range(*matrix.routes.start[slots[column] : slots[column] + 2]):
            factor = int(matrix.routes.sign[route]) << int(matrix.routes.shift[route])
            out[:, matrix.routes.output[route]] += factor * total
    return out.astype(np.int32), saturated


def random_inputs(seed: int, windows: int, inputs: int) -> np.ndarray:
    """Bytes; every third draw is all ones, so that the largest sums occur."""
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 256, (windows, inputs)).astype(np.uint8)
    return np.full_like(u, 255) if seed % 3 == 0 else u


block_cases = given(
    seed=st.integers(0, 2**32 - 1),
    lines=st.sampled_from([2, 3, 5, 8, 9, 12, 13, 16, 17, 64, 100, 128]),
    cell_bits=st.sampled_from([1, 1, 2, 3]),
    shared=st.booleans(),
    adc_max=st.sampled_from([1, 3, 4, 6, 7, 15, 63, 255, 1023]),
    windows=st.sampled_from([0, 1, 7, 31, 32, 33, 129]),
)


@given(
    seed=st.integers(0, 2**32 - 1),
    lines=st.sampled_from([2, 9, 16, 40]),
    cell_bits=st.sampled_from([1, 2]),
    shared=st.booleans(),
    adc_max=st.sampled_from([1, 3, 7, 1023]),
)
def test_numpy_is_the_formula_of_the_catalog(
    random_blocks: Blocks, seed: int, lines: int, cell_bits: int, shared: bool, adc_max: int
) -> None:
    matrix = random_blocks(seed, lines=lines, cell_bits=cell_bits, shared=shared)
    u = random_inputs(seed, 5, matrix.inputs)
    expected, saturated = by_definition(u, matrix, adc_max)
    out, clipped = block_product(u, matrix, adc_max)
    assert np.array_equal(out, expected)
    assert clipped == saturated


@needs_c
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("method", ["table", "popcount", "excess", "sliced", "auto"])
@block_cases
def test_c_equals_numpy_with_the_clip(
    random_blocks: Blocks,
    level: int,
    method: str,
    seed: int,
    lines: int,
    cell_bits: int,
    shared: bool,
    adc_max: int,
    windows: int,
) -> None:
    matrix = random_blocks(seed, lines=lines, cell_bits=cell_bits, shared=shared)
    u = random_inputs(seed, windows, matrix.inputs)
    plan = make_plan(extension(), matrix, adc_max)
    if not extension().can(plan, method):
        beyond_a_byte = lines * ((1 << cell_bits) - 1) > 255 or adc_max > 254
        assert beyond_a_byte if method == "table" else lines > 12 or cell_bits > 1
        return
    out = np.full((windows, matrix.outputs), 12345, np.int32)
    if method in ("excess", "sliced", "auto"):
        out = (u.astype(np.int64) @ fold(matrix)).astype(np.int32)
    clipped = extension().serial(plan, u, out, method, level)
    expected, saturated = block_product(u, matrix, adc_max)
    assert np.array_equal(out, expected)
    assert clipped == saturated


@needs_c
@pytest.mark.parametrize("level", LEVELS)
@given(
    seed=st.integers(0, 2**32 - 1),
    windows=st.integers(0, 20),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 150),
)
def test_gemm_is_the_integer_product(
    level: int, seed: int, windows: int, inputs: int, outputs: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (inputs, outputs)).astype(np.int32)
    u = random_inputs(seed, windows, inputs)
    if seed % 3 == 0:
        weights[:] = -128  # with all inputs at 255: where 16-bit sums would saturate
    out = np.full((windows, outputs), 12345, np.int32)
    extension().gemm(u, pack_weights(weights), out, level)
    assert np.array_equal(out, u.astype(np.int64) @ weights)


@pytest.mark.parametrize("largest", [1, 127, 128, 255, 1 << 14, 1 << 20])
def test_blas_pieces_are_exact_at_the_largest_values(largest: int) -> None:
    weights = np.full((3000, 3), largest, np.int32)
    weights[:, 1] *= -1
    u = np.full((2, 3000), 255, np.uint8)
    out = np.empty((2, 3), np.int32)
    linear_product(u, list(exact_pieces(weights)), out)
    assert np.array_equal(out, (u.astype(np.int64) @ weights).astype(np.int32))


@given(seed=st.integers(0, 2**32 - 1), shared=st.booleans(), cell_bits=st.sampled_from([1, 2]))
def test_a_wide_adc_makes_the_product_linear(
    random_blocks: Blocks, seed: int, shared: bool, cell_bits: int
) -> None:
    matrix = random_blocks(seed, shared=shared, cell_bits=cell_bits)
    u = random_inputs(seed, 9, matrix.inputs)
    adc_max = int(matrix.largest_sums().max(initial=0))
    out, saturated = block_product(u, matrix, adc_max)
    assert np.array_equal(out, u.astype(np.int64) @ fold(matrix))
    assert saturated == 0


def test_one_input_at_a_time_reads_back_the_weights(dense_blocks: Blocks) -> None:
    """The guard against misplaced inputs: a one-hot input meets its own row and no other."""
    rng = np.random.default_rng(3)
    weights = rng.integers(-128, 128, (40, 11))
    matrix = dense_blocks(weights, 9)
    for kernel in [numpy_kernel] + ([c_kernel("popcount"), c_kernel("table")] if EXTENSION else []):
        crossbars = Crossbars(matrix, 1, kernel)  # one active line never exceeds 1
        out = np.empty((40, 11), np.int32)
        assert crossbars.multiply(np.eye(40, dtype=np.uint8) * 255, out) == 0
        assert np.array_equal(out, 255 * weights)


def test_a_clip_is_counted_and_changes_the_sum(dense_blocks: Blocks) -> None:
    matrix = dense_blocks(np.ones((9, 1), np.int64), 9)
    u = np.full((2, 9), 255, np.uint8)
    out, saturated = block_product(u, matrix, 7)
    assert out.tolist() == [[7 * 255]] * 2
    assert saturated == 2 * 8, "two windows, eight input bits, one column that holds ones"


def test_the_path_is_chosen_by_proof(dense_blocks: Blocks) -> None:
    matrix = dense_blocks(np.full((9, 2), -1, np.int64), 9)
    assert Crossbars(matrix, 9, numpy_kernel).path == "proved"
    assert Crossbars(matrix, 8, numpy_kernel).path == "bitserial"


@needs_c
def test_both_kernels_agree_on_every_path(random_blocks: Blocks) -> None:
    matrix = random_blocks(11, groups=20, shared=True)
    u = random_inputs(1, 50, matrix.inputs)
    for adc_max in (2, 9):
        expected = np.empty((50, matrix.outputs), np.int32)
        saturated = Crossbars(matrix, adc_max, numpy_kernel).multiply(u, expected)
        for path in ("auto", "excess", "sliced", "table", "popcount"):
            out = np.empty_like(expected)
            assert Crossbars(matrix, adc_max, c_kernel(path)).multiply(u, out) == saturated
            assert np.array_equal(out, expected)


def test_forcing_the_proved_path_without_a_proof_is_refused(dense_blocks: Blocks) -> None:
    matrix = dense_blocks(np.full((9, 2), -1, np.int64), 9)
    with pytest.raises(PimError, match=r"R720.*can sum up to 9 and the ADC saturates at 7"):
        Crossbars(matrix, 7, Kernel(None, 0, "proved"), "conv1")


@needs_c
@pytest.mark.parametrize("path", ["table", "sliced"])
def test_forcing_a_path_that_cannot_do_the_matrix_is_refused(
    random_blocks: Blocks, path: str
) -> None:
    matrix = random_blocks(1, lines=128, cell_bits=2)
    with pytest.raises(PimError, match=r"R720.*128 word lines of 2-bit cells"):
        Crossbars(matrix, 7, c_kernel(path), "conv1")


@pytest.mark.parametrize("variable", ["PIMC_KERNEL", "PIMC_PATH", "PIMC_LEVEL", "PIMC_STREAMS"])
def test_an_unknown_word_in_the_environment_is_refused(variable: str) -> None:
    with pytest.raises(PimError, match=f"R720.*{variable}=fast: expected one of auto, "):
        choose_kernel({variable: "fast"})


def test_numpy_can_be_forced() -> None:
    assert choose_kernel({"PIMC_KERNEL": "numpy"}).name == "numpy"


def test_a_missing_c_kernel_is_used_by_nobody_and_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "runtime._crossbar", None)  # makes the import fail
    assert choose_kernel({}).name == "numpy"
    assert "runtime._crossbar" in describe_kernel()["reason"]
    with pytest.raises(PimError, match=r"R720.*the C kernel is not built"):
        choose_kernel({"PIMC_KERNEL": "c"})


def test_a_kernel_from_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runtime._crossbar", ModuleType("runtime._crossbar"))
    with pytest.raises(PimError, match=r"R720.*built from sources before(.|\n)*pip install -e"):
        choose_kernel({})


@needs_c
@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_compiled_kernel_is_that_of_the_source(name: str) -> None:
    built = import_module(f"runtime.{name}").source_hash()
    assert built == source_hash(name), f"runtime/{name}*.[ch] changed: pip install -e ."
    assert describe_kernel()["stale"] is False


def test_every_c_file_belongs_to_one_extension() -> None:
    files = [file for name in EXTENSIONS for file in source_files(name)]
    assert sorted(files) == sorted(FOLDER.glob("*.[ch]"))


@needs_c
@pytest.mark.parametrize(
    ("u", "out", "message"),
    [
        (np.zeros((2, 5), np.uint8), np.zeros((2, 3), np.int32), r"u is \[2, 5\]"),
        (np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.int32), r"out is \[2, 4\]"),
        (np.zeros((2, 4), np.uint8), np.zeros((3, 3), np.int32), r"out is \[3, 3\]"),
        (np.zeros((2, 4), np.int8), np.zeros((2, 3), np.int32), "u: expected 2 axes of type 'B'"),
        (np.zeros((2, 4), np.uint8), np.zeros((2, 3), np.int64), "out: expected"),
        (np.zeros((4, 2), np.uint8).T, np.zeros((2, 3), np.int32), "contiguous"),
    ],
)
def test_the_kernel_refuses_arrays_that_do_not_fit(
    dense_blocks: Blocks, u: np.ndarray, out: np.ndarray, message: str
) -> None:
    plan = make_plan(extension(), dense_blocks(np.ones((4, 3), np.int64), 4), 1)
    with pytest.raises((ValueError, TypeError), match=message):
        extension().serial(plan, u, out, "table", 0)


@needs_c
def test_gemm_refuses_weights_of_another_size() -> None:
    weights = pack_weights(np.ones((8, 3), np.int32))
    with pytest.raises(ValueError, match=r"9 inputs and 3 outputs need \[1, 3, 16, 4\]"):
        extension().gemm(np.zeros((1, 9), np.uint8), weights, np.zeros((1, 3), np.int32), 0)


@needs_c
@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (3, 99, "rows: 99 is outside -1..4"),
        (4, 10**6, "group 0 has columns 1000000"),
        (7, 10**9, "list_columns: 1000000000 is outside 0..16777216"),
        (6, 7, "list_groups: must rise"),
        (8, 7, "list_outputs: must rise"),
        (9, 3, "output: 3 is outside 0..3"),
        (10, -1, "entry: must rise"),
        (11, 24, "slot: 24 is outside 0..24"),
    ],
)
def test_a_plan_refuses_what_would_leave_its_arrays(
    dense_blocks: Blocks, position: int, value: int, message: str
) -> None:
    """Every index that the loops follow is checked once, when the plan is made."""
    matrix = dense_blocks(np.ones((4, 3), np.int64), 4)

    class Spy:
        @staticmethod
        def plan(*args: object) -> list[object]:
            return list(args)

    args = make_plan(Spy, matrix, 1)  # type: ignore[arg-type]
    assert isinstance(args, list)
    args[position] = args[position].copy()
    args[position].flat[0] = value
    with pytest.raises(ValueError, match=message):
        extension().plan(*args)
