"""Loop rolling: shorter text, the same instructions in the same order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isa.catalog import Copy, Fill
from isa.operands import Affine, Region, Span, region
from isa.program import Loop, Statement, unroll
from passes.roll import roll


def executed(body: tuple[Statement, ...]) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """What runs: mnemonic and, per region, its buffer, first row and first column."""
    done = []
    for instruction, env in unroll(body):
        regions = (*instruction.written_regions(), *instruction.read_regions())
        places = [(r.name, at(r.rows, env), at(r.columns, env)) for r in regions]
        done.append((instruction.mnemonic, places))
    return done


def at(span: Span | None, env: dict[str, int]) -> int:
    return -1 if span is None else span.start.at(env)


steps = st.lists(
    st.lists(
        st.builds(
            lambda row, column, name: Copy(
                region(name, row), region("b", 2 * row, columns=(column, column + 2))
            ),
            st.integers(0, 3),
            st.integers(0, 3),
            st.sampled_from("ac"),
        )
        | st.builds(lambda row: Fill(region("a", row), 7), st.integers(0, 3)),
        max_size=3,
    ),
    max_size=12,
)


@given(steps)
def test_unrolling_a_rolled_stream_gives_every_instruction_back_in_order(
    written: list[list[Statement]],
) -> None:
    flat = tuple(statement for step in written for statement in step)
    assert executed(roll(written, "y")) == executed(flat)


def test_similar_rows_become_one_loop() -> None:
    written = [[Copy(region("a", 0), region("b", 2 * row + 1))] for row in range(9)]
    source = Region("b", Span(Affine(1, (("y", 2),))))
    assert roll(written, "y") == (Loop("y", 0, 9, (Copy(region("a", 0), source),)),)


def test_two_output_rows_per_input_row_become_a_loop_over_pairs() -> None:
    written: list[list[Statement]] = []
    for row in range(8):
        step: list[Statement] = [Copy(region("out", row), region("in", row // 2))]
        if row % 2 == 0:
            step.insert(0, Fill(region("in", row // 2), 0))
        written.append(step)
    rolled = roll(written, "y")
    assert len(rolled) == 1
    assert executed(rolled) == executed(tuple(s for step in written for s in step))


def test_inner_loops_stay_inside_the_outer_one() -> None:
    def row(y: int) -> tuple[Statement, ...]:
        return roll(
            [[Copy(region("a", y, columns=(x, x + 2)), region("b", y))] for x in (0, 2, 4)], "x"
        )

    rolled = roll([row(y) for y in range(5)], "y")
    assert len(rolled) == 1
    assert isinstance(rolled[0], Loop)
    assert isinstance(rolled[0].body[0], Loop)
    assert executed(rolled) == executed(tuple(s for y in range(5) for s in row(y)))
