"""Every operator of a float model: each node of the Graph equals onnxruntime on the reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model, random_feeds, run_onnx

from passes.graph import (
    LayerNormNode,
    LookupNode,
    MatrixNode,
    PoolNode,
    ProductNode,
    SoftmaxNode,
)
from pimc.frontend.build import Imported

IMAGE = "(float[N,4,9,7] x) => (float[N,C,H,W] y)"
ROWS = "(float[N,5,6] x) => (float[N,A,B] y)"

CONVOLUTIONS = {
    "1x1": ("", (6, 4, 1, 1)),
    "3x3 same": ("<pads=[1,1,1,1]>", (6, 4, 3, 3)),
    "5x5": ("<pads=[2,2,2,2]>", (6, 4, 5, 5)),
    "7x7": ("<pads=[3,3,3,3]>", (6, 4, 7, 7)),
    "1x3": ("", (6, 4, 1, 3)),
    "3x1": ("", (6, 4, 3, 1)),
    "groups": ("<group=2, pads=[1,1,1,1]>", (6, 2, 3, 3)),
    "depthwise": ("<group=4>", (4, 1, 3, 3)),
    "depthwise with multiplier": ("<group=4>", (8, 1, 3, 3)),
    "dilation 2": ("<dilations=[2,2], pads=[1,2,3,0]>", (6, 4, 3, 3)),
    "stride (2,1)": ("<strides=[2,1], pads=[1,1,1,1]>", (6, 4, 3, 3)),
    "asymmetric pads": ("<pads=[2,0,1,3]>", (6, 4, 3, 3)),
    "SAME_UPPER": ('<auto_pad="SAME_UPPER", strides=[2,2]>', (6, 4, 4, 4)),
    "SAME_LOWER": ('<auto_pad="SAME_LOWER", strides=[2,2]>', (6, 4, 4, 4)),
    "VALID": ('<auto_pad="VALID", strides=[2,2]>', (6, 4, 3, 3)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_convolutions_equal_onnxruntime(case: str, per_channel: bool) -> None:
    from pimc.frontend.build import FrontendOptions

    attributes, shape = CONVOLUTIONS[case]
    model = make(IMAGE, f"y = Conv{attributes}(x, w, b)", w=weights(*shape), b=weights(shape[0]))
    imported = check_model(model, options=FrontendOptions(per_channel=per_channel))
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]


@pytest.mark.parametrize(
    "attributes", ["", "<strides=[2], pads=[2,1]>", "<dilations=[3], group=2>", "<group=4>"]
)
def test_one_dimensional_convolutions_become_rows(attributes: str) -> None:
    per_group = {"group=2": 2, "group=4": 1}.get(attributes[-8:-1], 4)
    model = make(
        "(float[N,4,20] x) => (float[N,C,L] y)",
        f"h = Conv{attributes}(x, w) y = Relu(h)",
        w=weights(8, per_group, 3),
    )
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]
    assert imported.graph.values["x"].shape == (1, 20, 4)


GEMMS = {
    "plain": ("h = Gemm(x, w, b)", (6, 5), (5,)),
    "transB": ("h = Gemm<transB=1>(x, w, b)", (5, 6), (5,)),
    "no bias": ("h = Gemm(x, w)", (6, 5), None),
    "alpha and beta": ("h = Gemm<alpha=0.5, beta=2.0>(x, w, b)", (6, 5), (5,)),
    "scalar bias": ("h = Gemm(x, w, b)", (6, 5), ()),
    "bias with an axis": ("h = Gemm(x, w, b)", (6, 5), (1, 5)),
    "matmul": ("h = MatMul(x, w)", (6, 5), None),
    "matmul and add": ("m = MatMul(x, w) h = Add(m, b)", (6, 5), (5,)),
}


@pytest.mark.parametrize("case", GEMMS)
@pytest.mark.parametrize("activation", ["y = Relu(h)", "y = Identity(h)"])
def test_products_equal_onnxruntime(case: str, activation: str) -> None:
    body, shape, bias = GEMMS[case]
    constants = {"w": weights(*shape)} | ({} if bias is None else {"b": weights(*bias, seed=1)})
    model = make("(float[N,6] x) => (float[N,5] y)", f"{body} {activation}", **constants)
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]


@pytest.mark.parametrize("lead", ["5", "3,5", "2,3,5"])
@pytest.mark.parametrize("bias", [True, False])
def test_matmul_takes_any_number_of_rows(lead: str, bias: bool) -> None:
    body = "m = MatMul(x, w) y = Add(m, b)" if bias else "y = MatMul(x, w)"
    constants = {"w": weights(6, 4)} | ({"b": weights(4)} if bias else {})
    axes = ",".join("ABC"[: lead.count(",") + 1])
    model = make(f"(float[N,{lead},6] x) => (float[N,{axes},4] y)", body, **constants)
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]


def test_one_number_of_an_image_picks_one_row() -> None:
    model = make("(int64[N] x) => (float[N,4] y)", "e = Gather(t, x) y = MatMul(e, w)",
                 t=weights(9, 6), w=weights(6, 4))  # fmt: skip
    assert not check_model(model, feeds={"x": np.array([7, 0, 8])}).on_host


SEVERAL = {
    "experts that share their input": ("float[N,1,6,8] x", "MatMul(x, w)", (5, 8, 4)),
    "experts on inputs of their own": ("float[N,5,6,8] x", "MatMul(x, w)", (5, 8, 4)),
    "experts without an axis in the input": ("float[1,6,8] x", "MatMul(x, w)", (5, 1, 8, 4)),
    "heads of constant queries": ("float[N,5,8,6] x", "MatMul(w, x)", (1, 5, 3, 8)),
    "queries that all heads share": ("float[N,5,8,6] x", "MatMul(w, x)", (3, 8)),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_constants_of_several_matrices_are_a_layer_each(case: str) -> None:
    port, call, shape = SEVERAL[case]
    model = make(f"({port}) => (float[A,B,C,D] y)", f"y = {call}", w=weights(*shape))
    imported = check_model(model, images=1)
    matrices = [node for node in imported.graph.nodes if isinstance(node, MatrixNode)]
    assert len(matrices) == (5 if len(shape) > 2 else 1)
    assert not imported.on_host


POOLS = {
    "max": "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)",
    "max padded": "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
    "max ceil": "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
    "max dilated": "y = MaxPool<kernel_shape=[2,2], dilations=[2,3]>(x)",
    "max same": 'y = MaxPool<kernel_shape=[3,3], auto_pad="SAME_UPPER", strides=[2,2]>(x)',
    "average": "y = AveragePool<kernel_shape=[3,3]>(x)",
    "average padded": "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
    "average counts padding":
        "y = AveragePool<kernel_shape=[3,3], pads=[1,2,1,0], count_include_pad=1>(x)",
    "average ceil": "y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
    "average ceil, counts padding":
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,0,0], "
        "count_include_pad=1>(x)",
    "average larger than its input": "y = AveragePool<kernel_shape=[40,40], ceil_mode=1, "
        "strides=[40,40], count_include_pad=1>(x)",
    "max larger than its input":
        "y = MaxPool<kernel_shape=[40,3], strides=[40,2], ceil_mode=1>(x)",
    "average same": 'y = AveragePool<kernel_shape=[2,3], auto_pad="SAME_LOWER", strides=[2,2]>(x)',
    "global average": "y = GlobalAveragePool(x)",
    "global max": "y = GlobalMaxPool(x)",
    "mean": "y = ReduceMean<axes=[2,3]>(x)",
    "mean, negative axes": "y = ReduceMean<axes=[-1,-2]>(x)",
}  # fmt: skip


@pytest.mark.parametrize("case", POOLS)
def test_pools_equal_onnxruntime(case: str) -> None:
    imported = check_model(make(IMAGE, POOLS[case]))
    assert [type(node) for node in imported.graph.nodes] == [PoolNode]


@pytest.mark.parametrize("case", [name for name in POOLS if name.startswith("average")])
def test_averages_divide_by_what_onnxruntime_divides_by(case: str) -> None:
    """The reference may round, but it must be the float model's average."""
    model = make(IMAGE, POOLS[case])
    feeds = random_feeds(model, 3, 0)
    imported = check_model(model, feeds=feeds)
    real, held = run_onnx(model, feeds)["y"], run_onnx(imported.reference, feeds)["y"]
    x, y = imported.graph.values["x"].scale, imported.graph.values["y"].scale
    assert x is not None
    assert y is not None
    assert np.abs(real - held).max() <= 1.01 * (x + y) / 2  # half a step each is rounded away


@pytest.mark.parametrize("case", ["GlobalAveragePool(c)", "ReduceMean<axes=[2,3],keepdims=0>(c)"])
def test_averages_may_be_far_smaller_than_the_steps_of_what_they_average(case: str) -> None:
    """As those of a normalized tensor: onnxruntime's global average takes no such factor."""
    image = np.array([[[[1, -1], [-1, 1.000001]]]] * 2, np.float32)
    model = make("(float[N,1,2,2] x) => (float[N,A,B,C] y)",
                 f"c = Mul(x, hundred) y = {case}", hundred=np.float32(100))  # fmt: skip
    del model.graph.output[0].type.tensor_type.shape.dim[2 if "keep" in case else 4 :]
    check_model(model, feeds={"x": image})


def test_reductions_without_kept_axes() -> None:
    for op in ("ReduceMean", "ReduceMax"):
        body = f"h = {op}<axes=[2,3], keepdims=0>(x) y = MatMul(h, w)"
        model = make("(float[N,4,5,5] x) => (float[N,3] y)", body, w=weights(4, 3))
        imported = check_model(model)
        assert [type(node) for node in imported.graph.nodes] == [PoolNode, MatrixNode]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_softmax_over_any_axis_equals_the_reference(axis: int) -> None:
    signature = "(float[N,4,5,3] x) => (float[N,4,5,3] y)"
    imported = check_model(make(signature, f"y = Softmax<axis={axis}>(x)"))
    assert any(isinstance(node, SoftmaxNode) for node in imported.graph.nodes)


@pytest.mark.parametrize(("spread", "steps"), [(0.1, 256 / 2), (30.0, 256)])
def test_the_steps_of_a_softmax_follow_the_size_of_its_elements(spread: float, steps: int) -> None:
    """1,024 elements that share a row evenly are no zeros; where one takes all, 1 is the limit."""
    model = make("(float[N,1024] x) => (float[N,1024] y)", "y = Softmax(x)")
    feeds = {"x": weights(3, 1024, scale=spread)}
    scale = check_model(model, feeds=feeds).graph.values["y"].scale
    assert scale is not None
    assert scale * steps == pytest.approx(run_onnx(model, feeds)["y"].max(), rel=0.01)


def test_local_response_normalization_within_one_step() -> None:
    body = "y = LRN<size=3, alpha=0.3, beta=0.6, bias=1.5>(x)"
    check_model(make("(float[N,6,5,3] x) => (float[N,6,5,3] y)", body), tolerance=1)


def test_squeeze_and_excitation() -> None:
    body = """
        c = Conv(x, w) h = HardSwish(c) g = GlobalAveragePool(h) a = Conv(g, u, s)
        r = Relu(a) e = Conv(r, v) k = HardSigmoid(e) m = Mul(h, k) y = Conv(m, p)"""
    model = make(
        IMAGE, body, w=weights(8, 4, 3, 3), u=weights(2, 8, 1, 1), s=weights(2),
        v=weights(8, 2, 1, 1), p=weights(3, 8, 1, 1),
    )  # fmt: skip
    check_model(model)


def test_batch_normalization_folds_into_the_layer_in_front() -> None:
    body = "c = Conv(x, w, b) n = BatchNormalization(c, s, o, m, v) y = Relu(n)"
    model = make(
        IMAGE, body, w=weights(6, 4, 3, 3), b=weights(6), s=weights(6, seed=1),
        o=weights(6, seed=2), m=weights(6, seed=3), v=np.abs(weights(6, seed=4)),
    )  # fmt: skip
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]


@pytest.mark.parametrize(
    ("product", "signature", "shape"),
    [
        ("Conv(x, w)", IMAGE, (6, 4, 3, 3)),
        ("MatMul(x, w)", ROWS, (6, 4)),
        ("Gemm(x, w)", "(float[N,6] x) => (float[N,4] y)", (6, 4)),
    ],
)
def test_scalings_of_output_channels_fold_into_weights(
    product: str, signature: str, shape: tuple[int, ...]
) -> None:
    outputs = shape[0] if len(shape) == 4 else shape[1]
    per_channel = (outputs, 1, 1) if len(shape) == 4 else (outputs,)
    body = f"c = {product} m = Mul(c, k) a = Add(m, k) s = Sub(one, a) y = Div(s, two)"
    model = make(
        signature, body, w=weights(*shape), k=weights(*per_channel), one=np.float32(1),
        two=np.float32(2),
    )  # fmt: skip
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [MatrixNode]


def test_normalizing_a_vanishing_input_leaves_the_offset() -> None:
    body = "s = Mul(x, little) y = LayerNormalization(s, gain, offset)"
    constants = {"gain": 1 + weights(6), "offset": weights(6, seed=1)}
    model = make("(float[N,5,6] x) => (float[N,5,6] y)", body, little=1e-33, **constants)
    (node,) = (n for n in check_model(model).graph.nodes if isinstance(n, LayerNormNode))
    assert np.isfinite(node.epsilon)


def test_a_normalized_constant_row_is_its_offset() -> None:
    constants = {"g": weights(8), "b": weights(8)}
    body = "y = LayerNormalization(x, g, b)"
    model = make("(float[N,3,8] x) => (float[N,3,8] y)", body, **constants)
    check_model(model, feeds={"x": np.full((2, 3, 8), 0.7, np.float32)})


PRODUCTS = {
    "two axes": ("(float[N,5,7] x, float[N,7,4] z) => (float[N,5,4] y)", "y = MatMul(x, z)"),
    "heads": ("(float[N,2,5,7] x, float[N,2,7,4] z) => (float[N,2,5,4] y)", "y = MatMul(x, z)"),
    "square": ("(float[N,3,6,6] x, float[N,3,6,6] z) => (float[N,3,6,6] y)", "y = MatMul(x, z)"),
    "itself": ("(float[N,3,6,6] x) => (float[N,3,6,6] y)", "y = MatMul(x, x)"),
    "transposed": (
        "(float[N,2,5,7] x) => (float[N,2,5,5] y)",
        "t = Transpose<perm=[0,1,3,2]>(x) y = MatMul(x, t)",
    ),
    "scaled": (
        "(float[N,2,5,7] x, float[N,2,7,4] z) => (float[N,2,5,4] y)",
        "m = MatMul(x, z) y = Mul(m, half)",
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products_of_two_tensors_equal_the_reference(case: str) -> None:
    signature, body = PRODUCTS[case]
    model = make(signature, body, half=np.float32(0.5))
    imported = check_model(model)
    assert any(isinstance(node, ProductNode) for node in imported.graph.nodes)
    assert_near(model, imported)


def assert_near(model: onnx.ModelProto, imported: Imported, share: float = 1e-3) -> None:
    """The reference may round, but it must mean what the float model means.

    share: of the power of the result that the error may have.
    """
    feeds = random_feeds(model, 3, 0)
    real, held = run_onnx(model, feeds)["y"], run_onnx(imported.reference, feeds)["y"]
    error, power = np.square(real - held).mean(), np.square(real).mean()
    assert error < share * power


TRANSPOSED = {
    "2x2 stride 2": ("<strides=[2,2]>", (4, 5, 2, 2)),
    "3x3 stride 2 padded": ("<strides=[2,2], pads=[1,1,1,1]>", (4, 5, 3, 3)),
    "output padding": ("<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>", (4, 5, 3, 3)),
    "stride 1": ("<pads=[1,0,1,2]>", (4, 5, 3, 3)),
    "stride (3,1)": ("<strides=[3,1]>", (4, 5, 2, 4)),
    "more stride than kernel": ("<strides=[3,2]>", (4, 5, 1, 1)),
    "dilated": ("<strides=[2,1], dilations=[2,3]>", (4, 5, 2, 2)),
    "groups": ("<group=2, strides=[2,2]>", (4, 3, 3, 2)),
    "depthwise": ("<group=4, strides=[2,2], pads=[1,1,1,1]>", (4, 1, 4, 4)),
    "SAME_UPPER": ('<auto_pad="SAME_UPPER", strides=[2,2]>', (4, 5, 3, 3)),
    "SAME_LOWER": ('<auto_pad="SAME_LOWER", strides=[2,2]>', (4, 5, 4, 4)),
    "output shape": ("<strides=[2,2], output_shape=[19,15]>", (4, 5, 3, 3)),
    "much cut off": ("<pads=[4,4,4,3]>", (4, 5, 5, 5)),
}


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions_equal_the_reference(case: str, bias: bool) -> None:
    attributes, shape = TRANSPOSED[case]
    constants = {"w": weights(*shape)}
    names = "x, w"
    if bias:
        group = 2 if case == "groups" else 4 if case == "depthwise" else 1
        constants["b"], names = weights(shape[1] * group), "x, w, b"
    model = make(IMAGE, f"y = ConvTranspose{attributes}({names})", **constants)
    imported = check_model(model)
    assert any(isinstance(node, MatrixNode) for node in imported.graph.nodes)
    assert_near(model, imported)


def test_a_transposed_convolution_along_one_axis_equals_the_reference() -> None:
    body = "y = ConvTranspose<strides=[4], pads=[2,1]>(x, w)"
    model = make("(float[N,4,9] x) => (float[N,C,L] y)", body, w=weights(4, 3, 7))
    assert_near(model, check_model(model))


REDUCTIONS = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1], [2], [3], [1, 3], [1, 2, 3], [-1, -2]])
@pytest.mark.parametrize("keeps", [0, 1])
def test_reductions_over_any_axes_equal_the_reference(op: str, axes: list[int], keeps: int) -> None:
    rank = 4 if keeps else 4 - len(axes)
    shape = ",".join(["N", *"ABC"][:rank])
    body = f"y = {op}<keepdims={keeps}>(x, axes)"
    constants = {"axes": np.array(axes, np.int64)}
    model = make(f"(float[N,4,9,7] x) => (float[{shape}] y)", body, opset=21, ir=10, **constants)
    assert_near(model, check_model(model), share=3e-3)


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_the_larger_and_the_smaller_of_tensors_equal_the_reference(op: str) -> None:
    body = f"a = AveragePool<kernel_shape=[1,1]>(x) s = Sigmoid(x) y = {op}(a, s, x)"
    model = make("(float[N,4,9,7] x) => (float[N,4,9,7] y)", body)
    assert_near(model, check_model(model))


@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_an_embedding_picks_rows_by_numbers(kind: str) -> None:
    constants = {"table": weights(11, 6), "w": weights(6, 4)}
    body = "e = Gather(table, t) y = MatMul(e, w)"
    model = make(f"({kind}[N,5] t) => (float[N,5,4] y)", body, **constants)
    numbers = np.random.default_rng(0).integers(-11, 11, (3, 5)).astype(kind)
    imported = check_model(model, feeds={"t": numbers})
    assert [type(node) for node in imported.graph.nodes] == [LookupNode, MatrixNode]


def test_numbers_that_an_exporter_flattened_to_the_same_shape_pick_rows() -> None:
    constants = {"table": weights(11, 6), "w": weights(6, 4), "flat": np.array([-1, 5])}
    body = "u = Reshape(t, flat) e = Gather(table, u) y = MatMul(e, w)"
    model = make("(int64[N,5] t) => (float[N,5,4] y)", body, **constants)
    numbers = np.random.default_rng(0).integers(0, 11, (3, 5))
    imported = check_model(model, feeds={"t": numbers})
    assert [type(node) for node in imported.graph.nodes] == [LookupNode, MatrixNode]
    assert imported.on_host == ()
