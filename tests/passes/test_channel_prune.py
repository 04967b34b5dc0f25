"""Channel pruning: scores, and arrays without the channels that go."""

from __future__ import annotations

import numpy as np

from passes.channel_prune import (
    ChannelPrune,
    ChannelUse,
    channel_scores,
    folded_bias,
    keep_inputs,
    keep_outputs,
)


def test_the_weakest_channels_go() -> None:
    rng = np.random.default_rng(0)
    made, read = rng.normal(size=(8, 3, 3, 3)), rng.normal(size=(5, 8, 3, 3))
    made[[1, 6]] *= 0.01
    read[:, [1, 6]] *= 0.01
    assert ChannelPrune(keep=0.75).run(ChannelUse(8, (made,), (read,))).tolist() == [
        *(0, 2, 3, 4, 5, 7)
    ]


def test_the_number_kept_is_a_multiple_and_at_least_one() -> None:
    use = ChannelUse(20, (np.ones((20, 1, 1, 1)),), ())
    assert len(ChannelPrune(keep=0.3, multiple=8).run(use)) == 8
    assert len(ChannelPrune(keep=0.01).run(use)) == 1
    assert len(ChannelPrune(keep=1.0, multiple=8).run(use)) == 20


def test_scores_do_not_depend_on_the_scale_of_a_layer() -> None:
    rng = np.random.default_rng(1)
    made, read = rng.normal(size=(8, 3, 3, 3)), rng.normal(size=(5, 8, 3, 3))
    scores = channel_scores(ChannelUse(8, (made,), (read,)))
    assert np.allclose(scores, channel_scores(ChannelUse(8, (1000 * made,), (read,))))


def test_inputs_behind_a_flattening_go_in_runs() -> None:
    weights = np.arange(12.0).reshape(1, 12, 1, 1)
    assert keep_inputs(weights, np.array([0, 2]), 3).ravel().tolist() == [0, 1, 2, 3, 8, 9, 10, 11]


def test_outputs_are_taken_from_the_first_axis() -> None:
    assert keep_outputs(np.arange(4), np.array([1, 3])).tolist() == [1, 3]


def test_a_constant_input_adds_its_value_times_the_weights() -> None:
    weights = np.ones((2, 1, 3, 3)) * np.array([1.0, 2.0]).reshape(2, 1, 1, 1)
    assert folded_bias(weights, np.array([0.5])).tolist() == [4.5, 9.0]
