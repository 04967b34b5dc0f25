"""Random layers: extreme integers, zero points, saturation, any attributes; exact all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from frontend.makers import make
from frontend.oracle import check_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from isa.diagnostics import PimError
from passes.graph import MatrixNode
from pimc.frontend.build import FrontendOptions

F = np.float32
seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 3)


def draw_integers(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Integers that are often the smallest or the largest of their type."""
    info = np.iinfo(dtype)
    values = random.integers(info.min, info.max, shape, dtype, endpoint=True)
    extreme = random.choice(np.array([info.min, info.max], dtype), shape)
    return np.where(random.random(shape) < 0.4, extreme, values)


@given(
    seeds, st.sampled_from(["int8", "uint8"]), st.integers(1, 3), small, small, st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_quantized_convolutions(
    seed: int, dtype: str, groups: int, kernel: int, stride: int, per_channel: bool, bias: bool
) -> None:
    random = np.random.default_rng(seed)
    per_group, per_output = random.integers(1, 5, 2)
    channels, outputs = groups * per_group, groups * per_output
    dilation, pads = random.integers(1, 3), random.integers(0, 3, 4)
    size = int(dilation * (kernel - 1) + 1 + random.integers(0, 6))
    kind = np.dtype(dtype).type
    scales = (outputs,) if per_channel else ()
    constants: dict[str, Any] = {
        "xs": F(random.uniform(0.01, 0.1)), "xz": kind(draw_integers(random, (), dtype)),
        "w": draw_integers(random, (outputs, per_group, kernel, kernel), "int8"),
        "ws": np.asarray(random.uniform(0.001, 0.1, scales), F), "wz": np.zeros(scales, np.int8),
        "ys": F(random.choice([0.01, 0.2, 5.0])), "yz": kind(draw_integers(random, (), dtype)),
    }  # fmt: skip
    if bias:
        constants["b"] = random.integers(-(2**20), 2**20, outputs).astype(np.int32)
    attributes = (
        f"<group={groups}, strides=[{stride},{stride}], dilations=[{dilation},{dilation}], "
        f"pads=[{','.join(map(str, pads))}]>"
    )
    call = f"y = QLinearConv{attributes}(x, xs, xz, w, ws, wz, ys, yz{', b' if bias else ''})"
    signature = f"({dtype}[N,{channels},{size},{size + 1}] x) => ({dtype}[N,C,H,W] y)"
    found = check_model(make(signature, call, **constants), seed=seed % 1000)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    assert np.array_equal(node.weights, constants["w"].transpose(0, 2, 3, 1))


@given(seeds, st.integers(1, 40), st.integers(1, 12), st.sampled_from(["int8", "uint8"]))
def test_quantized_products(seed: int, inputs: int, outputs: int, dtype: str) -> None:
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype).type
    zero = kind(draw_integers(random, (), dtype))
    constants: dict[str, Any] = {
        "xs": F(0.02), "xz": kind(draw_integers(random, (), dtype)),
        "w": draw_integers(random, (inputs, outputs), dtype),
        "ws": F(random.uniform(0.001, 0.1)), "wz": zero,
        "b": random.integers(-5000, 5000, outputs).astype(np.int32),
        "ys": F(random.choice([0.01, 0.2, 5.0])), "yz": kind(draw_integers(random, (), dtype)),
    }  # fmt: skip
    call = "y = com.microsoft.QGemm(x, xs, xz, w, ws, wz, b, ys, yz)"
    signature = f"({dtype}[N,{inputs}] x) => ({dtype}[N,{outputs}] y)"
    found = check_model(make(signature, call, **constants), seed=seed % 1000)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    centred = constants["w"].astype(int) - int(zero)
    assert np.array_equal(node.weights.reshape(outputs, inputs).T, centred)


@given(seeds, st.booleans(), st.sampled_from(["Relu", "Sigmoid", "Identity", "HardSwish"]))
def test_float_convolutions(seed: int, per_channel: bool, activation: str) -> None:
    random = np.random.default_rng(seed)
    channels, outputs, kernel, size = (int(n) for n in random.integers(1, 5, 4))
    scale = float(10.0 ** random.integers(-3, 3))
    weights = random.normal(0, scale, (outputs, channels, kernel, kernel)).astype(F)
    model = make(
        f"(float[N,{channels},{size + kernel},{size + kernel}] x) => (float[N,C,H,W] y)",
        f"c = Conv(x, w, b) y = {activation}(c)",
        w=weights, b=random.normal(0, scale, outputs).astype(F),
    )  # fmt: skip
    options = FrontendOptions(per_channel=per_channel)
    check_model(model, seed=seed % 1000, options=options)


@given(
    seeds, st.sampled_from(["MaxPool", "AveragePool"]), st.integers(1, 4), st.integers(1, 4),
    small, st.booleans(), st.booleans(),
)  # fmt: skip
def test_pools(
    seed: int, op: str, rows: int, columns: int, stride: int, ceil: bool, counts_padding: bool
) -> None:
    random = np.random.default_rng(seed)
    pads = [int(random.integers(0, n)) for n in (rows, columns, rows, columns)]
    extra = f", count_include_pad={int(counts_padding)}" if op == "AveragePool" else ""
    attributes = (
        f"<kernel_shape=[{rows},{columns}], strides=[{stride},{stride}], ceil_mode={int(ceil)}, "
        f"pads=[{','.join(map(str, pads))}]{extra}>"
    )
    height, width = (int(n) for n in random.integers(4, 9, 2))
    model = make(
        f"(float[N,3,{height},{width}] x) => (float[N,3,H,W] y)", f"y = {op}{attributes}(x)"
    )
    refusal = None
    try:
        check_model(model, seed=seed % 1000)
    except PimError as error:
        refusal = error.diagnostics[0].message
    if refusal is not None:  # the one form that has no explicit pads
        assert "starts in padding that counts" in refusal
        assert (op, ceil, counts_padding) == ("AveragePool", True, True)


MOVES = (
    "Transpose<perm=[0,2,1,3]>({0})",
    "Transpose<perm=[0,3,2,1]>({0})",
    "Slice({0}, zero, two, one)",
    "Slice({0}, last, front, two, back)",
    "Concat<axis=2>({0}, {0})",
    "Concat<axis=3>({0}, {0})",
    "Pad({0}, pads)",
    "Gather<axis=3>({0}, picks)",
)


@given(seeds, st.lists(st.sampled_from(MOVES), min_size=1, max_size=5))
def test_chains_of_movement(seed: int, moves: list[str]) -> None:
    names = ["x", *(f"t{at}" for at in range(len(moves)))]
    steps = [f"{names[at + 1]} = {move.format(names[at])}" for at, move in enumerate(moves)]
    body = " ".join([*steps, f"s = Sigmoid({names[-1]}) y = Identity(s)"])
    vectors = {"one": [1], "two": [2], "zero": [0], "last": [-1], "front": [-9], "back": [-1]}
    model = make(
        "(float[N,4,3,4] x) => (float[N,A,B,C] y)", body,
        pads=np.array([0, 0, 1, 0, 0, 1, 0, 0]), picks=np.array([1, 0, 0, 1]),
        **{name: np.array(value) for name, value in vectors.items()},
    )  # fmt: skip
    check_model(model, seed=seed % 1000)


def test_the_oracle_sees_a_single_wrong_step() -> None:
    """A test of the tests: one weight off by one must not go unnoticed."""
    from dataclasses import replace

    from frontend.oracle import differences, random_feeds

    from passes.graph import Graph
    from pimc.frontend.build import Imported

    model: onnx.ModelProto = make(
        "(float[N,4] x) => (float[N,2] y)", "y = MatMul(x, w)", w=np.eye(4, 2)
    )
    feeds = random_feeds(model, 200, 0)
    found = check_model(model, feeds=feeds)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    changed = node.weights.copy()
    changed[0, 0, 0, 3] += 1
    graph = found.graph
    wrong = Graph(graph.inputs, graph.outputs, (replace(node, weights=changed),), graph.values)
    mutated = Imported(wrong, found.reference, found.float_model)
    assert differences(mutated, feeds)["y"].count > 0
