"""The verifier: a sound program passes, and each way to break it is found where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs import TWO_CORES, programs, two_cores

from isa.assembly import parse_with_source, print_program
from isa.catalog import CATALOG, Load
from isa.codes import VERIFIER
from isa.diagnostics import Diagnostic, PimError
from isa.matrix import Spans
from isa.operands import Region
from isa.program import Core, Matrix, Program, Table, Tensor
from isa.target import load_target
from isa.verify import check, clipping_columns, verify
from isa.verify_instructions import CHECKS

TINY = load_target("tiny")


def verify_text(text: str) -> list[Diagnostic]:
    program, source = parse_with_source(text, file="test.pim")
    return verify(program, TINY, source)


def render(findings: list[Diagnostic]) -> str:
    return "\n".join(finding.render() for finding in findings)


def test_a_sound_program_has_no_findings() -> None:
    assert render(verify_text(TWO_CORES)) == ""
    check(two_cores(), TINY)


def test_every_instruction_has_a_check() -> None:
    assert set(CHECKS) == set(CATALOG.values())


# code, what is replaced by what in the sound program, what the message says, the line it points at
MUTATIONS = [
    ("V401", "mvm     acc, conv1", "mvm     acc, conv2", "did you mean `conv1`?", "mvm "),
    ("V401", "load    rows[0]", "load    row[0]", "did you mean `rows`?", "load "),
    ("V401", "load    rows[0], image[0]", "load    rows[0], out", "no input", "load "),
    ("V401", "send    c0", "send    c1", '"c1" is no channel', "send "),
    ("V401", "relu\n    sumpool", "rely\n    sumpool", "did you mean `relu`?", "lut "),
    ("V401", "rows[y+1]", "rows[z+1]", '"z" is no variable of a loop', "load "),
    ("V401", "core 0 -> 1 s8", "core 0 -> 3 s8", "receiving core 3 is not declared", ".channel"),
    ("V401", "carries=conv1", "carries=conv9", "did you mean `conv1`?", ".channel"),
    ("V402", ".table mean.bias ", ".table conv1.bias ", "declared twice", "[9]"),
    ("V402", ".buffer out  s8", ".buffer acc  s8", "declared twice", "acc  s8"),
    ("V402", ".buffer row s8", ".buffer image s8", "hides the input", ".buffer image"),
    (
        "V402",
        "loop y = 0..3 {\n    load",
        "loop y = 0..3 {\nloop y = 0..1 {\n}\nload",
        "inside",
        "",
    ),
    ("V402", '.core 1 "Mean_0"', '.core 0 "Mean_0"', "core 0 is declared twice", '.core 0 "M'),
    ("V403", ".buffer acc  s32[1, 3, 2]", ".buffer acc s8[1, 3, 2]", "expected s32", "mvm "),
    (
        "V403",
        "conv1.scale f32[1] = [0.0125]",
        "conv1.scale s32[1] = [1]",
        "expected f32",
        "requant",
    ),
    ("V403", "-> 1 s8[3, 2]", "-> 1 u8[3, 2]", "the tensor it carries is s8", ".channel"),
    ("V403", "s8[3, 1, 2] of", "u8[3, 1, 2] of", "the types have to be equal", "store "),
    ("V403", ".buffer sum s32", ".buffer sum f32", "is f32, expected s32", "sumpool"),
    ("V404", "kernel=[2 2]", "kernel=[2 1]", "a window has 2 inputs (2 x 1 x 1", "mvm "),
    ("V404", "rows[y..y+2], kernel", "rows[y..y+1], kernel", "windows of 2 rows", "mvm "),
    ("V404", "kernel=[1 3]", "kernel=[1 4]", "1 windows need 4 columns", "sumpool "),
    (
        "V404",
        "s32[2] = [-896 640]",
        "s32[4] = [1 2 3 4]",
        "does not broadcast to [3, 2]",
        "requant",
    ),
    (
        "V404",
        "conv1[4, 2] inputs=0..1",
        "conv1[4, 2] inputs=0..3",
        "no multiple of its 3",
        ".matrix",
    ),
    ("V404", "outputs=0..2", "outputs=0..3", "not its 3 output channels", ".matrix"),
    ("V404", ".buffer out  s8[1, 3, 2]", ".buffer out s8[1, 3, 0]", "size below 1", ".buffer out"),
    ("V405", "image[y+1]", "image[y+2]", "rows 2..3 to 4..5 are outside the 4 rows", "load "),
    ("V405", "rows[y..y+2], kernel", "rows[y..y+3], kernel", "outside the ring of 2 rows", "mvm "),
    (
        "V405",
        "load    rows[0], image[0]",
        "load    rows[0, 1..5], image[0]",
        "columns 1..5",
        "load ",
    ),
    ("V406", "conv1.scale, zero=-3", "conv1.scale, zero=-300", "zero=-300 is no s8", "requant"),
    ("V406", "f32[1] = [0.0125]", "f32[1] = [inf]", "not finite", "requant"),
    ("V406", "kernel=[2 2]", "kernel=[2 2], stride=0", "have to be >= 1", "mvm "),
    ("V406", "loop y = 0..3 {\n    recv", "loop y = 3..3 {\n    recv", "never runs", ".core 1"),
    ("V406", "zero=-128", "zero=-129", "the zero point -129 is no s8", ".input"),
    ("V406", "scale=0.25", "scale=-0.25", "is not positive and finite", ".output"),
    (
        "V406",
        "s8[ring 2, 4, 1] @0x0000",
        "s8[ring 2, 4, 1] @0x0000 fill=128",
        "is no s8",
        ".buffer",
    ),
    ("V407", '.core 1 "Mean_0"', '.core 16 "Mean_0"', "core 16 is outside 0..16", ".core 16"),
    ("V409", "cell_bits=2", "cell_bits=3", "has cells of 3 bits", ".matrix"),
    ("V409", "group [0..3]", "group [-1 1 2]", "unused word line stands before", ".matrix"),
    ("V409", "cell_bits=2:", "cell_bits=2 lines=4:\n group [0]\n at x9[0, 0]\n [1 1]", "not 0", ""),
    ("V410", "at x1[4, 8]", "at x16[4, 8]", "crossbar 16 is outside 0..16", ".matrix"),
    ("V410", "at x1[4, 8]", "at x1[30, 8]", "word lines 30..33 are outside 0..32", ".matrix"),
    ("V410", "at x1[4, 8]", "at x1[4, 32]", "bit lines 32..33 are outside 0..32", ".matrix"),
    ("V410", "group [0..3]", "group [0 1 2 3 0]", "drives 5 word lines; an OU has 4", ".matrix"),
    (
        "V410",
        "at x1[4, 8]",
        "at x1[4, 8] columns=2..4",
        "columns that its group does not",
        ".matrix",
    ),
    ("V411", "at x0[4, 0]", "at x0[2, 0]", "word line 2, bit line 0 of crossbar 0", ".core 0"),
    ("V412", "at x1[4, 8]", "at x1[4, 8] columns=1..3", "more than one place", ".matrix"),
    ("V412", "      at x0[4, 0]\n", "", "1 stored columns have no place", ".matrix"),
    ("V413", "@0x0010", "@0x8000", "outside of the 32768 bytes of core 1", ".buffer out"),
    (
        "V413",
        ".buffer acc  s32[1, 3, 2]     @0x0008",
        ".buffer acc s32[1, 3, 2] @0x000a",
        "aligned",
        "",
    ),
    ("V414", "@0x0020 carries", "@0x0010 carries", "the next free byte is 0x12", ""),
    ("V414", "s32[1, 3, 2]     @0x0008", "s32[1, 3, 2] @0x0004", '"acc" at 0x4..0x1c lies on', ""),
    ("V415", "recv    row, c0", "send    c0, row", "core 0 sends on channel", "send    c0, row"),
    ("V416", "-> 1 s8[3, 2]", "-> 1 s8[3, 1]", "6 elements does not fit channel", "send "),
    (
        "V416",
        "recv    row, c0",
        "recv    row[0, 0..2], c0",
        "has 6 elements, the receiver takes 4",
        "",
    ),
    ("V417", "conv1[0..2]", "conv1[0..3]", "which has 2", ".channel"),
    ("V417", "conv1[0..2]", "conv1[0..1]", "9 elements, but 18 are sent", ".channel"),
    ("V418", "    load    rows[y+1], image[y+1]\n", "", "element [1, 0, 0] of", "mvm "),
    ("V418", "rows[y..y+2]", "rows[y+1..y+3]", 'row 2 of the ring "rows" has not been', "mvm "),
    (
        "V418",
        "  load    rows[0], image[0]\n",
        "",
        'element [0, 0, 0] of "rows" is read before',
        "mvm ",
    ),
    (
        "V418",
        "load    rows[y+1], image[y+1]",
        "load rows[y+1, 0..3], image[y+1, 0..3]",
        "[1, 3, 0]",
        "",
    ),
    ("V419", "rows[y+1], image[y+1]", "rows[y+2], image[y+1]", "row 2 stands in its slot", "mvm "),
    ("V420", "logits[y]", "logits[0]", "has been stored before (at y = 1)", "store "),
    (
        "V420",
        "loop y = 0..3 {\n    recv",
        "store logits[2], out\nloop y = 0..3 {\n  recv",
        "stored",
        "",
    ),
    (
        "V421",
        "store   logits[y], out",
        "copy    logits[y], out",
        "only written by `store`",
        "copy ",
    ),
    ("V421", "mvm     acc, conv1, rows[y..y+2]", "mvm acc, conv1, image[y..y+2]", "`load`", "mvm "),
    (
        "V422",
        "    recv    row, c0\n",
        "    recv    row, c0\n    recv    row, c0\n",
        "receive from",
        "recv",
    ),
    ("V422", "    recv    row, c0\n", "", "core 1 has ended", "send "),
    ("V424", "order=[1 2 0] scale=0.05", "order=[1 2 1] scale=0.05", "no permutation", ".tensor"),
    ("V424", "shape=[3 2] order", "shape=[3 3] order", "has 9 elements", ".output"),
    (
        "V426",
        "loop y = 0..3 {\n    recv",
        "loop z = 0..99999999 {\nfill out\n}\nloop y = 0..3 {\nrecv",
        "the program executes 1000000",
        None,
    ),
]


@pytest.mark.parametrize(("code", "old", "new", "says", "line"), MUTATIONS)
def test_a_mutation_is_found(code: str, old: str, new: str, says: str, line: str | None) -> None:
    assert TWO_CORES.count(old) >= 1, "the mutation changes nothing"
    findings = verify_text(TWO_CORES.replace(old, new, 1))
    hits = [f for f in findings if f.code == code and says in f.render()]
    assert hits, render(findings)
    if line is not None:
        at = hits[0].at
        assert at is not None
        assert at.line is not None
        assert line in str(at.text)


def with_core(change: Callable[[Core], Core], index: int = 0) -> Program:
    program = two_cores()
    cores = [change(core) if core.index == index else core for core in program.cores]
    return replace(program, cores=tuple(cores))


def with_blocks(**changes: Any) -> Program:
    """The sound program with some arrays of its matrix replaced."""

    def change(core: Core) -> Core:
        (matrix,) = core.matrices
        return replace(core, matrices=(replace(matrix, blocks=replace(matrix.blocks, **changes)),))

    return with_core(change)


BLOCKS = two_cores().cores[0].matrices[0].blocks
ROUTES = BLOCKS.routes
BROKEN_BLOCKS = [
    ("V408", {"column_start": BLOCKS.column_start[:-1]}, "column_start does not rise"),
    ("V408", {"column_start": BLOCKS.column_start + 1}, "column_start does not rise"),
    ("V408", {"column_start": np.array([0, 5, 4])}, "column_start does not rise"),
    ("V408", {"cells": BLOCKS.cells[:, :1]}, "do not hold 2 bits of 3 word lines"),
    ("V408", {"cells": BLOCKS.cells[:-1]}, "column_start does not rise from 0 to 3"),
    ("V408", {"routing": BLOCKS.routing + 9}, "one of 2 route lists"),
    ("V408", {"routing": BLOCKS.routing[:1]}, "one of 2 route lists"),
    ("V408", {"routing": BLOCKS.routing[::-1]}, "another number of columns"),
    ("V408", {"routes": replace(ROUTES, shift=ROUTES.shift[:-1])}, "differ in number"),
    ("V408", {"routes": replace(ROUTES, start=ROUTES.start[::-1])}, "routes.start does not rise"),
    ("V408", {"spans": replace(BLOCKS.spans, row=BLOCKS.spans.row[:1])}, "differ in length"),
    ("V408", {"cell_bits": 9}, "1 to 8 are possible"),
    ("V409", {"rows": BLOCKS.rows + 2}, "names input 4, outside 0..4"),
    ("V409", {"routes": replace(ROUTES, output=ROUTES.output + 1)}, "leads to output 2"),
    ("V409", {"routes": replace(ROUTES, shift=ROUTES.shift + 30)}, "a route shifts by 32"),
    ("V409", {"routes": replace(ROUTES, sign=ROUTES.sign * 0)}, "neither +1 nor -1"),
    ("V410", {"spans": replace(BLOCKS.spans, group=BLOCKS.spans.group + 5)}, "outside 0..2"),
    ("V412", {"spans": Spans.empty()}, "4 stored columns have no place"),
]


@pytest.mark.parametrize(("code", "changes", "says"), BROKEN_BLOCKS)
def test_broken_arrays_are_found(code: str, changes: dict[str, Any], says: str) -> None:
    findings = verify(with_blocks(**changes), TINY)
    assert any(f.code == code and says in f.message for f in findings), render(findings)


def gather_program(*index: int) -> Program:
    table = Table("index", "s32", np.array(index, np.int32))
    image = Tensor("input", "x", "s8", (1, 2, 2), "x", (1, 2, 2), (0, 1, 2))
    result = replace(image, role="output", name="y")
    text = (
        ".pim 1\n.core 0\n.buffer a s8[1, 2, 2] @0\n.buffer b s8[1, 2, 2] @4\n"
        "load a, x\ngather b, a, index\nstore y, b\n"
    )
    program, _ = parse_with_source(text)
    return replace(program, tensors=(image, result), tables=(table,))


def test_gather_takes_any_element_and_none_outside() -> None:
    assert render(verify(gather_program(3, -1, 0, 0), TINY)) == ""
    for bad in (4, -2):
        (finding,) = verify(gather_program(0, 0, bad, 0), TINY)
        assert finding.code == "V425"
        assert f"names element {bad}" in finding.message


def test_a_program_of_another_target_is_refused() -> None:
    named = replace(two_cores(), target_sha256="0" * 64)
    assert [f.code for f in verify(named, TINY)] == ["V423"]
    named = replace(named, target_sha256=TINY.sha256)
    assert verify(named, TINY) == []


HOSTED = """.pim 1
.input   x  s8[2, 3, 4] of="x" shape=[4 2 3] order=[1 2 0] scale=0.5
.host    hx s8[2, 3, 4] of="xq" shape=[4 2 3] order=[1 2 0]
.output  y  f32[1, 1, 5] of="y" shape=[5] order=[0]
.partition part hx -> y sha256=SHA
.core 0 "part"
  .buffer row s8[1, 3, 4] @0x0000
  loop r = 0..2 {
    load    row, x[r]
    store   hx[r], row
  }
  host    part
""".replace("SHA", "ab" * 32)


def test_a_program_with_a_partition_is_sound() -> None:
    assert verify(parse_with_source(HOSTED, None, "host.pim")[0], TINY) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("  host    part\n", "", "V427", "is run 0 times"),
        ("  host    part\n", "  host part\n  host part\n", "V427", "is run 2 times"),
        ("  host    part\n", "  loop z = 0..1 {\n    host part\n  }\n", "V427", "is run 2 times"),
        (".partition part hx ->", ".partition part hx hx ->", "V427", "is taken"),
        ("-> y sha256", "-> x sha256", "V427", "cannot be an output"),
        ("part hx ->", "part y ->", "V427", "cannot be an input"),
        ("part hx ->", "part ->", "V427", "belongs to no partition"),
        ("part hx ->", "part hz ->", "V401", "not declared"),
        ("host    part", "host    port", "V401", "no partition"),
        ("0..2 {", "0..1 {", "V418", "hx"),
        ("  host    part", "  copy hx[0], row\n  host part", "V421", "role host"),
    ],
)
def test_what_is_wrong_with_a_partition_is_found(old: str, new: str, code: str, says: str) -> None:
    assert old in HOSTED
    found = verify(parse_with_source(HOSTED.replace(old, new, 1), None, "host.pim")[0], TINY)
    assert any(f.code == code and says in f.render() for f in found), [f.render() for f in found]


def test_only_the_core_of_a_partition_touches_its_tensors() -> None:
    other = '.core 1 "else"\n  .buffer row s8[1, 3, 4] @0x0000\n  load row, hx[0]\n'
    found = verify(parse_with_source(HOSTED + other, None, "host.pim")[0], TINY)
    assert [f.code for f in found] == ["V427"]


def test_every_code_of_the_verifier_is_provoked() -> None:
    provoked = {mutation[0] for mutation in MUTATIONS} | {broken[0] for broken in BROKEN_BLOCKS}
    assert set(VERIFIER) - provoked == {"V423", "V425", "V427"}  # all in tests of their own


FLOATS = """.pim 1
.table g f32[2] = [1 1]
.input  x s8[1, 3, 2] of="x" shape=[1 3 2] order=[0 1 2] scale=0.5
.output y f32[1, 3, 2] of="y" shape=[1 3 2] order=[0 1 2]
.core 0 "floats"
  .buffer a s8[1, 3, 2] @0x0000
  .buffer b f32[1, 3, 2] @0x0008
  .buffer c f32[1, 3, 1] @0x0020
    load       a, x
    exp        b, a, scale_a=0.5
    reducesum  c, b
    div        b, b, c
    flayernorm b, b, g, g, epsilon=0.001
    store      y, b
"""


@pytest.mark.parametrize(
    ("code", "old", "new", "says"),
    [
        ("V403", "reducesum  c, b", "softmax b, b, g", "b is f32, expected s8 or u8"),
        ("V404", "reducesum  c", "reducesum  b", "expected [1, 3, 1]"),
        ("V404", "exp        b", "exp        c", "the shapes have to be equal"),
        ("V404", ".table g f32[2] = [1 1]", ".table g f32[1] = [1]", "g is [1], expected [2]"),
        ("V406", "scale_a=0.5", "scale_a=0.5, zero=3", "zero=3 has no meaning: b holds f32"),
        ("V406", "div        b, b, c", "div b, b, c, scale_b=2", "scale_b=2.0 has no meaning"),
        ("V406", "scale_a=0.5", "scale_a=0.5, zero_a=-200", "zero_a=-200 is no s8"),
    ],
)
def test_wrong_floats_are_found(code: str, old: str, new: str, says: str) -> None:
    assert render(verify_text(FLOATS)) == ""
    assert FLOATS.count(old) == 1
    text = render(verify_text(FLOATS.replace(old, new)))
    assert code in text
    assert says in text.replace("`", "").replace('"', "")


def test_check_raises_all_findings_at_once() -> None:
    text = TWO_CORES.replace("conv1, rows", "conv2, rows").replace("row, relu", "row, relo")
    program, source = parse_with_source(text)
    with pytest.raises(PimError) as caught:
        check(program, TINY, source)
    assert [d.code for d in caught.value.diagnostics] == ["V401", "V401"]


def test_a_program_without_a_text_names_core_and_instruction() -> None:
    def change(core: Core) -> Core:
        return replace(core, body=(Load(Region("rows"), Region("nothing")), *core.body))

    (finding,) = verify(with_core(change), TINY)
    assert "core 0 (Conv_0): `load rows, nothing`" in finding.render()


@given(programs())
def test_any_program_is_verified_without_a_crash(program: Program) -> None:
    findings = verify(program, TINY)
    assert all(finding.severity == "error" for finding in findings)


def test_an_adc_that_can_clip_is_counted_and_no_error() -> None:
    narrow = load_target("tiny", {"adc.bits": "2"})
    assert verify(two_cores(), narrow) == []
    # column sums 3+0+1, 0+2+1, 1+1+1 and 2 against a largest code of 3
    assert clipping_columns(two_cores(), narrow) == {(0, "conv1"): 1}
    assert clipping_columns(two_cores(), TINY) == {}


def test_verification_leaves_the_program_as_it_is() -> None:
    program = two_cores()
    before = print_program(program)
    verify(program, TINY)
    assert print_program(program) == before


@given(st.integers(0, 5), st.integers(0, 2), st.booleans())
def test_one_flipped_cell_is_no_matter_of_the_verifier(column: int, line: int, bit: bool) -> None:
    """The verifier proves that a program runs; that it is the right one is the fold's to prove."""
    blocks = BLOCKS
    cells = blocks.cells.copy()
    cells[column % 3, int(bit)] ^= np.uint8(1 << line)
    assert verify(with_blocks(cells=cells), TINY) == []


def test_matrices_share_no_name_between_cores() -> None:
    program = two_cores()
    matrix: Matrix = program.cores[0].matrices[0]
    second = replace(program.cores[1], matrices=(matrix,))
    findings = verify(replace(program, cores=(program.cores[0], second)), TINY)
    assert [f.code for f in findings] == ["V402"]
