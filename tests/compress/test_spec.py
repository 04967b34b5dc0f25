"""Specs: short texts that say what is wrong with them."""

from __future__ import annotations

import pytest

from isa.diagnostics import PimError
from pimc.compress.spec import (
    ChannelSpec,
    IdenticalSpec,
    PatternSpec,
    SimilarSpec,
    Spec,
    at_layer,
    parse_compression,
)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("pattern", PatternSpec()),
        ("pattern:keep=4,patterns=8", PatternSpec(keep=(4,), patterns=8)),
        ("pattern:keep=8/4/2,group=2", PatternSpec(keep=(8, 4, 2), group=2)),
        (
            "pattern:dictionary=global,connectivity=3.6",
            PatternSpec(dictionary="global", connectivity=3.6),
        ),
        ("pattern: choose=error, first=yes", PatternSpec(choose="error", first=True)),
        ("identical:t=0.6", IdenticalSpec(t=(0.6,))),
        ("similar:t=0.75/0.25,joint=yes", SimilarSpec(t=(0.75, 0.25), joint=True)),
        ("channel:keep=0.65", ChannelSpec(keep=0.65)),
    ],
)
def test_a_text_gives_its_spec(text: str, spec: Spec) -> None:
    assert parse_compression(text) == spec


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prune:keep=4", "`prune` is no compression"),
        ("pattern:kepp=4", "`kepp=4` is no option of `pattern`"),
        ("pattern:keep", "`keep` is no option"),
        ("pattern:keep=four", "expected a whole number"),
        ("pattern:keep=10", "expected 1..9"),
        ("pattern:keep=", "expected a whole number"),
        ("pattern:dictionary=big", "expected local or global"),
        ("similar:joint=true", "expected yes or no"),
        ("similar:t=1.5", "expected 0..1"),
        ("similar:t=nan", "expected 0..1"),
        ("channel:keep=0", "expected 0.01..1"),
    ],
)
def test_a_wrong_text_is_named(text: str, part: str) -> None:
    with pytest.raises(PimError) as caught:
        parse_compression(text)
    assert part in str(caught.value)
    assert caught.value.diagnostics[0].code == "U950"


def test_all_wrong_options_are_reported_at_once() -> None:
    with pytest.raises(PimError) as caught:
        parse_compression("pattern:keep=0,patterns=x,colour=red")
    assert len(caught.value.diagnostics) == 3


def test_the_last_value_serves_all_later_layers() -> None:
    assert [at_layer((8, 4), index) for index in range(4)] == [8, 4, 4, 4]
