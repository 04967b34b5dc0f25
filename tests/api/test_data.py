"""Data files: read without trust, and every misfit with the model said at once."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.diagnostics import PimError
from isa.program import Program, Tensor
from pimc.data import (
    check_feeds,
    random_feeds,
    read_data,
    to_machine,
    to_onnx,
    to_real,
    write_data,
)

FLOATS = Tensor("input", "x", "s8", (2, 3, 1), "x", (1, 2, 3), (1, 2, 0), 0.5, -3)
INTEGERS = Tensor("input", "n", "u8", (1, 1, 4), "n", (4,), (0,))
PROGRAM = Program("tiny", "", (FLOATS, INTEGERS))


def feeds(samples: int = 2) -> dict[str, np.ndarray]:
    return {
        "x": np.zeros((samples, 1, 2, 3), np.float32),
        "n": np.zeros((samples, 4), np.uint8),
    }


def messages(error: pytest.ExceptionInfo[PimError]) -> list[str]:
    return [diagnostic.message for diagnostic in error.value.diagnostics]


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def member(path: Path, name: str, data: bytes, *, twice: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)
        if twice:
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, data)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_saves_is_read(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.random((3, 4, 5), np.float32),
        "b/c": np.asfortranarray(rng.integers(0, 9, (3, 2))),
        "s": np.float64(7),
    }
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **arrays)
    found = read_data(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("order", ["C", "F"])
def test_only_the_first_samples_are_read_when_asked(tmp_path: Path, order: str) -> None:
    whole = np.asarray(np.arange(30).reshape(10, 3), order=order)  # type: ignore[call-overload]
    found = read_data(npz(tmp_path / "x.npz", a=whole), samples=4)
    np.testing.assert_array_equal(found["a"], whole[:4])


@given(cut=st.floats(0, 1), flip=st.integers(0, 255), at=st.floats(0, 1))
def test_a_damaged_file_is_refused_or_read_but_never_a_bug(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flip: int, at: float
) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(40.0), b=np.arange(7, dtype=np.int16))
    data = bytearray(stream.getvalue())
    data[int(at * (len(data) - 1))] ^= flip
    file = tmp_path_factory.mktemp("fuzz") / "x.npz"
    file.write_bytes(data[: int(cut * len(data)) or 1])
    try:
        read_data(file)
    except PimError as error:
        assert {diagnostic.code for diagnostic in error.diagnostics} == {"R702"}  # noqa: PT017


@pytest.mark.parametrize("shape", [(10**12, 2), (2**62, 2**62), (-2, -2), (3, 2)])
def test_an_array_that_claims_another_size_than_it_has_is_not_allocated(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    file = member(tmp_path / "x.npz", "a.npy", stream.getvalue() + bytes(16))
    with pytest.raises(PimError, match=r"array `a` .* its header says"):
        read_data(file)


@pytest.mark.parametrize("header", [b"{'descr': '<f4', (", b"{}", b"0", b"[" * 5000, b"\xff"])
def test_an_array_with_a_broken_header_is_refused(tmp_path: Path, header: bytes) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(PimError, match="array `a`"):
        read_data(member(tmp_path / "x.npz", "a.npy", data))


def test_all_bad_arrays_of_a_file_are_named(tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", a=np.array([{}]), b=np.array(["text"]), c=np.zeros(3))
    with pytest.raises(PimError) as caught:
        read_data(file)
    assert [message.split("`")[1] for message in messages(caught)] == ["a", "b"]


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    file = member(tmp_path / "x.npz", "a.npy", npy(np.zeros(3)), twice=True)
    with pytest.raises(PimError, match="stands in the file twice"):
        read_data(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.npz"
    file.write_bytes(content)
    with pytest.raises(PimError, match=r"error\[R702\]"):
        read_data(file)


def test_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PimError, match="holds no arrays"):
        read_data(npz(tmp_path / "x.npz"))


def test_everything_that_does_not_fit_is_said_at_once() -> None:
    given = {
        "x": np.full((2, 1, 2, 3), np.nan, np.float32),
        "n": np.zeros((3, 5), np.uint8),
        "extra": np.zeros(2),
        "labels": np.zeros(2, np.float32),
    }
    with pytest.raises(PimError) as caught:
        check_feeds(PROGRAM, given)
    assert messages(caught) == [
        "the model has no input `extra`",
        "input `x` holds NaN or infinity",
        "input `n` has shape [3, 5]",
        "`labels` have type float32",
        "the inputs differ in their number of samples: `x` 2, `n` 3",
    ]


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("x", np.zeros((2, 1, 2, 3), np.int32), "input `x` has type int32"),
        ("x", np.float32(1), r"input `x` has shape \[\]"),
        ("x", np.zeros((0, 1, 2, 3), np.float32), "input `x` has no samples"),
        ("n", np.full((2, 4), 256), r"input `n` holds 256\.\.256"),
        ("n", np.full((2, 4), -1), r"input `n` holds -1\.\.-1"),
        ("n", np.zeros((2, 4), np.float32), "input `n` has type float32"),
        ("labels", np.zeros(3, np.int64), "`labels` are 3 for 2 samples"),
        ("labels", np.zeros((2, 2), np.int64), r"`labels` have shape \[2, 2\]"),
    ],
)
def test_one_array_that_does_not_fit_is_refused(
    name: str, array: np.ndarray, expected: str
) -> None:
    with pytest.raises(PimError, match=expected):
        check_feeds(PROGRAM, feeds() | {name: array})


def test_fitting_samples_are_counted() -> None:
    labels = np.zeros((5, 1), np.int32)
    assert check_feeds(PROGRAM, feeds(5) | {"labels": labels}) == 5


@given(st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6))
def test_inputs_are_quantized_as_quantize_linear_does(values: list[float]) -> None:
    array = np.array(values, np.float32).reshape(1, 1, 2, 3)
    steps = np.rint(array / np.float32(0.5)) - 3
    wanted = np.clip(steps, -128, 127).astype(np.int8)
    machine = to_machine(FLOATS, array)
    assert machine.shape == (1, 2, 3, 1)
    np.testing.assert_array_equal(to_onnx(FLOATS, machine), wanted)


def test_half_way_values_round_to_even() -> None:
    array = np.array([0.25, 0.75, 1.25, -0.25, -0.75, -1.25], np.float32).reshape(1, 1, 2, 3)
    found = to_onnx(FLOATS, to_machine(FLOATS, array)).ravel() + 3
    np.testing.assert_array_equal(found, [0, 2, 2, 0, -2, -2])


def test_random_samples_reach_every_integer_and_come_again_with_their_seed() -> None:
    drawn = random_feeds(PROGRAM, 400, seed=3)
    assert check_feeds(PROGRAM, drawn) == 400
    integers = to_machine(FLOATS, drawn["x"])
    assert set(np.unique(integers)) == set(range(-128, 128))
    np.testing.assert_array_equal(to_real(FLOATS, to_onnx(FLOATS, integers)), drawn["x"])
    np.testing.assert_array_equal(random_feeds(PROGRAM, 400, seed=3)["n"], drawn["n"])
    assert (random_feeds(PROGRAM, 400, seed=4)["n"] != drawn["n"]).any()


def test_outputs_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_data(tmp_path / "y.npz", {"y": np.arange(3)})
    np.testing.assert_array_equal(read_data(tmp_path / "y.npz")["y"], np.arange(3))
    folder = tmp_path / "gone" / "y.npz"
    with pytest.raises(PimError, match="cannot write"):
        write_data(folder, {"y": np.arange(3)})
    assert sorted(tmp_path.iterdir()) == [tmp_path / "y.npz"]
