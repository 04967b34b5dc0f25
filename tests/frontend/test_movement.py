"""Data movement: chains of it become one index map, none at all, or a permutation of weights."""

from __future__ import annotations

import numpy as np
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model

from passes.graph import LutNode, MatrixNode, MoveNode, PoolNode

I64 = np.int64
IMAGE = "(float[N,4,6,8] x) => (float[N,C,H,W] y)"

# what stands between two convolutions of 4 channels -> does anything move on the machine?
CHAINS = {
    "channel shuffle": (
        "r = Reshape(t, split) s = Transpose<perm=[0,2,1,3,4]>(r) u = Reshape(s, joined)",
        {"split": np.array([0, 2, 2, 6, 8]), "joined": np.array([0, 4, 6, 8])},
        True,
    ),
    "slice": (
        "u = Slice(t, starts, ends, axes, steps)",
        {
            "starts": np.array([1, 7]), "ends": np.array([6, -9]), "axes": np.array([2, 3]),
            "steps": np.array([2, -1]),
        },
        True,
    ),
    "split and swap": (
        "a, b = Split<axis=1>(t, parts) u = Concat<axis=1>(b, a)",
        {"parts": np.array([1, 3])},
        True,
    ),
    "pad": ("u = Pad(t, pads)", {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0])}, False),
    "pad channels": ("u = Pad(t, pads)", {"pads": np.array([0, -1, 1, 2, 0, 1, 3, 0])}, True),
    "pad with a value": (
        "u = Pad(t, pads, value)",
        {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "value": np.float32(0.4)},
        True,
    ),
    "pad by reflection": (
        'u = Pad<mode="reflect">(t, pads)', {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 1])}, True
    ),
    "pad by the edge": (
        'u = Pad<mode="edge">(t, pads)', {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 1])}, True
    ),
    "transpose there and back": (
        "a = Transpose<perm=[0,2,3,1]>(t) u = Transpose<perm=[0,3,1,2]>(a)", {}, False
    ),
    "transposed images": ("u = Transpose<perm=[0,1,3,2]>(t)", {}, True),
    "gather channels": (
        "u = Gather<axis=1>(t, order)", {"order": np.array([3, 0, 0, 2])}, True
    ),
    "depth to space and back": (
        "a = DepthToSpace<blocksize=2>(t) u = SpaceToDepth<blocksize=2>(a)", {}, False
    ),
    "tile": ("u = Tile(t, times)", {"times": np.array([1, 1, 2, 1])}, True),
    "concat of one tensor twice": (
        "a, b = Split<axis=1>(t, parts) u = Concat<axis=1>(a, a)",
        {"parts": np.array([2, 2])}, True,
    ),
    "identity and dropout": ("a = Identity(t) u = Dropout(a)", {}, False),
    "flatten and unflatten": (
        "a = Flatten(t) u = Reshape(a, joined)", {"joined": np.array([-1, 4, 6, 8])}, False
    ),
    "squeeze and unsqueeze": (
        "a = Unsqueeze(t, axes) u = Squeeze(a, axes)", {"axes": np.array([2])}, False
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_of_movement_is_one_index_map(case: str) -> None:
    body, constants, moves = CHAINS[case]
    model = make(
        IMAGE,
        f"t = Conv(x, w) {body} y = Conv(u, v)",
        w=weights(4, 4, 1, 1),
        v=weights(3, 4, 1, 1),
        **{k: v.astype(I64) if v.dtype == np.int64 else v for k, v in constants.items()},
    )
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds == [MatrixNode, *([MoveNode] if moves else []), MatrixNode]


RESIZES = [
    (f'<mode="nearest", coordinate_transformation_mode="{mode}", nearest_mode="{rounding}">')
    for mode in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for rounding in ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
]


@pytest.mark.parametrize("attributes", RESIZES)
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_resize_nearest_in_all_coordinate_modes(attributes: str, by: str) -> None:
    call = f"Resize{attributes}(x, none, scales)" if by == "scales" else (
        f"Resize{attributes}(x, none, none, sizes)"
    )  # fmt: skip
    constants = {
        "none": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 1.5], np.float32),
        "sizes": np.array([1, 4, 9, 5]),
    }
    used = {name: value for name, value in constants.items() if name in (by, "none")}
    model = make(IMAGE, f"y = {call}", **used)
    assert [type(node) for node in check_model(model, images=1).graph.nodes] == [MoveNode]


def test_upsample_of_old_models() -> None:
    model = make(IMAGE, "y = Upsample<mode=\"nearest\">(x, scales)", opset=9, ir=4,
                 scales=np.array([1, 1, 2, 2], np.float32))  # fmt: skip
    assert [type(node) for node in check_model(model).graph.nodes] == [MoveNode]


@pytest.mark.parametrize(
    "flatten",
    [
        "f = Flatten(p)",
        "f = Reshape(p, shape)",
        "t = Transpose<perm=[0,2,3,1]>(p) f = Flatten(t)",
        "t = Transpose<perm=[0,3,1,2]>(p) f = Reshape(t, shape)",
    ],
)
def test_a_flattened_image_is_read_by_a_kernel_of_its_size(flatten: str) -> None:
    body = f"p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) {flatten} y = Gemm(f, w, b)"
    model = make(
        "(float[N,4,6,8] x) => (float[N,5] y)", body,
        w=weights(48, 5), b=weights(5), shape=np.array([-1, 48]),
    )  # fmt: skip
    pool, product = check_model(model).graph.nodes
    assert isinstance(pool, PoolNode)
    assert isinstance(product, MatrixNode)
    assert product.weights.shape == (5, 3, 4, 4)


def test_concat_requantizes_only_what_others_read_too() -> None:
    body = """a = Conv(x, w) b = Conv(x, v) c = Concat<axis=1>(a, b)
              d = Concat<axis=1>(c, x) y = Conv(d, u)"""
    model = make(IMAGE, body, w=weights(3, 4, 1, 1), v=weights(2, 4, 1, 1, scale=2.0),
                 u=weights(2, 9, 1, 1))  # fmt: skip
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds.count(LutNode) == 1  # the input, which has a scale of its own


def test_concat_with_a_constant_fills_it_in() -> None:
    body = "c = Concat<axis=1>(x, k) y = Conv(c, w)"
    model = make(
        "(float[1,4,6,8] x) => (float[1,C,H,W] y)", body,
        k=np.full((1, 2, 6, 8), 0.5, np.float32), w=weights(3, 6, 1, 1),
    )  # fmt: skip
    check_model(model, images=1)


def test_concat_with_many_constants() -> None:
    body = "c = Concat<axis=1>(x, k) y = MatMul(c, w)"
    model = make("(float[1,5,6] x) => (float[1,L,C] y)", body, k=weights(1, 2, 6), w=weights(6, 3))
    check_model(model, images=1)


def test_expand_copies_along_an_axis() -> None:
    body = "g = GlobalAveragePool(x) e = Expand(g, shape) y = Conv(e, w)"
    model = make(IMAGE, body, shape=np.array([1, 4, 6, 8]), w=weights(2, 4, 3, 3))
    check_model(model)


def test_rows_and_images_meet() -> None:
    """A convolution, then rows of channels (as in a transformer), then images again."""
    body = """c = Conv(x, w) f = Reshape(c, flat) t = Transpose<perm=[0,2,1]>(f)
              m = MatMul(t, u) a = Add(m, b) r = Relu(a) s = Transpose<perm=[0,2,1]>(r)
              i = Reshape(s, image) y = Conv(i, v)"""
    model = make(
        IMAGE, body, w=weights(5, 4, 1, 1), flat=np.array([0, 5, -1]), u=weights(5, 6),
        b=weights(6), image=np.array([0, 6, 6, 8]), v=weights(2, 6, 3, 3),
    )  # fmt: skip
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds == [MatrixNode, MoveNode, MatrixNode, MoveNode, MatrixNode] or (
        kinds == [MatrixNode] * 3
    )
