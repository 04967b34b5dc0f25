"""Folders with phases: what is saved is loaded, and phases that do not match are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.programs import two_cores

from isa.assembly import first_difference
from isa.container import load, load_phases, save
from isa.diagnostics import PimError
from isa.folder import is_container
from isa.phases import Phases
from isa.program import Program
from isa.target import load_target

TINY = load_target("tiny")


def second() -> Program:
    """The hand-written program, taking what itself stores: its output is its input."""
    program = first()
    names = {t.role: t.name for t in program.tensors if t.role != "inner"}
    stored = next(t for t in program.tensors if t.role == "output")
    swap = {names["input"]: names["output"], names["output"]: "other"}
    tensors = tuple(
        replace(stored, role="input")
        if t.role == "input"
        else replace(t, name=swap.get(t.name, t.name))
        for t in program.tensors
    )
    return replace(program, tensors=tensors, cores=(), channels=())


def first() -> Program:
    return replace(two_cores(), target_sha256=TINY.sha256)


def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "net.pim"
    save(folder, Phases((first(), second()), ("other",)), TINY, {"reference.onnx": b"model"})
    return folder


def test_phases_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert is_container(folder)
    held = load_phases(folder)
    assert held.whole is held.phases
    assert held.phases.outputs == ("other",)
    for ours, theirs in zip(held.phases.programs, (first(), second()), strict=True):
        assert first_difference(ours, theirs) is None
    assert (folder / "reference.onnx").read_bytes() == b"model"
    assert first_difference(load(folder / "phase-0").program, first()) is None


def test_a_single_program_is_a_sequence_of_one(tmp_path: Path) -> None:
    save(tmp_path / "a.pim", first(), TINY)
    held = load_phases(tmp_path / "a.pim")
    assert isinstance(held.whole, Program)
    assert len(held.phases.programs) == len(held.sources) == 1
    assert held.program is held.whole


def test_phases_and_a_program_replace_each_other(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    save(folder, first(), TINY)
    assert not (folder / "phase-0").exists()
    assert saved(tmp_path) == folder
    assert not (folder / "program.pim").exists()


def test_the_interface_has_each_tensor_once_and_the_models_roles() -> None:
    found = Phases((first(), second()), ("other",)).interface
    roles = {t.name: t.role for t in found.tensors}
    assert len(roles) == len(found.tensors)
    assert [name for name, role in roles.items() if role == "output"] == ["other"]
    (given,) = [t.name for t in first().tensors if t.role == "input"]
    assert [name for name, role in roles.items() if role == "input"] == [given]


def test_a_command_for_one_program_refuses_phases(tmp_path: Path) -> None:
    with pytest.raises(PimError, match=r"(?s)C510.*phase-0"):
        load(saved(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "7", '{"phases": 0, "outputs": ["a"]}', '{"phases": true, "outputs": ["a"]}',
     '{"phases": 2, "outputs": []}', '{"phases": 2, "outputs": [1]}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = saved(tmp_path)
    (folder / "phases.json").write_text(text)
    with pytest.raises(PimError, match="C511"):
        load_phases(folder)


def test_a_missing_phase_and_an_unknown_output_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "phases.json").write_text(json.dumps({"phases": 3, "outputs": ["other"]}))
    with pytest.raises(PimError, match=r"C501.*phase-2"):
        load_phases(folder)
    (folder / "phases.json").write_text(json.dumps({"phases": 2, "outputs": ["nobody"]}))
    with pytest.raises(PimError, match=r"C511.*nobody"):
        load_phases(folder)


def test_phases_that_do_not_match_are_refused() -> None:
    given = second()
    wrong = tuple(replace(t, shape=(1, 1, 1)) if t.role == "input" else t for t in given.tensors)
    with pytest.raises(PimError, match="another form"):
        Phases((first(), replace(given, tensors=wrong)), ("other",)).check()
    with pytest.raises(PimError, match="another target"):
        Phases((first(), replace(given, target_sha256="0")), ("other",)).check()
