"""Normalization over rows and columns: one node, exact, whatever words the model says it in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.near import check_near
from frontend.oracle import random_feeds

import pimc
from passes.graph import GroupNormNode, LayerNormNode, MoveNode
from pimc.frontend.build import Imported, import_model

IMAGE = "(float[N,6,5,4] x) => (float[N,6,5,4] y)"
GROUPED = (
    "g = Reshape(x, grouped) n = InstanceNormalization<epsilon=0.01>(g, ones, zeros) "
    "r = Reshape(n, whole) "
)
TAILS = {
    "alone": "y = Identity(r)",
    "gain": "y = Mul(r, gain)",
    "gain and offset": "m = Mul(gain, r) y = Add(m, offset)",
    "offset, then gain": "a = Add(offset, r) y = Mul(a, gain)",
    "followed by silu": "m = Mul(r, gain) a = Add(m, offset) s = Sigmoid(a) y = Mul(a, s)",
}


def _norm(imported: Imported) -> GroupNormNode:
    (node,) = (node for node in imported.graph.nodes if isinstance(node, GroupNormNode))
    return node


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 9), (1, 3, 3), (3, 2, 3, 4)])
def test_instances_of_any_rank_are_normalized_by_channel(shape: tuple[int, ...]) -> None:
    sizes = ",".join(str(size) for size in shape)
    model = make(
        f"(float[N,{sizes}] x) => (float[N,{sizes}] y)",
        "y = InstanceNormalization<epsilon=0.01>(x, gain, offset)",
        gain=1 + weights(shape[0]),
        offset=weights(shape[0], seed=1),
    )
    assert _norm(check_near(model)).groups == shape[0]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_of_channels_are_normalized_together(groups: int) -> None:
    model = make(
        IMAGE,
        f"y = GroupNormalization<num_groups={groups}>(x, gain, offset)",
        opset=21,
        ir=10,
        gain=1 + weights(6),
        offset=weights(6, seed=1),
    )
    assert _norm(check_near(model)).groups == groups


def _written_out(groups: int, tail: str) -> onnx.ModelProto:
    constants = {"gain": 1 + weights(6, 1, 1), "offset": weights(6, 1, 1, seed=1)}
    used = {name: values for name, values in constants.items() if name in TAILS[tail]}
    return make(
        IMAGE,
        GROUPED + TAILS[tail],
        grouped=np.array([0, groups, -1]),
        whole=np.array([-1, 6, 5, 4]),
        ones=np.ones(groups),
        zeros=np.zeros(groups),
        **used,
    )


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("groups", [1, 3])
def test_groups_that_torch_wrote_out_are_one_instruction(groups: int, tail: str) -> None:
    imported = check_near(_written_out(groups, tail))
    assert _norm(imported).groups == groups
    assert len(imported.graph.nodes) == 1 + tail.startswith("followed")


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_layer_normalization_over_trailing_axes_equals_the_reference(axis: int) -> None:
    shape = (6, 5, 4)[axis - 1 if axis > 0 else axis :]
    body = f"y = LayerNormalization<axis={axis}, epsilon=0.001>(x, g, b)"
    model = make(IMAGE, body, g=1 + weights(*shape), b=weights(*shape, seed=1))
    imported = check_near(model)
    wanted = LayerNormNode if axis == -1 else GroupNormNode
    assert any(isinstance(node, wanted) for node in imported.graph.nodes)


def test_a_gain_for_each_element_follows_the_rows() -> None:
    shape = (6, 5, 4)
    body = "h = Relu(x) c = Conv(h, w) y = LayerNormalization<axis=1>(c, g, b)"
    constants = {"g": 1 + weights(*shape), "b": weights(*shape, seed=1), "w": weights(6, 6, 1, 1)}
    imported = check_near(make(IMAGE, body, **constants))
    assert _norm(imported).gain.shape == (5, 4, 6)
    assert not any(isinstance(node, MoveNode) for node in imported.graph.nodes)


@pytest.mark.parametrize("axes", ["", "<axes=[2,3]>", "<axes=[3,2,1]>", "<axes=[0,3]>"])
def test_mean_and_variance_over_any_axes(axes: str) -> None:
    body = f"t = Transpose<perm=[1,0,2,3]>(x) y = MeanVarianceNormalization{axes}(t)"
    _norm(check_near(make("(float[N,2,5,4] x) => (float[2,N,5,4] y)", body), images=1))


def test_images_that_are_no_batch_are_normalized_each_for_itself() -> None:
    body = "t = Transpose<perm=[1,0,2,3]>(x) y = InstanceNormalization(t, gain, offset) "
    model = make(
        "(float[N,3,5,4] x) => (float[3,N,5,4] y)",
        body,
        gain=1 + weights(1),
        offset=weights(1, seed=1),
    )
    assert _norm(check_near(model, images=1)).groups == 3


def test_a_gain_that_is_computed_stays_on_the_host_and_the_reason_is_said() -> None:
    model = make(
        "(float[N,6,5,4] x, float[6] z) => (float[N,6,5,4] y)",
        "y = InstanceNormalization(x, z, z)",
    )
    feeds = {"x": weights(1, 6, 5, 4), "z": weights(6)}
    reasons = [stay.reason for stay in import_model(model, feeds).on_host]
    assert "its gain or offset is computed at run time" in reasons


PROGRAMS = {
    "instances of large images": (
        "(float[N,3,90,130] x) => (float[N,3,90,130] y)",
        "y = InstanceNormalization(x, gain, offset)",
        3,
    ),
    "groups of a convolution": (
        "(float[N,3,40,37] x) => (float[N,64,40,37] y)",
        "c = Conv<pads=[1,1,1,1]>(x, w) n = GroupNormalization<num_groups=8>(c, gain, offset) "
        "s = Sigmoid(n) y = Mul(n, s)",
        64,
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_maps_that_no_core_holds_are_normalized_on_the_chip(case: str) -> None:
    signature, body, channels = PROGRAMS[case]
    used = {"w": weights(64, 3, 3, 3)} if "Conv" in body else {}
    model = make(signature, body, opset=21, ir=10, gain=1 + weights(channels),
                 offset=weights(channels, seed=1), **used)  # fmt: skip
    program = pimc.compile(model, calibration=random_feeds(model, 1, 0))
    feeds = random_feeds(model, 2, 1)
    assert program.verify(feeds)["equal"]
    assert "host " not in program.text()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_a_tensor_over_its_norm(p: int, axis: int) -> None:
    check_near(make(IMAGE, f"y = LpNormalization<p={p}, axis={axis}>(x)"), least_db=25)


@pytest.mark.parametrize("axis", [1, -1])
def test_a_tensor_over_its_root_mean_square(axis: int) -> None:
    gain = 1 + weights(*(6, 5, 4)[0 if axis == 1 else 2 :])
    body = f"y = RMSNormalization<axis={axis}>(x, gain)"
    check_near(make(IMAGE, body, opset=23, ir=11, gain=gain), least_db=25)


def test_a_way_around_a_normalization_has_room_for_an_image_more() -> None:
    body = "c = Conv(x, w) n = InstanceNormalization(c, gain, offset) m = Conv(n, w) y = Add(m, c)"
    constants = {"gain": 1 + weights(6), "offset": weights(6, seed=1), "w": weights(6, 6, 1, 1)}
    model = make("(float[N,6,20,4] x) => (float[N,6,20,4] y)", body, **constants)
    program = pimc.compile(model, calibration=random_feeds(model, 1, 0)).program
    assert max(channel.depth for channel in program.channels) >= 2 * 20
