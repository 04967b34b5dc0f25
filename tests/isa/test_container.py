"""Program folders: what is saved is loaded, nothing half is left, and nothing hostile is read."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.programs import AWKWARD, programs, two_cores

from isa.assembly import data_arrays, first_difference
from isa.codes import CONTAINER
from isa.container import load, save
from isa.diagnostics import Diagnostic, Findings, PimError
from isa.folder import is_container
from isa.npz import MEMBER_DTYPES, key_of_member, member_name, read_npz, write_npz
from isa.program import Program, Table
from isa.target import load_target

TINY = load_target("tiny")


def bulk_program() -> Program:
    """The hand-written program with its arrays in the data file, made for `TINY`."""
    program = two_cores()
    return replace(
        program,
        target_sha256=TINY.sha256,
        tables=tuple(replace(table, inline=False) for table in program.tables),
        cores=tuple(
            replace(core, matrices=tuple(replace(m, inline=False) for m in core.matrices))
            for core in program.cores
        ),
    )


def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "net.pim"
    save(folder, bulk_program(), TINY, {"reference.onnx": b"model", "notes/part0.onnx": b"part"})
    return folder


def refusals(folder: Path) -> list[Diagnostic]:
    with pytest.raises(PimError) as caught:
        load(folder)
    return list(caught.value.diagnostics)


# ------------------------------------------------------------------ round trip


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    loaded = load(saved(tmp_path))
    assert first_difference(loaded.program, bulk_program()) is None
    assert loaded.target == TINY
    assert loaded.source.declaration("core", None, "1") is not None


def test_a_folder_holds_its_files_and_no_others(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == [
        "arrays.npz",
        "notes/part0.onnx",
        "program.pim",
        "reference.onnx",
        "target.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["net.pim"]
    assert (folder / "reference.onnx").read_bytes() == b"model"


def test_an_inline_program_needs_no_data_file(tmp_path: Path) -> None:
    program = replace(two_cores(), target_sha256=TINY.sha256)
    save(tmp_path / "a.pim", program, TINY)
    assert not (tmp_path / "a.pim" / "arrays.npz").exists()
    assert first_difference(load(tmp_path / "a.pim").program, program) is None


def test_equal_programs_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name, bulk_program(), TINY)
    for file in ("program.pim", "arrays.npz", "target.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_numpy_reads_the_data_file(tmp_path: Path) -> None:
    with np.load(saved(tmp_path) / "arrays.npz", allow_pickle=False) as arrays:
        assert arrays["mean.scale"].tolist() == bulk_program().tables[3].values.tolist()


def test_a_file_may_be_copied_in(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"contents")
    save(tmp_path / "a.pim", bulk_program(), TINY, {"report.json": tmp_path / "source"})
    assert (tmp_path / "a.pim" / "report.json").read_bytes() == b"contents"


@given(programs())
def test_any_program_survives_the_data_file(
    tmp_path_factory: pytest.TempPathFactory, program: Program
) -> None:
    file = tmp_path_factory.mktemp("npz") / "arrays.npz"
    arrays = data_arrays(program)
    write_npz(file, arrays)
    findings = Findings()
    again = read_npz(file, findings)
    assert not findings
    assert again.keys() == arrays.keys()
    for key, array in arrays.items():
        assert again[key].dtype == array.dtype
        assert again[key].shape == array.shape
        assert again[key].tobytes() == array.tobytes()


@given(st.one_of(st.text(st.characters()), st.sampled_from(AWKWARD)))
def test_member_names_are_no_paths(key: str) -> None:
    name = member_name(key)
    assert key_of_member(name) == key
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| ')


def test_saving_does_not_copy_large_arrays(tmp_path: Path) -> None:
    values = np.zeros(64 << 20, np.uint8)
    program = Program(TINY.name, TINY.sha256, tables=(Table("big", "u8", values),))
    tracemalloc.start()
    save(tmp_path / "big.pim", program, TINY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 2


# ------------------------------------------------------------------ saving


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    save(folder, bulk_program(), TINY)
    assert not (folder / "reference.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["net.pim"]


@pytest.mark.parametrize("what", ["file", "empty folder", "folder", "link"])
def test_nothing_but_a_program_folder_is_overwritten(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
    if what == "folder":
        (path / "thesis.tex").write_text("precious")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(PimError, match="C508"):
        save(path, bulk_program(), TINY)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_a_failure_in_the_middle_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isa.container.write_npz", full_disk)
    with pytest.raises(PimError, match=r"C509.*No space left"):
        save(folder, bulk_program(), TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pim"]
    assert first_difference(load(folder).program, bulk_program()) is None


def test_a_rename_that_fails_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path)
    rename = Path.rename

    def fails_for_drafts(self: Path, target: Path) -> Path:
        if self.name.startswith(".pimc-") and not self.name.endswith(".old"):
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_drafts)
    with pytest.raises(PimError, match="C509"):
        save(folder, bulk_program(), TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pim"]
    assert load(folder).target == TINY


def test_a_missing_parent_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PimError, match="C509"):
        save(tmp_path / "no" / "such" / "folder.pim", bulk_program(), TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_saved_with_its_own_target_only(tmp_path: Path) -> None:
    with pytest.raises(PimError, match="C504"):
        save(tmp_path / "a.pim", bulk_program(), TINY.with_cores(4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "host/../../x", "", "program.pim", "a\\b"])
def test_extra_files_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="program folder"):
        save(tmp_path / "a.pim", bulk_program(), TINY, {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_two_arrays_of_one_name_are_not_saved(tmp_path: Path) -> None:
    program = bulk_program()
    clash = replace(program.tables[0], name="conv1.rows")
    with pytest.raises(PimError, match="C507"):
        save(tmp_path / "a.pim", replace(program, tables=(*program.tables, clash)), TINY)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ loading what is not right


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert not is_container(tmp_path)
    for path in (tmp_path, tmp_path / "missing"):
        (finding,) = refusals(path)
        assert finding.code == "C501"


def edit_text(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "program.pim"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, contents: bytes) -> Callable[[Path], None]:
    return lambda folder: _write(folder / name, contents)


def _write(file: Path, contents: bytes) -> None:
    file.write_bytes(contents)


def link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


def pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


WRONG_FOLDERS = [
    ("C502", remove("target.json"), "cannot be read"),
    ("C502", write("program.pim", b".pim 1\n\xff"), "byte 7 is wrong"),
    ("C502", link("target.json"), "is no plain file"),
    ("C502", link("arrays.npz"), "is no plain file"),
    ("C502", pipe("arrays.npz"), "is no plain file"),
    ("C504", edit_text(TINY.sha256, "0" * 64), "the program is for target"),
    ("C504", edit_text(f" sha256={TINY.sha256}", ""), "sha256 none"),
    ("C504", edit_text(".target tiny", ".target huge"), "not for `tiny`"),
    ("C505", remove("arrays.npz"), '"conv1.bias" is not in the data file'),
    ("C505", edit_text(".table relu ", ".table rely "), '"rely" is not in the data file'),
    ("C506", edit_text("s8[256]", "s8[16, 16]"), "should be int8 [16, 16], found int8 [256]"),
    ("C506", edit_text("s32[2]", "f32[2]"), "should be float32 [2], found int32 [2]"),
    ("C503", write("arrays.npz", b""), "cannot be read"),
    ("C503", write("arrays.npz", b"PK\x03\x04" + b"\0" * 99), "cannot be read"),
    ("T103", write("target.json", b"{"), "not valid JSON"),
    ("T105", write("target.json", b"{}"), "is missing"),
    ("E302", edit_text("mvm ", "mwm "), "did you mean `mvm`?"),
]


@pytest.mark.parametrize(("code", "change", "says"), WRONG_FOLDERS)
def test_a_wrong_folder_is_refused(
    tmp_path: Path, code: str, change: Callable[[Path], None], says: str
) -> None:
    folder = saved(tmp_path)
    change(folder)
    if code == "C505" and not (folder / "arrays.npz").exists():
        says = "arrays.npz" if says == "" else says
    findings = refusals(folder)
    assert any(f.code == code and says in f.render() for f in findings), findings


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for change in (remove("target.json"), edit_text("mvm ", "mwm "), edit_text("s8[256]", "u8[1]")):
        change(folder)
    assert sorted(f.code for f in refusals(folder)) == ["C502", "C506", "E302"]


# ------------------------------------------------------------------ hostile data files


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0), pickles: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version, allow_pickle=pickles)
    return stream.getvalue()


def lying_npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as file:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, contents in members:
            file.writestr(zipfile.ZipInfo(name), contents, compression)
    return stream.getvalue()


def overlapping() -> bytes:
    """A small zip whose directory lists the same bytes a thousand times under other names."""
    data = bytearray(archive(("a.npy", npy(np.zeros(3000, np.uint8)))))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = bytes(data[start:end])
    body = b"".join(entry.replace(b"a.npy", f"{n:05d}"[-1:].encode() + b".npy") for n in range(10))
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 10, 10, len(body))
    return bytes(data[:start]) + body + bytes(tail)


def corrupted() -> bytes:
    data = bytearray(archive(("a.npy", npy(np.arange(1000, dtype=np.int32)))))
    data[600] ^= 1
    return bytes(data)


GOOD = npy(np.zeros(3, np.int8))
HOSTILE = {
    "a path upwards": archive(("../a.npy", GOOD)),
    "an absolute path": archive(("/tmp/a.npy", GOOD)),
    "a folder": archive(("a/b.npy", GOOD)),
    "no array": archive(("a.txt", GOOD)),
    "a name twice": archive(("a.npy", GOOD), ("a.npy", GOOD)),
    "compressed": archive(("a.npy", npy(np.zeros(9999))), compression=zipfile.ZIP_DEFLATED),
    "a pickle": archive(("a.npy", npy(np.array([{}], object), pickles=True))),
    "a wrong type": archive(("a.npy", npy(np.zeros(3, np.float64)))),
    "big endian": archive(("a.npy", npy(np.zeros(3, ">i4")))),
    "a structure": archive(("a.npy", npy(np.zeros(3, "i1,i1")), )),
    "column order": archive(("a.npy", npy(np.zeros((3, 4), np.int8, order="F")))),
    "another version": archive(("a.npy", npy(np.zeros(3, np.int8), (2, 0)))),
    "a huge shape": archive(
        ("a.npy", lying_npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1 << 50,)}"))
    ),
    "a large claim": archive(
        ("a.npy", lying_npy("{'descr': '|i1', 'fortran_order': False, 'shape': (10**15,), }"))
    ),
    "a larger claim": archive(
        ("a.npy", lying_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (9999999999,), }"))
    ),
    "a negative shape": archive(
        ("a.npy", lying_npy("{'descr': '|i1', 'fortran_order': False, 'shape': (-1, -3), }", b"ab"))
    ),
    "code in the header": archive(("a.npy", lying_npy("__import__('os').getpid()"))),
    "a header that nests": archive(("a.npy", lying_npy("(" * 100))),
    "too little data": archive(
        ("a.npy", lying_npy("{'descr': '|i1', 'fortran_order': False, 'shape': (5,), }", b"abc"))
    ),
    "too much data": archive(
        ("a.npy", lying_npy("{'descr': '|i1', 'fortran_order': False, 'shape': (2,), }", b"abc"))
    ),
    "no array at all": archive(("a.npy", b"hello")),
    "shared bytes": overlapping(),
    "a wrong checksum": corrupted(),
    "half a file": archive(("a.npy", npy(np.zeros(5000, np.int8))))[:2500],
}  # fmt: skip


@pytest.mark.parametrize("harm", HOSTILE)
def test_a_hostile_data_file_is_refused(tmp_path: Path, harm: str) -> None:
    folder = saved(tmp_path)
    (folder / "arrays.npz").write_bytes(HOSTILE[harm])
    tracemalloc.start()
    findings = refusals(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {f.code for f in findings} == {"C503"}, findings
    assert peak < 32 << 20, "nothing of the claimed size is allocated"


def test_members_that_share_their_bytes_are_seen_before_any_is_read(tmp_path: Path) -> None:
    file = tmp_path / "arrays.npz"
    file.write_bytes(HOSTILE["shared bytes"])
    findings = Findings()
    assert read_npz(file, findings) == {}
    (finding,) = findings
    assert "the members claim 31280 bytes" in finding.message


@given(st.binary(max_size=300), st.integers(0, 5000), st.integers(0, 50))
def test_a_damaged_data_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, cut: int
) -> None:
    file = tmp_path_factory.mktemp("npz") / "arrays.npz"
    write_npz(file, data_arrays(bulk_program()))
    data = file.read_bytes()
    file.write_bytes(data[:at] + noise + data[at + cut :])
    findings = Findings()
    arrays = read_npz(file, findings)
    assert {f.code for f in findings} <= {"C503"}
    assert bool(arrays) != bool(findings)


@given(hnp.arrays(st.sampled_from(MEMBER_DTYPES), hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_of_every_shape_survive(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray
) -> None:
    file = tmp_path_factory.mktemp("npz") / "arrays.npz"
    write_npz(file, {"a": array, "b": array.T})
    findings = Findings()
    again = read_npz(file, findings)
    assert not findings
    assert again["a"].tobytes() == array.tobytes()
    assert again["b"].shape == array.T.shape
    assert np.array_equal(again["b"], array.T, equal_nan=array.dtype.kind == "f")


def test_an_array_of_a_foreign_type_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64"):
        write_npz(tmp_path / "a.npz", {"a": np.zeros(3)})


def test_every_code_of_the_container_is_provoked() -> None:
    provoked = {code for code, _, _ in WRONG_FOLDERS}
    assert set(CONTAINER) - provoked == {
        "C501",
        "C507",
        "C508",
        "C509",
        "C510",
        "C511",
        "C512",
        "C513",
        "C514",
    }  # each has its own test
