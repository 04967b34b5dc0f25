"""Diagnostics: the rendered text, the JSON, the exit code, and the registry behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.codes import FAMILIES, all_codes, exit_code_of, find_code
from isa.diagnostics import Diagnostic, Findings, Location, PimError


def test_a_finding_renders_with_line_caret_and_hint() -> None:
    at = Location("chip.toml", 3, 5, 4, "    rowz = 2")
    text = Diagnostic("T104", "unknown key `rowz`", at, "did you mean `rows`?").render()
    assert text == (
        "error[T104]: unknown key `rowz`\n"
        "  --> chip.toml:3:5\n"
        "   3 |     rowz = 2\n"
        "           ^^^^\n"
        "  hint: did you mean `rows`?"
    )


def test_a_finding_without_a_place_is_one_line() -> None:
    assert Diagnostic("I999", "lost count").render() == "error[I999]: lost count"


def test_a_node_stands_where_there_is_no_line() -> None:
    at = Location("net.onnx", node="Conv `c1`")
    assert "  --> net.onnx: Conv `c1`" in Diagnostic("I999", "m", at).render()
    assert str(Location(node="Conv `c1`")) == "Conv `c1`"


def test_a_text_without_a_file_still_has_lines() -> None:
    assert str(Location(line=4, column=2)) == "<text>:4:2"


def test_every_line_of_a_hint_is_shown() -> None:
    assert Diagnostic("I999", "m", hint="one\ntwo").render().endswith("hint: one\n        two")


def test_color_changes_nothing_but_escape_codes() -> None:
    at = Location("f", 1, 2, 3, "abcdef")
    finding = Diagnostic("T104", "message", at, "hint")
    colored = finding.render(color=True)
    assert "\x1b[" in colored
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[1;34m"):
        colored = colored.replace(code, "")
    assert colored == finding.render()


def test_a_tab_before_the_caret_stays_a_tab() -> None:
    lines = Diagnostic("T104", "m", Location("f", 1, 2, 1, "\tx")).render().splitlines()
    assert lines[2:] == ["   1 | \tx", "       \t^"]


def test_carets_end_with_the_line() -> None:
    lines = Diagnostic("T104", "m", Location("f", 1, 2, 99, "abc")).render().splitlines()
    assert lines[3] == "        ^^"


@given(st.integers(1, 5000), st.integers(1, 20))
def test_the_caret_of_a_long_line_points_at_the_right_character(column: int, length: int) -> None:
    text = "".join(
        chr(0x4E00 + i % 20000) for i in range(5000)
    )  # characters that do not repeat soon
    rendered = Diagnostic("T104", "m", Location("f", 1, column, length, text)).render()
    source, carets = rendered.splitlines()[2:]
    assert len(source) < 200
    assert source[carets.index("^")] == text[column - 1]


def test_control_characters_of_an_input_never_reach_the_terminal() -> None:
    evil = "\x1b[2J\x07"
    finding = Diagnostic("T104", evil, Location("f" + evil, 1, 1, 1, evil, evil), evil)
    rendered = finding.render()
    assert "\x1b" not in rendered
    assert "\x07" not in rendered


def test_an_unregistered_code_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="T199"):
        Diagnostic("T199", "no such code")


def test_json_holds_what_is_known_and_nothing_else() -> None:
    finding = Diagnostic("T104", "m", Location("f", 3, 5, 4, "text"), "try")
    assert finding.as_json() == {
        "severity": "error",
        "code": "T104",
        "message": "m",
        "file": "f",
        "line": 3,
        "column": 5,
        "hint": "try",
    }
    assert Diagnostic("I999", "m").as_json().keys() == {"severity", "code", "message"}


def test_an_error_carries_and_shows_all_findings() -> None:
    one, two = Diagnostic("T104", "first"), Diagnostic("T105", "second")
    for error in (PimError(one, two), PimError([one, two]), PimError([one], two)):
        assert error.diagnostics == (one, two)
        assert str(error) == "error[T104]: first\n\nerror[T105]: second"


def test_an_error_without_findings_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PimError([])


def test_a_bug_outranks_a_rejected_input() -> None:
    rejected, bug = Diagnostic("T104", "m"), Diagnostic("I999", "m")
    assert PimError(rejected).exit_code == 3
    assert PimError(rejected, bug).exit_code == 70


def test_findings_raise_once_with_everything() -> None:
    findings = Findings()
    findings.raise_if_any()
    findings.warning("T104", "look")
    findings.raise_if_any()
    findings.error("T105", "one", Location("f", 1), "hint")
    findings.error("T106", "two")
    with pytest.raises(PimError) as caught:
        findings.raise_if_any()
    assert [d.message for d in caught.value.diagnostics] == ["look", "one", "two"]
    assert [d.message for d in findings.errors] == ["one", "two"]
    assert (len(findings), bool(findings), bool(Findings())) == (3, True, False)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_code_belongs_to_the_family_that_lists_it(family: str) -> None:
    _, _, entries = FAMILIES[family]
    assert all(code[:2] == family and len(code) == 4 and code[1:].isdigit() for code in entries)


@pytest.mark.parametrize("code", all_codes())
def test_every_code_is_explained_in_sentences(code: str) -> None:
    entry = all_codes()[code]
    assert 0 < len(entry.title) <= 60
    assert not entry.title.endswith(".")
    assert len(entry.explanation) > len(entry.title)
    assert entry.explanation.endswith((".", ")", "`"))
    assert exit_code_of(code) in {1, 2, 3, 4, 70}


def test_an_unknown_code_is_not_found() -> None:
    assert find_code("Z000") is None
    with pytest.raises(KeyError):
        exit_code_of("T199")
