"""Operators that are written as others: exact on the grid, and near the float model."""

from __future__ import annotations

import numpy as np
import pytest
from frontend.makers import make, weights
from frontend.near import check_near
from frontend.oracle import check_model, random_feeds, run_onnx
from frontend.test_operators import assert_near

from passes.graph import HostNode, MatrixNode
from pimc.frontend.build import import_model


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 2), (8, 8)])
def test_linear_interpolation_by_whole_factors_is_a_convolution(
    mode: str, factors: tuple[int, int]
) -> None:
    attributes = f'<mode="linear", coordinate_transformation_mode="{mode}">'
    sizes = np.array([1, 3, 5 * factors[0], 4 * factors[1]])
    body = f"y = Resize{attributes}(x, , , sizes)"
    model = make("(float[1,3,5,4] x) => (float[1,3,H,W] y)", body, sizes=sizes)
    imported = check_near(model, images=1)
    assert any(isinstance(node, MatrixNode) for node in imported.graph.nodes)


def test_linear_interpolation_of_sequences_and_by_scales() -> None:
    body = 'y = Resize<mode="linear">(x, , scales)'
    scales = np.array([1, 1, 2], np.float32)
    check_near(make("(float[N,3,7] x) => (float[N,3,14] y)", body, scales=scales))


def test_linear_interpolation_of_single_elements_copies_them() -> None:
    body = 'y = Resize<mode="linear">(x, , , sizes)'
    model = make("(float[1,3,1,1] x) => (float[1,3,9,7] y)", body, sizes=np.array([1, 3, 9, 7]))
    imported = check_near(model, images=1)
    assert not any(isinstance(node, MatrixNode) for node in imported.graph.nodes)


@pytest.mark.parametrize(
    "attributes",
    [
        '<mode="linear", coordinate_transformation_mode="align_corners">',
        '<mode="cubic">',
        '<mode="linear", antialias=1>',
    ],
)
def test_other_interpolations_stay_on_the_host(attributes: str) -> None:
    body = f"y = Resize{attributes}(x, , , sizes)"
    model = make(
        "(float[1,3,5,4] x) => (float[1,3,10,8] y)", body, opset=18, sizes=np.array([1, 3, 10, 8])
    )
    imported = import_model(model, random_feeds(model, 3, 0))
    assert any(isinstance(node, HostNode) for node in imported.graph.nodes)


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2", "ReduceSumSquare"])
@pytest.mark.parametrize(("axes", "keeps"), [([-1], 1), ([1, 2], 0), ([2], 0)])
def test_norms_are_reductions(norm: str, axes: list[int], keeps: int) -> None:
    body = f"y = {norm}<keepdims={keeps}>(x, axes)"
    signature = "(float[N,5,4,6] x) => (float[N,A,B,C] y)"
    if not keeps:
        signature = f"(float[N,5,4,6] x) => (float[{','.join('NABC'[: 4 - len(axes)])}] y)"
    check_near(make(signature, body, opset=18, axes=np.array(axes)), least_db=25)


@pytest.mark.parametrize("lead", [(), (1,), (1, 1)])
def test_a_constant_in_front_of_a_product_is_weights(lead: tuple[int, ...]) -> None:
    model = make(
        "(float[N,3,6,5] x) => (float[N,3,7,5] y)", "y = MatMul(a, x)", a=weights(*lead, 7, 6)
    )
    imported = check_near(model)
    assert any(isinstance(node, MatrixNode) for node in imported.graph.nodes)


EINSUMS = {
    "a layer": ("nsi,io->nso", (6, 4)),
    "a layer whose weights come first": ("io,nsi->nso", (6, 4)),
    "weights turned": ("nsi,oi->nso", (4, 6)),
    "heads out of a layer": ("nsi,ihd->nhsd", (6, 2, 3)),
    "heads into a layer": ("nsi,ido->nsdo", (6, 2, 3)),
    "scores": ("nqc,nkc->nqk", None),
    "scores with dots": ("...qc,...kc->...qk", None),
    "context": ("nqk,nkc->nqc", "square"),
    "sums of rows": ("nsi,ij->nj", (6, 3)),
    "without a result": ("nsi,io", (6, 4)),
}


@pytest.mark.parametrize("case", EINSUMS)
def test_a_sum_of_products_over_letters_is_one_product(case: str) -> None:
    equation, second = EINSUMS[case]
    shape = "5,5" if second == "square" else "5,6"
    result = equation.partition("->")[2].replace("...", "n") or "nos"
    axes = ",".join(c.upper() for c in result)
    names = "w, x" if "first" in case else "x, w"
    constants = {"w": weights(*second, scale=1)} if isinstance(second, tuple) else {}
    port = "" if constants else f", float[N,{'5,6' if second is None else '5,5'}] w"
    signature = f"(float[N,{shape}] x{port}) => (float[{axes}] y)"
    model = make(signature, f'y = Einsum<equation="{equation}">({names})', **constants)
    imported = check_model(model)
    assert not imported.on_host
    assert_near(model, imported)


@pytest.mark.parametrize("equation", ["nsi->nis", "nsi->ns", "nsi->in"])
def test_letters_of_one_tensor_are_turned_and_summed(equation: str) -> None:
    axes = ",".join(c.upper() for c in equation[5:])
    model = make(f"(float[1,5,6] x) => (float[{axes}] y)", f'y = Einsum<equation="{equation}">(x)')
    feeds = random_feeds(model, 1, 0)
    imported = check_model(model, feeds=feeds)
    wanted = run_onnx(model, feeds)["y"]
    noise = run_onnx(imported.reference, feeds)["y"] - wanted
    assert np.square(noise).mean() < 1e-3 * np.square(wanted).mean()
