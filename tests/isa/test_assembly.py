"""The text form: printing and reading are inverse, two readers agree, errors come all at once."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark
from support.programs import GOLDEN, TWO_CORES, instructions, instructions_of, programs, two_cores

import isa
from isa.assembly import (
    data_arrays,
    first_difference,
    instruction_text,
    parse_program,
    parse_with_source,
    print_program,
    same_program,
)
from isa.catalog import CATALOG
from isa.diagnostics import PimError
from isa.instruction import Instruction
from isa.matrix import fold
from isa.operands import Region
from isa.program import Core, Loop, Program, walk
from isa.read_fast import FastReader
from isa.read_operands import read_call
from isa.syntax import read_line
from isa.syntax_tree import Code, SyntaxFault


def read_slowly(line: str) -> Instruction | None:
    """The instruction of a line by the grammar alone, None when it is no plain instruction."""
    try:
        node = read_line(line)
    except SyntaxFault:
        return None
    if not isinstance(node, Code) or len(node.parts) != 1:
        return None
    faults: list[SyntaxFault] = []
    found = read_call(node.parts[0], faults) if hasattr(node.parts[0], "mnemonic") else None
    assert (found is None) == bool(faults) or not hasattr(node.parts[0], "mnemonic")
    return found


def errors_of(text: str) -> list[str]:
    """The rendered errors of a text."""
    with pytest.raises(PimError) as caught:
        parse_program(text, file="test.pim")
    return [diagnostic.render() for diagnostic in caught.value.diagnostics]


# ------------------------------------------------------------------ print and parse are inverse


@given(programs())
def test_print_then_parse_is_identity(program: Program) -> None:
    text = print_program(program)
    again = parse_program(text, data_arrays(program))
    assert first_difference(program, again) is None
    assert print_program(again) == text


@pytest.mark.parametrize("mnemonic", sorted(CATALOG))
def test_every_instruction_of_the_catalog_has_a_text(mnemonic: str) -> None:
    @given(instructions_of(CATALOG[mnemonic]))
    def inverse(instruction: Instruction) -> None:
        program = Program("", "", cores=(Core(0, body=(instruction,)),))
        assert same_program(parse_program(print_program(program)), program)

    inverse()


def test_the_hand_written_program_prints_as_it_was_written() -> None:
    assert print_program(two_cores()) == TWO_CORES


def test_the_hand_written_matrix_means_what_its_routes_say() -> None:
    (matrix,) = two_cores().cores[0].matrices
    # group [0 1 2]: columns 3,0,1 -> +o0 -4 o1; 0,2,1 -> +4 o0; 1,1,1 -> -o1; group [3]: 2
    expected = [[3, -13], [8, -1], [5, -5], [4, 2]]
    assert fold(matrix.blocks).tolist() == expected


def test_comments_blanks_and_line_ends_do_not_matter() -> None:
    plain = two_cores()
    noisy = TWO_CORES.replace("\n", '   ; a } comment [ with " noise\r\n\t\r\n')
    assert same_program(parse_program(noisy), plain)


def test_a_loop_may_stand_on_one_line() -> None:
    text = ".pim 1\n.core 0\nloop y = 0..4 { loop x = 1..9 step 2 { fill a[y, x] } }\n"
    (loop,) = parse_program(text).cores[0].body
    assert isinstance(loop, Loop)
    assert loop.body == (Loop("x", 1, 9, loop.body[0].body, 2),)  # type: ignore[union-attr]


def test_real_numbers_are_single_precision() -> None:
    text = ".pim 1\n.core 0\nadd a, b, c, scale=0.1\n"
    (add,) = walk(parse_program(text).cores[0].body)
    assert add.scale == float(np.float32(0.1))  # type: ignore[attr-defined]
    assert "scale=0.1" in instruction_text(add)


@given(instructions)
def test_the_text_of_an_instruction_is_one_line(instruction: Instruction) -> None:
    assert "\n" not in instruction_text(instruction)


# ------------------------------------------------------------------ the two readers agree


@given(instructions, st.integers(0, 200), st.sampled_from([*' ,[]=."0y-*;{}:@é', ""]))
def test_the_fast_reader_reads_what_the_grammar_reads(
    instruction: Instruction, at: int, noise: str
) -> None:
    text = instruction_text(instruction)
    assert read_slowly(text) == instruction
    for line in (text, text[:at] + noise + text[at:], text[:at] + noise + text[at + 1 :]):
        quick = FastReader().read(line)
        assert quick is None or quick == read_slowly(line)


def test_plain_lines_take_the_fast_way() -> None:
    body = "\n".join(line for line in TWO_CORES.splitlines() if line.startswith("    recv"))
    fast = FastReader()
    lines = [instruction_text(i) for core in two_cores().cores for i in walk(core.body)]
    assert body
    assert [fast.read(line) for line in lines] == [
        i for core in two_cores().cores for i in walk(core.body)
    ]


def test_a_long_program_loads_at_more_than_15000_lines_a_second() -> None:
    lines = [
        f"requant out{i % 40}[{i}], acc[{i}..{i + 2}, 0..{i % 60 + 1}], b{i}, s{i}, zero={i % 99}"
        for i in range(20_000)
    ]
    text = ".pim 1\n.core 0\n" + "\n".join(lines)
    gc.collect()
    start = time.process_time()
    program = parse_program(text)
    seconds = time.process_time() - start
    assert len(program.cores[0].body) == 20_000
    assert seconds < 2 * 20_000 / 15_000, "twice the time: machines differ"


# ------------------------------------------------------------------ nothing but PimError

GRAMMAR = Lark(
    (Path(isa.__file__).parent / "pim.lark").read_text(encoding="utf-8"),
    parser="lalr",
    start="start",
)


@given(st.lists(from_lark(GRAMMAR), max_size=8), st.booleans())
def test_whatever_the_grammar_allows_is_read_or_refused(lines: list[str], in_core: bool) -> None:
    head = ".pim 1\n.core 0\n" if in_core else ".pim 1\n"
    try:
        program = parse_program(head + "\n".join(lines))
    except PimError:
        return
    assert same_program(parse_program(print_program(program)), program)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(PimError):
        parse_program(".pim 1\n.core 0\n  fill\n" + text)


@given(st.integers(0, len(TWO_CORES)), st.text(max_size=3), st.integers(0, 5))
def test_a_broken_program_is_read_or_refused(at: int, noise: str, cut: int) -> None:
    try:
        program = parse_program(TWO_CORES[:at] + noise + TWO_CORES[at + cut :])
    except PimError as error:
        places = [d.at.line for d in error.diagnostics if d.at]
    else:
        places = [len(print_program(program))]
    assert all(places)


# ------------------------------------------------------------------ errors


def test_one_text_with_five_errors_gives_five_diagnostics() -> None:
    text = (GOLDEN / "five_errors.pim").read_text(encoding="utf-8")
    expected = (GOLDEN / "five_errors.txt").read_text(encoding="utf-8")
    with pytest.raises(PimError) as caught:
        parse_program(text, file="five_errors.pim")
    assert len(caught.value.diagnostics) == 5
    assert caught.value.render() + "\n" == expected


CORE = ".pim 1\n.core 0\n"
MATRIX = CORE + ".matrix w[4, 2] inputs=0..1 outputs=0..2:\n"
WRONG = [
    ("E301", CORE + "load rows[y, image", "the line ends too early"),
    ("E301", CORE + "load a b", "expected `,` or the end of the line, found `b`"),
    ("E301", CORE + 'load a, "b', "does not end here"),
    ("E301", CORE + "fill a, value=1234567890123456789", "too many digits"),
    ("E302", CORE + "lode a, b", "did you mean `load`?"),
    ("E303", ".pim 1\n.tabel a s8[1]", "did you mean `.table`?"),
    ("E304", CORE + "mvm a, b", "write `mvm into, matrix, source`"),
    ("E304", CORE + "recv a, b, c", "has 2 operands, found 3"),
    ("E304", CORE + ".buffer a s8[1, 1, 1]", "needs a byte address"),
    ("E304", CORE + ".buffer a s8[1, 1, 1] @0 @1", "one item too many"),
    ("E305", CORE + "mvm a, b, c, kernal=[3 3]", "did you mean `kernel`?"),
    ("E305", CORE + "mvm a, b, c, stride=1, stride=2", "given twice"),
    ("E305", CORE + "mvm a, b, source=c", "given by its position"),
    ("E305", CORE + ".buffer a s8[1, 1, 1] @0 full=3", "did you mean `fill`?"),
    ("E306", CORE + "mvm a, 3, c", "expected the name of a matrix, found the number `3`"),
    ("E306", CORE + "mvm a, b, c, kernel=3", "expected a pair like `[3 3]`"),
    ("E306", CORE + "fill a, value=1.5", "expected a whole number"),
    ("E306", CORE + ".buffer a s9[1, 1, 1] @0", "the types are s8, u8, s32, f32"),
    ("E306", CORE + ".buffer a s8[1, 1, 1] @there", "expected a byte address"),
    ("E307", CORE + "fill a[y..2*y]", "has no constant number of rows"),
    ("E307", CORE + "fill a[3..3]", "is empty"),
    ("E307", CORE + "fill a[1, 2, 3, 4]", "a region has rows, columns and channels"),
    ("E307", CORE + "fill a[ring 3]", "`ring` stands in `.buffer` only"),
    ("E308", ".pim 1\nfill a", "can only stand below a `.core`"),
    ("E308", CORE + "}", "closes no loop"),
    ("E308", CORE + "loop y = 0..3 {\nfill a", "has no closing `}`"),
    ("E308", CORE + "loop y = 0..3 step 0 {\n}", "a loop counts upwards"),
    ("E308", CORE + "loop y = 0..3 {\n" * 33, "more than 32 loops"),
    ("E308", CORE + "loop y = 0..3 {\n.buffer a s8[1,1,1] @0\n}", "inside of a loop"),
    ("E308", CORE + "[1 2 3]", "values can only stand below"),
    ("E308", CORE + "0b1 -> +0", "can only stand below `.matrix"),
    ("E309", ".pim 1\n.table t s8[3] = [1 2]", "wants 3 values, found 2"),
    ("E309", ".pim 1\n.table t s8[2] =\n[1 200]", "`200` is no s8"),
    ("E309", ".pim 1\n.table t s32[1] = [0.5]", "`0.5` is no s32"),
    ("E309", CORE + ".buffer a s8[1, 1] @0", "expected 3 sizes"),
    ("E309", CORE + ".buffer a s8[y, 1, 1] @0", "expected a size"),
    ("E309", CORE + ".buffer a s8[99999, 99999, 99999] @0", "too many"),
    ("E310", MATRIX + "0b1", "expected `group [inputs]` first"),
    ("E310", MATRIX + "group [0..5]", "input 4 is outside 0..4"),
    ("E310", MATRIX + "group [0 1]\n0b101", "3 cells; the group has 2 word lines"),
    ("E310", MATRIX + "group [0 1]\n[1 2]", "a cell of 1 bits holds 0 to 1"),
    ("E310", MATRIX + "group [0 1]\n0b11 -> +2", "output 2 is outside 0..2"),
    ("E310", MATRIX + "group [0 1]\nat y[0]", "expected a place"),
    ("E311", CORE.removeprefix(".pim 1\n"), "write `.pim 1`"),
    ("E311", "", "the text is empty"),
    ("E311", ".pim 2", "this pimc reads version 1"),
    ("E311", ".pim 1\n.table t s8[3]", "write `.data arrays.npz`"),
    ("C505", ".pim 1\n.data arrays.npz\n.table t s8[3]", 'the array "t" is not in the data file'),
]


@pytest.mark.parametrize(("code", "text", "says"), WRONG)
def test_a_wrong_line_says_what_is_wrong(code: str, text: str, says: str) -> None:
    errors = errors_of(text)
    assert any(f"[{code}]" in error and says in error for error in errors), "\n".join(errors)


@pytest.mark.parametrize(
    "line",
    [
        ".core zero",
        "  loop y = 0..3 stop 2 {",
        "  loop y = 0..x {  ; rows",
        "  .matrix w[4, 2] inputs=0..1 output=0..2:",
        "  .matrix w[4 2] inputs=0..1 outputs=0..2:",
        "  [1 2",
        "}}}{",
    ],
)
def test_a_faulty_line_makes_no_other_line_wrong(line: str) -> None:
    lines = [
        ".pim 1",
        ".core 0",
        "  .matrix w[4, 2] inputs=0..1 outputs=0..2:",
        "    group [0..4]",
        "      at x0[0, 0]",
        "      0b1010 -> +0",
        "  loop y = 0..3 {",
        "    fill a[y]",
        "  }",
    ]
    alike = [n for n, old in enumerate(lines) if old.split()[0] == line.split()[0]]
    for n in alike or [5]:
        assert len(errors_of("\n".join([*lines[:n], line, *lines[n + 1 :]]))) == 1


def test_the_caret_stands_under_the_operand() -> None:
    (error,) = errors_of(CORE + "  mvm acc, 3, rows[y]")
    assert error.splitlines()[1:4] == [
        "  --> test.pim:3:12",
        "   3 |   mvm acc, 3, rows[y]",
        "                  ^",
    ]


def test_a_loop_variable_that_is_no_identifier_has_no_text() -> None:
    loop = Loop("ring", 0, 3, ())
    with pytest.raises(PimError, match="E312"):
        print_program(Program("", "", cores=(Core(0, body=(loop,)),)))


def test_a_binary_file_gives_no_endless_list() -> None:
    assert len(errors_of("\x00\x01\n" * 5000)) <= 201


# ------------------------------------------------------------------ comparison and sources


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zero=-128", "zero=-127"),
        ("[-896 640]", "[-896 641]"),
        ("depth=1", "depth=2"),
        ("kernel=[2 2]", "kernel=[2 1]"),
        ("rows[y+1]", "rows[y+2]"),
        ("+0 -1<<2", "+0 -1<<3"),
        ("[3 0 1]", "[3 1 1]"),
        ("x1[4, 8]", "x1[4, 9]"),
        ("group [3]", "group [2]"),
        ("0..3 {", "0..2 {"),
        ('"Mean_0"', '"Mean_1"'),
        ("    lut     row, row, relu\n", ""),
    ],
)
def test_programs_that_differ_are_told_apart(old: str, new: str) -> None:
    assert old in TWO_CORES
    assert not same_program(two_cores(), parse_program(TWO_CORES.replace(old, new)))


def test_the_first_difference_is_named() -> None:
    changed = parse_program(TWO_CORES.replace("zero=-3\n    send", "zero=-4\n    send"))
    assert first_difference(two_cores(), changed) == "cores[0].body[1].body[2].zero"


def test_bulk_arrays_that_are_wrong_are_all_named() -> None:
    program = two_cores()
    bulk = replace(program, tables=tuple(replace(t, inline=False) for t in program.tables))
    arrays = dict(data_arrays(bulk))
    arrays["conv1.bias"] = arrays["conv1.bias"].astype(np.int64)
    arrays["relu"] = arrays["relu"][:255]
    del arrays["mean.bias"]
    with pytest.raises(PimError) as caught:
        parse_program(print_program(bulk), arrays)
    assert sorted(d.code for d in caught.value.diagnostics) == ["C505", "C506", "C506"]


def test_two_arrays_of_one_key_are_refused() -> None:
    program = two_cores()
    table = replace(program.tables[0], name="conv1.rows", inline=False)
    matrix = replace(program.cores[0].matrices[0], inline=False)
    core = replace(program.cores[0], matrices=(matrix,))
    with pytest.raises(PimError, match="C507"):
        data_arrays(replace(program, tables=(table,), cores=(core,)))


def test_the_source_knows_the_line_of_everything() -> None:
    program, source = parse_with_source(TWO_CORES, file="two_cores.pim")
    lines = TWO_CORES.splitlines()
    for core in program.cores:
        for ordinal, instruction in enumerate(walk(core.body)):
            at = source.instruction(core.index, ordinal)
            assert at is not None
            assert at.line is not None
            assert lines[at.line - 1].strip() == instruction_text(instruction)
    at = source.declaration("buffer", 1, "sum")
    assert at is not None
    assert at.text == "  .buffer sum s32[1, 1, 2] @0x0008"
    assert source.declaration("buffer", 0, "sum") is None


def test_regions_print_as_their_str() -> None:
    assert str(Region("a")) == "a"
