"""The ISA reference is up to date, complete, and its examples are programs that hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from isa.assembly import parse_program, print_program
from isa.catalog import CATALOG
from isa.codes import CONTAINER, SYNTAX, VERIFIER
from isa.directive_fields import USAGE
from isa.instruction import Instruction, operand_fields
from isa.matrix import fold
from isa.reference import KINDS, UNITS, main, reference, usage
from isa.reference_text import EXAMPLE, MATRICES
from isa.target import load_target
from isa.verify import verify

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "isa.md"


def test_the_reference_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == reference(), "run `python -m isa.reference`"


@pytest.mark.parametrize("cls", CATALOG.values(), ids=CATALOG)
def test_every_instruction_is_in_the_reference(cls: type[Instruction]) -> None:
    text = reference()
    assert text.count(f"#### `{cls.mnemonic}`\n\n    {usage(cls)}\n") == 1
    section = text.partition(f"#### `{cls.mnemonic}`")[2].partition("####")[0]
    for field in operand_fields(cls):
        assert f"| {field.name} | {KINDS[field.kind]} |" in section
    assert cls.unit in UNITS


def test_every_directive_and_code_is_in_the_reference() -> None:
    text = reference()
    for name in USAGE:
        assert f"| `{name}` |" in text
    for code in (*SYNTAX, *VERIFIER, *CONTAINER):
        assert f"| {code} |" in text


def test_the_example_is_a_sound_program_in_its_printed_form() -> None:
    program = parse_program(EXAMPLE.strip())
    assert verify(program, load_target("tiny")) == []
    assert print_program(program).strip() == EXAMPLE.strip()


def test_the_matrix_in_the_text_means_what_its_comments_say() -> None:
    block = MATRICES.partition("```\n")[2].partition("```")[0]
    (matrix,) = parse_program(f".pim 1\n.core 0\n{block}").cores[0].matrices
    assert fold(matrix.blocks).tolist() == [[3, -12], [0, 1], [1, -4], [0, 0], [0, 0], [1, -2]]


def test_the_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["isa.reference", str(tmp_path / "docs" / "isa.md")])
    main()
    assert (tmp_path / "docs" / "isa.md").read_text(encoding="utf-8") == reference()
