"""What the verifier lets pass, the machine runs; what the machine refuses, the verifier names."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from support.programs import TWO_CORES

from isa.assembly import parse_program
from isa.diagnostics import PimError
from isa.program import Program
from isa.target import load_target
from isa.verify import verify
from runtime.machine import Machine

TINY = load_target("tiny")
HEAD = TWO_CORES.index(".core 0")
NUMBERS = [m.span() for m in re.finditer(r"-?\d+", TWO_CORES) if m.start() > HEAD]
LINES = TWO_CORES[HEAD:].splitlines(keepends=True)
CODE = [n for n, line in enumerate(LINES) if re.match(r"\s+(load|store|send|recv|mvm|lut)", line)]


def machine_refuses(program: Program) -> bool:
    """Whether a run of two images ends in an error that the verifier should have found."""
    rng = np.random.default_rng(1)
    inputs = {
        tensor.name: rng.integers(-128, 128, (2, *tensor.shape)).astype(np.int8)
        for tensor in program.tensors
        if tensor.role == "input"
    }
    try:
        result = Machine(program, TINY).run(inputs, trace=True)
    except PimError:
        return True
    return any(values.shape[0] != 2 for values in result.outputs.values())


def check_agreement(text: str) -> None:
    try:
        program = parse_program(text)
    except PimError:
        return  # refused even earlier
    if not verify(program, TINY):
        assert not machine_refuses(program)


@given(st.sampled_from(NUMBERS), st.integers(-1, 9))
@example(NUMBERS[0], 0)
def test_a_program_with_another_number_runs_when_it_is_verified(
    span: tuple[int, int], number: int
) -> None:
    check_agreement(TWO_CORES[: span[0]] + str(number) + TWO_CORES[span[1] :])


@given(st.sampled_from(CODE), st.sampled_from(CODE), st.booleans())
def test_a_program_with_a_line_moved_runs_when_it_is_verified(
    taken: int, put: int, keep: bool
) -> None:
    lines = list(LINES)
    line = lines[taken] if keep else lines.pop(taken)
    lines.insert(put, line)
    check_agreement(TWO_CORES[:HEAD] + "".join(lines))


def test_the_hand_written_program_is_not_refused() -> None:
    assert not machine_refuses(parse_program(TWO_CORES))
    assert machine_refuses(parse_program(TWO_CORES.replace("    recv    row, c0\n", "")))
