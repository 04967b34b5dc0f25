"""Convolutions and pools over three axes: exact on the grid, and near the float model."""

from __future__ import annotations

import numpy as np
import pytest
from frontend.makers import make, weights
from frontend.near import check_near
from frontend.oracle import random_feeds

import pimc
from passes.graph import BinaryNode, MatrixNode

VOLUME = "(float[N,4,5,7,6] x) => (float[N,C,D,H,W] y)"
CONVOLUTIONS = {
    "1x1x1": ("", (6, 4, 1, 1, 1)),
    "3x3x3": ("", (6, 4, 3, 3, 3)),
    "3x3x3 same": ("<pads=[1,1,1,1,1,1]>", (6, 4, 3, 3, 3)),
    "3x1x1": ("<pads=[1,0,0,1,0,0]>", (6, 4, 3, 1, 1)),
    "1x3x3": ("<pads=[0,1,1,0,1,1]>", (6, 4, 1, 3, 3)),
    "stride 2": ("<strides=[2,2,2], pads=[1,1,1,1,1,1]>", (6, 4, 3, 3, 3)),
    "more stride than kernel": ("<strides=[2,3,1]>", (6, 4, 1, 2, 2)),
    "dilated": ("<dilations=[2,3,1], pads=[0,1,2,2,0,1]>", (6, 4, 2, 2, 3)),
    "groups": ("<group=2, pads=[1,1,1,1,1,1]>", (6, 2, 3, 3, 3)),
    "depthwise": ("<group=4>", (4, 1, 2, 3, 3)),
    "the whole depth": ("", (6, 4, 5, 2, 2)),
    "SAME_UPPER": ('<auto_pad="SAME_UPPER", strides=[2,2,2]>', (6, 4, 2, 3, 4)),
}
POOLS = {
    "2x2x2": "<kernel_shape=[2,2,2], strides=[2,2,2]>",
    "apart": "<kernel_shape=[1,7,2], strides=[1,7,2]>",
    "overlapping": "<kernel_shape=[3,3,3], strides=[1,2,1], pads=[1,1,1,1,1,1]>",
    "the depth alone": "<kernel_shape=[3,1,1], strides=[2,1,1], pads=[1,0,0,1,0,0]>",
    "planes alone": "<kernel_shape=[1,2,3]>",
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_of_volumes_is_one_layer(case: str) -> None:
    attributes, shape = CONVOLUTIONS[case]
    constants = {"w": weights(*shape), "b": weights(shape[0])}
    imported = check_near(make(VOLUME, f"y = Conv{attributes}(x, w, b)", **constants))
    assert sum(isinstance(node, MatrixNode) for node in imported.graph.nodes) == 1


@pytest.mark.parametrize("counts", [0, 1])
@pytest.mark.parametrize("case", POOLS)
def test_averages_of_volumes(case: str, counts: int) -> None:
    attributes = POOLS[case].replace(">", f", count_include_pad={counts}>")
    check_near(make(VOLUME, f"y = AveragePool{attributes}(x)", opset=19), least_db=25)


@pytest.mark.parametrize("case", POOLS)
def test_maxima_of_volumes(case: str) -> None:
    check_near(make(VOLUME, f"y = MaxPool{POOLS[case]}(x)"))


@pytest.mark.parametrize(
    "body",
    [
        "y = GlobalAveragePool(x)",
        "y = GlobalMaxPool(x)",
        "y = ReduceMean<axes=[2,3,4], keepdims=1>(x)",
        "y = ReduceMax<axes=[4,2,3], keepdims=1>(x)",
    ],
)
def test_all_places_of_a_volume(body: str) -> None:
    check_near(make("(float[N,4,5,7,6] x) => (float[N,4,1,1,1] y)", body), least_db=20)


def test_more_places_of_a_volume() -> None:
    body = 'c = ConvTranspose<strides=[2,2,2]>(x, w) y = Resize<mode="linear">(c, , scales)'
    constants = {"w": weights(4, 3, 2, 2, 2), "scales": np.float32([1, 1, 1, 2, 2])}
    check_near(
        make("(float[N,4,2,3,3] x) => (float[N,3,4,12,12] y)", body, **constants), least_db=25
    )


def test_a_network_of_volumes_runs_on_the_machine() -> None:
    model = make(
        "(float[N,2,6,9,8] x) => (float[N,10] y)",
        "c = Conv<pads=[1,1,1,1,1,1]>(x, w) r = Relu(c) "
        "p = MaxPool<kernel_shape=[2,2,2], strides=[2,2,2]>(r) d = Conv(p, v) "
        "g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, h)",
        w=weights(8, 2, 3, 3, 3),
        v=weights(12, 8, 2, 2, 2),
        h=weights(12, 10),
    )
    program = pimc.compile(model, calibration=random_feeds(model, 4, 0))
    assert program.verify(random_feeds(model, 3, 1))["equal"]
    assert "host " not in program.text()


def test_rows_of_nothing_but_padding_come_from_no_source() -> None:
    """Two tensors side by side, as a convolution of volumes joins them, and rows of zeros."""
    model = make(
        "(float[N,2,3,4] x, float[N,3,3,4] z) => (float[N,5,7,2] y)",
        "r = Relu(x) s = Abs(z) c = Concat<axis=1>(s, r) e = Slice(c, none, four, three, two) "
        "y = Pad(e, pads)",
        none=np.array([0]),
        two=np.array([2]),
        three=np.array([3]),
        four=np.array([4]),
        pads=np.array([0, 0, 2, 0, 0, 0, 2, 0]),
    )
    program = pimc.compile(model, calibration=random_feeds(model, 4, 0))
    assert program.verify(random_feeds(model, 3, 1))["equal"]


def test_volumes_that_meet_keep_channels_as_channels() -> None:
    """Else both would be turned around, for which a core needs all of them."""
    body = "c = Conv<pads=[1,1,1,1,1,1]>(x, w) d = Conv<pads=[1,1,1,1,1,1]>(c, w) y = Add(c, d)"
    model = make("(float[N,4,5,7,6] x) => (float[N,4,5,7,6] y)", body, w=weights(4, 4, 3, 3, 3))
    graph = check_near(model).graph
    (node,) = (node for node in graph.nodes if isinstance(node, BinaryNode))
    assert graph.values[node.output].shape == (35, 6, 4)
