"""Rows know their gap; tables print and serialize."""

from __future__ import annotations

import json

import pytest

from pimc.reproduce.result import Row, Table


def test_gap_is_relative_to_the_published_number() -> None:
    assert Row("a", 2.0, 2.1, None, "reproduced").gap == pytest.approx(0.05)


@pytest.mark.parametrize(("ours", "gap"), [(1.0, -0.5), (2.5, 0.0), (6.0, 0.5)])
def test_gap_of_a_band_is_zero_inside_and_to_the_nearer_edge_outside(
    ours: float, gap: float
) -> None:
    assert Row("a", (2.0, 4.0), ours, None, "reconstructed").gap == pytest.approx(gap)


def test_without_a_published_number_there_is_no_gap() -> None:
    assert Row("a", None, 1.0, None, "measured").gap is None


def test_a_measured_row_prints_no_gap_beside_a_figure_of_other_weights() -> None:
    assert Table("t", (), (Row("a", 2.0, 1.0, None, "measured"),)).columns == (
        "",
        "published",
        "ours",
        "unit",
        "kind",
    )


def test_a_table_prints_title_assumptions_and_aligned_rows() -> None:
    rows = (
        Row("speed", (1.0, 2.0), 1.5, None, "reconstructed"),
        Row("latency", 260629682, 260621763, 1e5, "reproduced", "ns", "closed form"),
    )
    assert Table("title", ("an assumption",), rows).render() == (
        "title\n"
        "  - an assumption\n"
        "           published         ours     gap  corrected  unit  kind           note\n"
        "-------  -----------  -----------  ------  ---------  ----  -------------  -----------\n"
        "speed           1..2        1.500  inside             x     reconstructed\n"
        "latency  260,629,682  260,621,763  -0.00%    100,000  ns    reproduced     closed form"
    )


def test_json_keeps_bands_as_lists_and_survives_a_round_trip() -> None:
    table = Table("t", ("a",), (Row("speed", (1.0, 2.0), 1.5, None, "reconstructed"),))
    assert json.loads(json.dumps(table.as_json())) == {
        "title": "t",
        "assumptions": ["a"],
        "rows": [
            {
                "label": "speed",
                "published": [1.0, 2.0],
                "ours": 1.5,
                "gap": 0.0,
                "corrected": None,
                "unit": "x",
                "kind": "reconstructed",
                "note": "",
            }
        ],
    }


def test_an_unknown_label_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Table("t", (), ()).row("nothing")
