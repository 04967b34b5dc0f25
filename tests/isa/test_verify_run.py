"""The verifier runs a program without its numbers: queues, rings, and what nobody wrote."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from isa.assembly import parse_with_source
from isa.catalog import Copy, Fill, Load, Recv, Send
from isa.diagnostics import Diagnostic
from isa.operands import Affine, Region, Span
from isa.program import Buffer, Channel, Core, Loop, Program, Tensor
from isa.target import load_target
from isa.verify import verify
from isa.verify_run import executed_instructions

TINY = load_target("tiny")


def verify_text(text: str) -> list[Diagnostic]:
    program, source = parse_with_source(text, file="test.pim")
    return verify(program, TINY, source)


def streams(*bodies: str, depth: int = 1) -> list[str]:
    """Codes of findings for cores that send single elements to each other in a circle."""
    count = len(bodies)
    text = ".pim 1\n"
    for n in range(count):
        text += f".channel c{n} core {n} -> {(n + 1) % count} s8[1, 1] depth={depth} @global\n"
    for n, body in enumerate(bodies):
        text += f".core {n}\n.buffer a s8[1, 1, 1] @0 fill=0\n{body}\n"
    return [finding.code for finding in verify_text(text)]


def test_two_cores_that_both_wait_are_both_named() -> None:
    assert streams("recv a, c1\nsend c0, a", "recv a, c0\nsend c1, a") == ["V422", "V422"]
    assert streams("send c0, a\nrecv a, c1", "recv a, c0\nsend c1, a") == []


def test_a_full_queue_blocks_and_a_deeper_one_does_not() -> None:
    first = "send c0, a\nsend c0, a\nrecv a, c1"
    second = "send c1, a\nsend c1, a\nrecv a, c0\nrecv a, c0"
    assert streams(first + "\nrecv a, c1", second) == ["V422", "V422"]
    assert streams(first + "\nrecv a, c1", second, depth=2) == []


def test_messages_that_nobody_takes_are_found() -> None:
    assert streams("send c0, a", "fill a") == ["V416"]


def ring_program(body: str, fill: str = "") -> list[str]:
    text = (
        '.pim 1\n.input x s8[9, 4, 1] of="x" shape=[9 4 1] order=[0 1 2]\n.core 0\n'
        f".buffer r s8[ring 2, 6, 1] @0 {fill}\n.buffer o s8[1, 6, 1] @16\n{body}\n"
    )
    return [finding.code for finding in verify_text(text)]


def test_padding_columns_of_a_ring_keep_the_fill_value() -> None:
    body = "loop y = 0..9 {\n load r[y, 1..5], x[y]\n copy o, r[y]\n}"
    assert ring_program(body, "fill=0") == []
    assert ring_program(body) == ["V418"]


def test_a_new_row_forgets_what_the_old_one_wrote() -> None:
    body = "load r[0, 0..4], x[0]\nload r[2, 2..6], x[2]\ncopy o, r[2]"
    assert ring_program(body, "fill=0") == ["V418"]


def test_filling_a_row_with_the_fill_value_restores_its_padding() -> None:
    body = "fill r[0], value={}\nload r[2, 1..5], x[2]\ncopy o, r[2]"
    assert ring_program(body.format(0), "fill=0") == []
    assert ring_program(body.format(1), "fill=0") == ["V418"]


def test_a_row_whose_slot_was_taken_cannot_be_read() -> None:
    assert ring_program(
        "load r[0, 0..4], x[0]\nload r[2, 0..4], x[2]\ncopy o[0, 0..4], r[0, 0..4]"
    ) == ["V419"]
    assert (
        ring_program("load r[0, 0..4], x[0]\nload r[1, 0..4], x[2]\ncopy o[0, 0..4], r[0, 0..4]")
        == []
    )


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_ring_is_deep_enough_exactly_when_it_holds_the_window(depth: int, window: int) -> None:
    rows = Span(Affine(1 - window, (("y", 1),)), window)
    body = (
        *(Fill(Region("r", Span(Affine(y)))) for y in range(window - 1)),
        Loop(
            "y",
            window - 1,
            20,
            (Fill(Region("r", Span(Affine(0, (("y", 1),))))), Copy(Region("o"), Region("r", rows))),
        ),
    )
    buffers = (
        Buffer("r", "s8", (depth, 3, 1), 0, ring=True),
        Buffer("o", "s8", (window, 3, 1), 64),
    )
    codes = {f.code for f in verify(Program("", "", cores=(Core(0, "", (), buffers, body),)), TINY)}
    assert codes == (set() if depth >= window else {"V405"})


def test_a_long_run_is_verified_quickly() -> None:
    rows, width = 12_000, 64
    image = Tensor("input", "x", "s8", (rows, width, 4), "x", (rows, width, 4), (0, 1, 2))
    result = replace(image, role="output", name="y")
    ring = Buffer("r", "s8", (3, width + 2, 4), 0, ring=True, fill=0)
    out = Buffer("o", "s8", (1, width, 4), 1024)
    y = (("y", 1),)
    taken = Region("r", Span(Affine(0, y)), Span(Affine(1), width))
    body = (
        Load(taken, Region("x", Span(Affine(0, y)))),
        Copy(Region("o"), Region("r", Span(Affine(0, y)), Span(Affine(0), width))),
        Copy(Region("o"), Region("r", Span(Affine(0, y)), Span(Affine(2), width))),
        Send("c", Region("o")),
    )
    last = (Recv(Region("o"), "c"), parse_with_source(
        ".pim 1\n.core 0\nstore y[y], o")[0].cores[0].body[0])  # fmt: skip
    program = Program(
        "",
        "",
        (image, result),
        (),
        (Channel("c", 0, 1, "s8", (width, 4), 2, 2048),),
        (
            Core(0, "", (), (ring, out), (Loop("y", 0, rows, body),)),
            Core(1, "", (), (out,), (Loop("y", 0, rows, last),)),
        ),
    )
    assert sum(executed_instructions(core.body) for core in program.cores) == 6 * rows
    start = time.process_time()
    assert verify(program, TINY) == []
    seconds = time.process_time() - start
    assert seconds < 5, "72,000 steps; a run of 100,000 is to take 3 seconds, machines differ"
