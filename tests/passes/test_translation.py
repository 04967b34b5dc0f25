"""Translation: followers are shifted copies of stored patterns, exactly, in integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from passes.translate_identical import TranslateIdentical, translate_identical
from passes.translate_similar import TranslateSimilar, translate_similar
from passes.translation import ZERO, Translation, from_patterns, quantize_rows, to_patterns

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int16]]


def draw(seed: int, outputs: int = 16, channels: int = 5, spread: float = 30.0) -> Ints:
    rng = np.random.default_rng(seed)
    drawn = np.rint(rng.normal(0, spread, (outputs, channels, 3, 3)))
    return np.clip(drawn, -127, 127).astype(np.int16)


def reference_identical(patterns: Ints, threshold: float) -> list[int]:
    """The published loop, one group [outputs, h] at a time, in plain Python."""
    norms = np.abs(patterns.astype(int)).sum(axis=1)
    order = sorted(range(len(norms)), key=lambda o: (-norms[o], o))
    rank = int(len(norms) * threshold)
    limit = norms[order[rank]] if rank < len(norms) else 0
    kept: list[int] = []
    source = [ZERO] * len(norms)
    for place, output in enumerate(order):
        found = [(int(np.abs(patterns[output] - patterns[k]).sum()), k) for k in kept]
        distance, nearest = min(found, key=lambda pair: pair[0], default=(10**9, ZERO))
        if norms[output] <= distance:
            distance, nearest = int(norms[output]), ZERO
        if distance <= (limit if place else 0):
            source[output] = nearest
        else:
            source[output] = output
            kept.append(output)
    return source


@given(
    seed=st.integers(0, 999),
    threshold=st.floats(0, 1),
    group=st.sampled_from([1, 2, 3]),
    spread=st.sampled_from([0.4, 2.0, 40.0]),
)
def test_identical_translation_is_the_published_loop(
    seed: int, threshold: float, group: int, spread: float
) -> None:
    weights = draw(seed, spread=spread)
    table = translate_identical(weights, threshold, group)
    for patterns, source in zip(to_patterns(weights, group), table.source, strict=True):
        assert source.tolist() == reference_identical(patterns, threshold)


@given(seed=st.integers(0, 99), group=st.sampled_from([1, 2]))
def test_a_threshold_of_one_merges_only_equal_patterns(seed: int, group: int) -> None:
    weights = draw(seed, outputs=64, spread=0.3)
    table = TranslateIdentical(threshold=1.0, group=group).run(weights)
    assert np.array_equal(table.apply(weights), weights)
    for patterns, kept in zip(to_patterns(weights, group), table.kept, strict=True):
        distinct = {tuple(p) for p in patterns.tolist() if any(p)}
        assert kept.sum() == len(distinct)


@given(
    seed=st.integers(0, 999),
    keep=st.floats(0, 1),
    group=st.sampled_from([1, 2]),
    joint=st.booleans(),
)
def test_a_follower_is_its_source_shifted_exactly(
    seed: int, keep: float, group: int, joint: bool
) -> None:
    weights = draw(seed)
    table = translate_similar(weights, keep, group, weights if joint else None)
    after = to_patterns(table.apply(weights), group).astype(np.int64)
    for patterns, source, shift in zip(after, table.source, table.shift, strict=True):
        for output, origin in enumerate(source):
            expected = (
                patterns[origin] / 2.0 ** shift[output] if origin != ZERO else 0 * patterns[0]
            )
            assert np.array_equal(patterns[output], expected)


@given(seed=st.integers(0, 999), keep=st.floats(0, 1))
def test_sources_are_stored_themselves(seed: int, keep: float) -> None:
    table = translate_similar(draw(seed), keep)
    used = table.source != ZERO
    groups = np.nonzero(used)[0]
    assert table.kept[groups, table.source[used]].all()
    assert (table.kept.sum(axis=1) <= max(1, int(16 * keep))).all()


def test_keeping_all_changes_nothing() -> None:
    weights = draw(1)
    table = TranslateSimilar(keep=1.0).run(weights)
    assert table.kept_share == 1.0
    assert np.array_equal(table.apply(weights), weights)


def test_a_half_is_found_as_a_half() -> None:
    weights = np.zeros((2, 1, 3, 3), np.int16)
    weights[0, 0, 0] = (8, -4, 0)
    weights[1, 0, 0] = (5, -2, 1)
    after = TranslateSimilar(keep=0.5).run(weights).apply(weights)
    assert after[1, 0, 0].tolist() == [4, -2, 0]
    assert np.array_equal(after[0], weights[0])


def test_rounding_of_a_stored_pattern_never_leaves_eight_bits() -> None:
    weights = np.zeros((2, 1, 1, 1), np.int16)
    weights[:, 0, 0, 0] = (127, 16)
    table = Translation(np.array([[0, 0]], np.int32), np.array([[0, 3]], np.int8), 1)
    assert table.apply(weights).ravel().tolist() == [120, 15]


@given(seed=st.integers(0, 99), group=st.integers(1, 7), channels=st.integers(1, 9))
def test_patterns_and_weights_are_one_and_the_same(seed: int, group: int, channels: int) -> None:
    weights = draw(seed, channels=channels)
    assert np.array_equal(from_patterns(to_patterns(weights, group), weights.shape), weights)


@given(seed=st.integers(0, 99))
def test_zero_weights_stay_zero_when_quantized(seed: int) -> None:
    weights = draw(seed).astype(np.float64) * 0.013
    weights[np.random.default_rng(seed).random(weights.shape) < 0.5] = 0.0
    weights[2] = 0.0
    integers, scale = quantize_rows(weights)
    assert not integers[weights == 0].any()
    assert np.abs(integers * scale[:, None, None, None] - weights).max() <= scale.max() / 2 * 1.001
