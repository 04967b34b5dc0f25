"""Folders of programs for several input shapes: arrays stored once, damage refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.programs import two_cores

from isa import container
from isa.assembly import first_difference
from isa.diagnostics import PimError
from isa.folder import is_container, shape_folder
from isa.npz import MEMBER_DTYPES
from isa.phases import Phases
from isa.program import Program
from isa.shape_container import common_arrays, is_same, load_shapes, save_shapes, shape_of, without
from isa.shapes import InputShape, Manifest, Shape, read_manifest
from isa.target import load_target

TINY = load_target("tiny")
KEYS = st.sampled_from("abc")
ARRAYS = st.dictionaries(KEYS, hnp.arrays(st.sampled_from(MEMBER_DTYPES[:3]), st.integers(0, 2)))


def program(size: int = 1) -> Program:
    """The hand-written program, its arrays in the data file, inputs said to be ``size`` long."""
    made = two_cores()
    return replace(
        made,
        target_sha256=TINY.sha256,
        tensors=tuple(
            replace(t, onnx_shape=(size, *t.onnx_shape)) if t.role == "input" else t
            for t in made.tensors
        ),
        tables=tuple(replace(table, inline=False) for table in made.tables),
        cores=tuple(
            replace(core, matrices=tuple(replace(m, inline=False) for m in core.matrices))
            for core in made.cores
        ),
    )


def own_table(made: Program) -> Program:
    """The program with another first table: the same name, other values."""
    first, *others = made.tables
    return replace(made, tables=(replace(first, values=first.values + 1), *others))


def saved(tmp_path: Path, *programs: Program) -> Path:
    folder = tmp_path / "net.pim"
    save_shapes(folder, programs or (program(), program(2)), TINY, {"float.onnx": b"model"})
    return folder


def test_programs_are_loaded_as_they_were_saved_and_share_arrays(tmp_path: Path) -> None:
    folder = saved(tmp_path, program(), own_table(program(2)))
    assert is_container(folder)
    assert (folder / "float.onnx").read_bytes() == b"model"
    held = load_shapes(folder)
    for loaded, made in zip(held, (program(), own_table(program(2))), strict=True):
        assert first_difference(loaded.program, made) is None
        assert shape_of(loaded.whole) == shape_of(made)
    ours, theirs = ([m.blocks for m in loaded.program.matrices()] for loaded in held)
    assert all(a.cells is b.cells for a, b in zip(ours, theirs, strict=True))
    for number in (0, 1):
        alone = container.load(folder / shape_folder(number)).program
        assert first_difference(alone, held[number].program) is None
        own = folder / shape_folder(number) / "arrays.npz"
        assert own.stat().st_size < (folder / "arrays.npz").stat().st_size


def test_phases_of_a_shape_share_arrays_too(tmp_path: Path) -> None:
    parts = tuple(Phases((program(size),), (_output(),)) for size in (1, 2))
    folder = tmp_path / "net.pim"
    save_shapes(folder, parts, TINY)
    assert not list(folder.glob("shape-*/phase-*/arrays.npz"))
    assert len(load_shapes(folder)) == 2
    container.load(folder / "shape-1" / "phase-0")


def _output() -> str:
    return next(t.name for t in program().tensors if t.role == "output")


def test_several_shapes_and_a_program_replace_each_other(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    container.save(folder, program(), TINY)
    assert not (folder / "shape-0").exists()
    assert saved(tmp_path) == folder
    assert not (folder / "program.pim").exists()


def test_a_command_for_one_program_refuses_several_and_names_them(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for read in (container.load, container.load_phases):
        with pytest.raises(PimError) as caught:
            read(folder)
        (finding,) = caught.value.diagnostics
        assert finding.code == "C514"
        for made in (program(), program(2)):
            assert f"--input-shape {shape_of(made)}" in str(finding.hint)


def test_equal_shapes_are_no_several_shapes(tmp_path: Path) -> None:
    for programs in ((program(),), (program(), program())):
        with pytest.raises(ValueError, match="differ"):
            saved(tmp_path, *programs)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PimError, match="C509"):
        saved(tmp_path / "missing")
    with pytest.raises(ValueError, match="of the program folder itself"):
        save_shapes(tmp_path / "n.pim", (program(), program(2)), TINY, {"shape-0/x": b""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "7", "[" * 100_000, '{"shapes": [{}], "arrays_sha256": ""}',
     '{"shapes": [{}, {}], "arrays_sha256": 7}', '{"shapes": [[], []], "arrays_sha256": ""}',
     '{"shapes": [{"x": {"sample": [0], "batched": true}}, {}], "arrays_sha256": ""}',
     '{"shapes": [{"x": {"sample": [true], "batched": true}}, {}], "arrays_sha256": ""}',
     '{"shapes": [{"x": {"sample": [3], "batched": 1}}, {}], "arrays_sha256": ""}'],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = saved(tmp_path)
    (folder / "shapes.json").write_text(text)
    for read in (load_shapes, container.load):
        with pytest.raises(PimError, match="C513"):
            read(folder)
    with pytest.raises(PimError, match="C513"):
        container.load(folder / "shape-0")


def test_shared_arrays_of_another_hash_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    manifest = json.loads((folder / "shapes.json").read_text())
    (folder / "shapes.json").write_text(json.dumps(manifest | {"arrays_sha256": "0" * 64}))
    for path, read in ((folder, load_shapes), (folder / "shape-0", container.load)):
        with pytest.raises(PimError, match=r"C513.*another sha256"):
            read(path)


def test_a_program_for_another_shape_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    manifest = json.loads((folder / "shapes.json").read_text())
    manifest["shapes"].reverse()
    (folder / "shapes.json").write_text(json.dumps(manifest))
    with pytest.raises(PimError, match=r"C513.*not for the shape"):
        load_shapes(folder)


def test_a_shape_without_the_shared_arrays_says_that_they_are_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "shape-0").rename(tmp_path / "shape-0")
    with pytest.raises(PimError, match="C505"):
        container.load(tmp_path / "shape-0")


@given(st.lists(st.lists(ARRAYS, min_size=1, max_size=2), min_size=2, max_size=3))
def test_shared_and_own_arrays_together_are_the_arrays(
    arrays: list[list[dict[str, np.ndarray]]],
) -> None:
    shared = common_arrays(arrays)
    for phases in arrays:
        for each in phases:
            again = {**shared, **without(each, shared)}
            assert all(is_same(again[key], array) for key, array in each.items())
    for key, array in shared.items():
        having = [any(key in p and is_same(p[key], array) for p in phases) for phases in arrays]
        assert sum(having) > 1


SHAPES = st.builds(
    Shape,
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.builds(InputShape, st.lists(st.integers(1, 9), max_size=4).map(tuple), st.booleans()),
        max_size=3,
    ),
)


@given(st.lists(SHAPES, min_size=2, max_size=3), st.text(max_size=5))
def test_a_manifest_is_read_as_it_was_written(shapes: list[Shape], digest: str) -> None:
    made = Manifest(tuple(shapes), digest)
    assert read_manifest(made.as_json(), "shapes.json") == made


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["shapes", "arrays_sha256", "sample", "batched", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"shapes": JSON, "arrays_sha256": JSON}) | JSON)
def test_any_document_is_a_manifest_or_refused(found: object) -> None:
    codes: list[str] = []
    try:
        shapes = read_manifest(json.dumps(found), "shapes.json").shapes
    except PimError as error:
        shapes, codes = (), [finding.code for finding in error.diagnostics]
    assert len(shapes) > 1 or codes == ["C513"]


def test_a_shape_answers_wishes_and_holds_samples() -> None:
    shape = Shape({"x": InputShape((3, 8), True), "n": InputShape((2,), False)})
    assert str(shape) == "x=1,3,8,n=2"
    assert shape.answers({"x": (1, 3, 8)})
    assert shape.answers({"x": (16, 3, 8), "n": (2,)})
    assert not shape.answers({"x": (3, 8)})
    assert not shape.answers({"n": (3,)})
    assert not shape.answers({"y": (1, 3, 8)})
    assert shape.holds({"x": (5, 3, 8), "n": (5, 2), "labels": (5,)})
    assert not shape.holds({"x": (5, 3, 8)})
    assert not shape.holds({"x": (5, 3, 9), "n": (5, 2)})
    assert not shape.holds({"x": (), "n": (5, 2)})
