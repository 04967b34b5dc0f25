"""The figures: what they draw is what is programmed, executed and carried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.timed import random_program, three_layers

from isa.printer import program_lines
from isa.target import load_target
from pimc.report.breakdown import area_bars, energy_bars
from pimc.report.colors import ramp
from pimc.report.gantt import gantt, work_shares
from pimc.report.listing import sections
from pimc.report.mesh import link_bytes, mesh
from pimc.report.occupancy import Boxes, merge, occupancy
from pimc.report.sheet import Sheet, make_sheet
from pimc.report.units import engineering, plain


def sheet() -> Sheet:
    return make_sheet("small", three_layers(), load_target("tiny"), 3, {})


def rasterized(boxes: Boxes, side: int = 12) -> np.ndarray:
    cells = np.zeros((4, side, side), int)
    for crossbar, column, row, width, height in zip(*(b.tolist() for b in boxes), strict=True):
        cells[crossbar, row : row + height, column : column + width] += 1
    return cells


@given(st.integers(0, 2**32 - 1))
def test_merged_boxes_cover_the_same_cells_just_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    taken = rng.random((4, 4, 6)) < 0.7  # of places three rows high and two columns wide
    crossbar, row, column = (values.astype(np.int64) for values in np.nonzero(taken))
    height = np.where(rng.random(len(row)) < 0.8, 3, rng.integers(1, 4, len(row)))
    boxes = Boxes(crossbar, 2 * column, 3 * row, np.full_like(row, 2), height)
    joined = merge(boxes)
    assert (rasterized(joined) == rasterized(boxes)).all()
    assert len(joined.row) <= len(row)


def test_a_full_crossbar_is_one_box() -> None:
    row, column = (values.ravel().astype(np.int64) for values in np.mgrid[0:9:3, 0:8:2])
    boxes = Boxes(np.zeros_like(row), column, row, np.full_like(row, 2), np.full_like(row, 3))
    assert [values.tolist() for values in merge(boxes)] == [[0], [0], [0], [8], [9]]


@given(st.integers(0, 2**32 - 1))
def test_shares_of_work_add_up_to_the_time_worked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 1000, 2 * int(rng.integers(1, 30)))).astype(float)
    begin, end = times[::2], times[1::2]
    edges = np.linspace(0, 1000, 38)
    shares = work_shares(begin, end, edges)
    assert shares.sum() * (edges[1] - edges[0]) == pytest.approx((end - begin).sum())
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-9


def test_the_gantt_chart_spans_the_images_it_shows() -> None:
    found = sheet()
    chart = gantt(found)
    assert chart.images == 3
    assert [row.name for row in chart.rows] == found.layer_names
    assert [x for x, _ in chart.ends] == sorted(x for x, _ in chart.ends)
    assert chart.ends[-1][0] == chart.width
    for row in chart.rows:
        assert all(work.path for work in row.works)


def test_the_map_draws_every_crossbar_of_every_layer() -> None:
    found = sheet()
    drawn = occupancy(found)
    assert drawn.is_exact
    assert sum(row.crossbars for row in drawn.rows) == found.size["crossbars"]
    assert sum(p.tiles.count("M") for r in drawn.rows for p in r.parts) == found.size["crossbars"]


def test_the_mesh_shows_each_used_core_in_the_colour_of_its_layer() -> None:
    found = sheet()
    cores = {core.index: core.number for core in mesh(found).cores if core.number is not None}
    names = found.layer_names
    assert {index: names[number] for index, number in cores.items()} == {0: "conv", 1: "pool"}


@pytest.mark.parametrize("seed", range(4))
def test_links_carry_the_flits_that_energy_is_paid_for(seed: int) -> None:
    target = load_target("tiny")  # one core a router
    found = make_sheet("random", random_program(seed), target, 3, {})
    events = found.cost.total.events
    bits = 8 * sum(link_bytes(found).values())
    assert bits == pytest.approx(events["flit_hop"] * target.network.flit_bits)
    assert len(mesh(found).links) == len(link_bytes(found))


def test_bars_are_as_long_as_their_sums() -> None:
    found = sheet()
    for bar, layer in zip(energy_bars(found), found.layers, strict=True):
        assert sum(piece.value for piece in bar.pieces) == pytest.approx(
            layer["energy_pj"]["dynamic"]
        )
    whole, used = area_bars(found)
    assert sum(p.value for p in whole.pieces) == pytest.approx(found.figures["area_mm2"]["total"])
    assert sum(p.value for p in used.pieces) == pytest.approx(found.figures["used_area_mm2"])


def test_the_text_of_the_page_is_the_text_of_the_program() -> None:
    found = sheet()
    lines = ["".join(line) for section in sections(found) for line in section.lines]
    assert [*filter(None, lines)] == [*filter(None, program_lines(found.program))]
    assert all(not section.cut for section in sections(found))


def test_a_long_text_is_cut_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pimc.report.listing.MAX_CHARACTERS", 0)
    monkeypatch.setattr("pimc.report.listing._LEAST", 60)
    head, conv, _ = sections(sheet())
    assert head.cut
    assert conv.cut
    assert conv.command == "pimc inspect small --section code --layer conv"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0033088, "s", "3.309\u00a0ms"),
        (0.9999999, "s", "1.000\u00a0s"),
        (1.115e-5, "J", "11.15\u00a0µJ"),
        (0.0, "J", "0\u00a0J"),
        (2.5e15, "B", "2\u202f500\u00a0TB"),
        (40.77, "mm²", "40.77\u00a0mm²"),
        (6051, "", "6\u202f051"),
    ],
)
def test_numbers_have_four_digits_and_a_prefix(value: float, unit: str, text: str) -> None:
    assert engineering(value, unit) == text


def test_numbers_are_written_in_full_where_they_are_whole() -> None:
    assert [plain(v) for v in (14.9, 300.00000000000006, 0.00012345)] == [
        "14.90",
        "300",
        "0.000123",
    ]


def test_the_ramp_has_a_colour_for_every_layer() -> None:
    assert ramp(1) == ["#4263eb"]
    assert len(set(ramp(60))) == 60
    assert all(len(color) == 7 for color in ramp(60))
