"""Functions of one tensor are one table, arithmetic on two is one node; each equals onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model

from passes.graph import BinaryNode, LutNode, MatrixNode, MoveNode, PoolNode

IMAGE = "(float[N,4,9,7] x) => (float[N,C,H,W] y)"

UNARY = {
    "Relu": "Relu(x)",
    "LeakyRelu": "LeakyRelu<alpha=0.1>(x)",
    "PRelu": "PRelu(x, channel)",
    "Clip": "Clip(x, low, high)",
    "Clip without upper limit": "Clip(x, low)",
    "Sigmoid": "Sigmoid(x)",
    "HardSigmoid": "HardSigmoid<alpha=0.3>(x)",
    "HardSwish": "HardSwish(x)",
    "Tanh": "Tanh(x)",
    "Erf": "Erf(x)",
    "Exp": "Exp(x)",
    "Elu": "Elu(x)",
    "Softplus": "Softplus(x)",
    "BatchNormalization": "BatchNormalization(x, positive, channels, channels, positive)",
    "scalar": "Mul(x, low)",
    "per channel": "Div(x, positive3)",
    "constant first": "Sub(low, x)",
}


@pytest.mark.parametrize("case", UNARY)
def test_functions_of_one_tensor_become_one_table(case: str) -> None:
    model = make(
        "(float[N,4,5,3] x) => (float[N,4,5,3] y)",
        f"y = {UNARY[case]}",
        channel=weights(4, 1, 1),
        channels=weights(4),
        positive=np.abs(weights(4)) + np.float32(0.5),
        positive3=np.abs(weights(4, 1, 1)) + np.float32(0.5),
        low=np.float32(-0.7),
        high=np.float32(1.1),
    )
    imported = check_model(model)
    (node,) = imported.graph.nodes if imported.graph.nodes else (None,)
    if node is None or isinstance(node, MoveNode):
        assert case in (
            "Relu",
            "Clip",
            "Clip without upper limit",
        )  # the input's saturation does it
    else:
        assert isinstance(node, LutNode)
        is_per_channel = case in ("PRelu", "BatchNormalization", "per channel")
        assert node.table.shape == ((4, 256) if is_per_channel else (256,))


REGIONS = {
    "swish": "s = Sigmoid(x) y = Mul(x, s)",
    "hard swish": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
    "gelu by Erf": ("d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)"),
    "mish": "p = Softplus(x) t = Tanh(p) y = Mul(x, t)",
    "norm and activation": "m = Mul(x, channel) a = Add(m, channel) y = LeakyRelu(a)",
    "power": "p = Pow(x, two) a = Add(p, one) y = Sqrt(a)",
}


@pytest.mark.parametrize("case", REGIONS)
def test_elementwise_regions_become_one_table(case: str) -> None:
    scalars = {"three": 3, "zero": 0, "six": 6, "root": 2**0.5, "one": 1, "half": 0.5, "two": 2}
    model = make(
        "(float[N,4,5,3] x) => (float[N,4,5,3] y)",
        REGIONS[case],
        channel=weights(4, 1, 1),
        **{name: np.float32(value) for name, value in scalars.items()},
    )
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [LutNode]


def test_relu_behind_a_layer_vanishes_into_its_saturation() -> None:
    model = make(
        IMAGE,
        "c = Conv(x, w) r = Relu(c) p = MaxPool<kernel_shape=[2,2]>(r) d = Conv(p, v) "
        "y = Clip(d, zero, six)",
        w=weights(6, 4, 3, 3),
        v=weights(5, 6, 1, 1),
        zero=np.float32(0),
        six=np.float32(6),
    )
    imported = check_model(model)
    kinds = [type(node) for node in imported.graph.nodes]
    assert kinds == [MatrixNode, PoolNode, MatrixNode]
    assert all(imported.graph.values[n].zero == -128 for n in ("y",))


def test_a_clamp_that_saturation_cannot_do_stays_a_table() -> None:
    body = "c = Conv(x, w) y = Clip(c, low, high)"
    model = make(IMAGE, body, w=weights(6, 4, 3, 3), low=np.float32(0.25), high=np.float32(1.0))
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds == [MatrixNode, LutNode]


BINARIES = {
    "add": ("Add(x, z)", "4,5,3"),
    "sub": ("Sub(x, z)", "4,5,3"),
    "mul": ("Mul(x, z)", "4,5,3"),
    "channel gate": ("Mul(x, z)", "4,1,1"),
    "channel gate first": ("Mul(z, x)", "4,1,1"),
    "place gate": ("Mul(x, z)", "1,5,3"),
    "scalar of each image": ("Add(x, z)", "1,1,1"),
    "subtract from a vector": ("Sub(z, x)", "4,1,1"),
    "one row": ("Add(x, z)", "1,1,3"),
    "rows and channels": ("Add(x, z)", "4,5,1"),
}


@pytest.mark.parametrize("case", BINARIES)
def test_two_tensors_equal_onnxruntime(case: str) -> None:
    call, shape = BINARIES[case]
    model = make(f"(float[N,4,5,3] x, float[N,{shape}] z) => (float[N,4,5,3] y)", f"y = {call}")
    imported = check_model(model)
    assert isinstance(imported.graph.nodes[-1], BinaryNode)


@pytest.mark.parametrize("call", [
    "Add(x, k)", "Add(k, x)", "Sub(x, k)", "Sub(k, x)", "Mul(x, k)", "Mul(k, x)", "Div(x, k)",
])  # fmt: skip
@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 3), (1, 4, 1, 3)])
def test_a_full_constant_is_the_second_operand(call: str, shape: tuple[int, ...]) -> None:
    signature = "(float[N,4,5,3] x) => (float[N,4,5,3] y)"
    constant = weights(*shape)
    constant = constant + np.sign(constant) * np.float32(0.2)
    imported = check_model(make(signature, f"y = {call}", k=constant))
    assert isinstance(imported.graph.nodes[-1], BinaryNode)
    assert imported.graph.nodes[-1].constant is not None


def test_sum_of_many_is_a_chain_of_additions() -> None:
    model = make(
        "(float[N,4,5,3] x, float[N,4,5,3] z) => (float[N,4,5,3] y)", "y = Sum(x, z, x, z)"
    )
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds == [BinaryNode] * 3
