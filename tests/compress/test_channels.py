"""Channel surgery: exact on constant channels, whatever the padding, and in step on branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes.channel_prune import ChannelPrune
from pimc.compress.channels import prune_channels, remove_constant_channels
from pimc.compress.coupling import channel_sets
from pimc.compress.layers import find_layers
from pimc.compress.runner import Runner

Array = np.ndarray[Any, Any]


class Net:
    """A small model under construction; chosen filters are all zero, numbers are small integers,
    so that float32 computes without rounding and equality can be demanded.
    """

    def __init__(self, seed: int, channels: int = 3, size: tuple[int, int] = (9, 11)) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.channels, self.size = {"image": channels}, size

    def integers(self, *shape: int) -> Array:
        return self.rng.integers(-3, 4, shape).astype(np.float32)

    def constant(self, name: str, values: Array) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        source: str,
        name: str,
        outputs: int,
        dead: tuple[int, ...] = (),
        kernel: int = 3,
        bias: bool = True,
        depthwise: bool = False,
        **attributes: Any,
    ) -> str:
        per_group = 1 if depthwise else self.channels[source]
        weights = self.integers(outputs, per_group, kernel, kernel)
        weights[list(dead)] = 0.0
        inputs = [source, self.constant(f"{name}_w", weights)]
        if bias:
            inputs.append(self.constant(f"{name}_b", np.abs(self.integers(outputs)) + 1))
        group = outputs if depthwise else 1
        return self.node("Conv", inputs, name, outputs, group=group, **attributes)

    def node(self, kind: str, inputs: list[str], name: str, channels: int = 0, **more: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **more))
        self.channels[name] = channels or self.channels[inputs[0]]
        return name

    def model(self, output: str) -> onnx.ModelProto:
        shape = ["n", self.channels["image"], *self.size]
        ports = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
            for name, dims in (("image", shape), (output, None))
        ]
        graph = helper.make_graph(self.nodes, "net", ports[:1], ports[1:], self.constants)
        opsets = [helper.make_opsetid("", 17)]
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8)
        )

    def images(self, count: int = 3) -> dict[str, Array]:
        shape = (count, self.channels["image"], *self.size)
        return {"image": self.integers(*shape)}


def run(model: onnx.ModelProto, data: dict[str, Array]) -> Array:
    onnx.checker.check_model(model)
    name = model.graph.output[0].name
    return Runner(model, [name]).all(data)[name]


PADDINGS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [2, 0, 1, 3]},
    {"pads": [0, 1, 2, 0], "strides": [2, 1]},
    {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"auto_pad": "VALID"},
]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_removing_constant_channels_is_exact_with_any_padding(
    padding: dict[str, Any], bias: bool
) -> None:
    net = Net(1)
    hidden = net.node("Relu", [net.conv("image", "a", 6, dead=(1, 4), pads=[1, 1, 1, 1])], "r")
    model = net.model(net.conv(hidden, "b", 5, bias=bias, **padding))
    data = net.images()
    done = remove_constant_channels(model, data)
    assert done.removed == 2
    assert [layer.shape[:2] for layer in find_layers(done.model)] == [(4, 3), (5, 4)]
    assert np.array_equal(run(done.model, data), run(model, data))


def test_no_correction_is_added_where_the_constant_is_zero() -> None:
    net = Net(2)
    hidden = net.node("Relu", [net.conv("image", "a", 6, dead=(0,), bias=False)], "r")
    model = net.model(net.conv(hidden, "b", 5, pads=[1, 1, 1, 1]))
    done = remove_constant_channels(model, net.images())
    assert [node.op_type for node in done.model.graph.node] == ["Conv", "Relu", "Conv"]


def test_constants_behind_a_flattening_are_folded_exactly() -> None:
    net = Net(3)
    pooled = net.node(
        "MaxPool", [net.conv("image", "a", 4, dead=(2,))], "p", kernel_shape=[3, 3], strides=[2, 2]
    )
    flat = net.node("Flatten", [pooled], "f", 4 * 3 * 4)
    weights = net.integers(48, 7)
    model = net.model(net.node("Gemm", [flat, net.constant("g_w", weights)], "g", 7))
    data = net.images()
    done = remove_constant_channels(model, data)
    assert done.removed == 1
    assert np.array_equal(run(done.model, data), run(model, data))


def test_a_chain_of_constants_is_removed_exactly() -> None:
    net = Net(4)
    one = net.node("Relu", [net.conv("image", "a", 6, dead=(1,), pads=[1, 0, 1, 2])], "r1")
    two = net.node("Relu", [net.conv(one, "b", 8, dead=(0, 7), pads=[0, 1, 1, 1])], "r2")
    model = net.model(net.conv(two, "c", 3, pads=[1, 1, 1, 1]))
    data = net.images()
    done = remove_constant_channels(model, data)
    assert done.removed == 3
    assert np.array_equal(run(done.model, data), run(model, data))


def test_a_residual_addition_needs_the_channel_dead_in_all_branches() -> None:
    net = Net(5)
    trunk = net.node("Relu", [net.conv("image", "a", 6, dead=(1, 2), pads=[1, 1, 1, 1])], "r")
    inner = net.node("Relu", [net.conv(trunk, "b", 4, pads=[1, 1, 1, 1])], "r2")
    branch = net.conv(inner, "c", 6, dead=(2, 5), pads=[1, 1, 1, 1])
    joined = net.node("Add", [branch, trunk], "sum")
    model = net.model(net.conv(joined, "d", 3, pads=[1, 1, 1, 1]))
    data = net.images()
    done = remove_constant_channels(model, data)
    assert done.removed == 1  # channel 2 alone
    assert np.array_equal(run(done.model, data), run(model, data))


def test_a_padded_pool_makes_a_channel_vary_and_so_it_stays() -> None:
    net = Net(6)
    pooled = net.node(
        "AveragePool",
        [net.conv("image", "a", 4, dead=(2,))],
        "p",
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        count_include_pad=1,
    )
    model = net.model(net.conv(pooled, "b", 3))
    assert remove_constant_channels(model, net.images()).removed == 0


def test_pruned_branches_keep_the_same_channels_and_the_model_runs() -> None:
    net = Net(7)
    trunk = net.node("Relu", [net.conv("image", "a", 8, pads=[1, 1, 1, 1])], "r")
    depthwise = net.conv(trunk, "dw", 8, depthwise=True, pads=[1, 1, 1, 1])
    branch = net.conv(depthwise, "c", 8, pads=[1, 1, 1, 1])
    joined = net.node("Add", [branch, trunk], "sum")
    model = net.model(net.conv(joined, "d", 3))
    done = prune_channels(model, ChannelPrune(keep=0.5))
    assert [layer.shape[:2] for layer in find_layers(done.model)] == [
        (4, 3),
        (4, 1),
        (4, 4),
        (3, 4),
    ]
    assert np.array_equal(done.kept["a"], done.kept["c"])
    assert np.array_equal(done.kept["a"], done.kept["dw"])
    data = net.images()
    assert run(done.model, data).shape == run(model, data).shape


def test_what_an_output_or_an_unknown_operator_sees_is_never_cut() -> None:
    net = Net(8)
    joined = net.node(
        "Concat", [net.conv("image", "a", 4), net.conv("image", "b", 4)], "cat", 8, axis=1
    )
    assert channel_sets(net.model(net.conv(joined, "c", 5))) == []
