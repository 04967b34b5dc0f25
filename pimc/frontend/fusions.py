"""Fusions: operators that exporters write out, read back as the one operator they are.

Older operator sets have no LayerNormalization, and onnxruntime writes out what it has no kernel
for. Then each step would be rounded to 8 bits, a variance or an exponential among them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern
from onnxscript.rewriter.pattern import MatchResult
from onnxscript.rewriter.rules import common


class _LayerNorm(pattern.RewriteRuleClassBase):  # type: ignore[misc]
    """(x - mean) / sqrt(mean of squares + epsilon) over the last axes becomes one operator.

    divides: by the root, or multiplies by its reciprocal.
    """

    def __init__(self, divides: bool) -> None:
        super().__init__(f"layer_norm_{'division' if divides else 'reciprocal'}")
        self.divides = divides

    def pattern(self, op: Any, x: Any, axes: Any, axes_too: Any, two: Any, epsilon: Any) -> Any:
        deviation = op.Sub(x, op.ReduceMean(x, axes, _outputs=["mean"]))
        square = pattern.OrValue([op.Mul(deviation, deviation), op.Pow(deviation, two)])
        variance = op.ReduceMean(square, axes_too, _outputs=["variance"])
        deviation_of_all = op.Sqrt(op.Add(variance, epsilon))
        if self.divides:
            return op.Div(deviation, deviation_of_all)
        return op.Mul(deviation, op.Reciprocal(deviation_of_all))

    def check(self, context: Any, x: ir.Value, axes: ir.Value, axes_too: ir.Value,
              epsilon: ir.Value, mean: ir.Value, variance: ir.Value,
              two: ir.Value | None = None, **_: Any) -> MatchResult:  # fmt: skip
        result = MatchResult()
        if x.shape is None or not x.shape.is_static():
            return result.fail("its shape is not known", x)
        rank = len(x.shape)
        numbers = [_integers(value) for value in (axes, axes_too)]
        if numbers[0] is None or numbers[1] is None:
            return result.fail("its axes are computed", axes)
        over, too = ({axis % rank for axis in line} for line in numbers if line is not None)
        if not over or over != too or over != set(range(min(over), rank)) or 0 in over:
            return result.fail("it is not over the last axes", axes)
        if two is not None and _number(two) != 2:
            return result.fail("it is no square", two)
        if _number(epsilon) is None:
            return result.fail("its epsilon is computed", epsilon)
        for value in (mean, variance):
            node = value.producer()
            if node is None or node.attributes.get_int("keepdims", 1) != 1:
                return result.fail("its mean loses axes", value)
        return result

    def rewrite(
        self, op: Any, x: ir.Value, axes: ir.Value, epsilon: ir.Value, **_: Any
    ) -> ir.Value:
        assert x.shape is not None
        rank = len(x.shape)
        first = min(axis % rank for axis in _integers(axes) or ())
        ones = np.ones(x.shape.numpy()[first:], np.float32)
        gain = op.initializer(ir.tensor(ones), name=f"{x.name}_unit_gain")
        normed: ir.Value = op.LayerNormalization(x, gain, axis=first, epsilon=_number(epsilon))
        return normed


class _Gain(pattern.RewriteRuleClassBase):  # type: ignore[misc]
    """A constant factor per normalized element becomes the gain."""

    def pattern(self, op: Any, x: Any, gain: Any, factor: Any) -> Any:
        return op.Mul(op.LayerNormalization(x, gain, _outputs=["normed"]), factor)

    def check(
        self, context: Any, gain: ir.Value, factor: ir.Value, normed: ir.Value, **_: Any
    ) -> MatchResult:
        return _fits(gain, factor, normed)

    def rewrite(
        self, op: Any, x: ir.Value, gain: ir.Value, factor: ir.Value, normed: ir.Value, **_: Any
    ) -> ir.Value:
        product = _array(gain) * _as(factor, gain)
        name = op.initializer(ir.tensor(product), name=f"{normed.name}_gain")
        scaled: ir.Value = op.LayerNormalization(x, name, **_attributes(normed))
        return scaled


class _Offset(pattern.RewriteRuleClassBase):  # type: ignore[misc]
    """A constant added per normalized element becomes the offset."""

    def pattern(self, op: Any, x: Any, gain: Any, term: Any) -> Any:
        return op.Add(op.LayerNormalization(x, gain, _outputs=["normed"]), term)

    def check(
        self, context: Any, gain: ir.Value, term: ir.Value, normed: ir.Value, **_: Any
    ) -> MatchResult:
        return _fits(gain, term, normed)

    def rewrite(
        self, op: Any, x: ir.Value, gain: ir.Value, term: ir.Value, normed: ir.Value, **_: Any
    ) -> ir.Value:
        name = op.initializer(ir.tensor(_as(term, gain)), name=f"{normed.name}_offset")
        moved: ir.Value = op.LayerNormalization(x, gain, name, **_attributes(normed))
        return moved


class _Softmax(pattern.RewriteRuleClassBase):  # type: ignore[misc]
    """exp(x) over its sum along one axis becomes one operator.

    is_shifted: the maximum is taken off first, which changes no share.
    """

    def __init__(self, is_shifted: bool) -> None:
        super().__init__(f"softmax_{'shifted' if is_shifted else 'plain'}")
        self.is_shifted = is_shifted

    def pattern(self, op: Any, x: Any, axes: Any, axes_too: Any) -> Any:
        shifted = op.Sub(x, op.ReduceMax(x, axes, _outputs=["top"])) if self.is_shifted else x
        powers = op.Exp(shifted)
        return op.Div(powers, op.ReduceSum(powers, axes_too, _outputs=["total"]))

    def check(self, context: Any, x: ir.Value, axes_too: ir.Value, total: ir.Value,
              axes: ir.Value | None = None, top: ir.Value | None = None,
              **_: Any) -> MatchResult:  # fmt: skip
        result = MatchResult()
        if x.shape is None:
            return result.fail("its rank is not known", x)
        over = _one_axis(axes_too, len(x.shape))
        if over is None or (axes is not None and _one_axis(axes, len(x.shape)) != over):
            return result.fail("it is not over one axis", axes_too)
        for value in (total, top):
            node = None if value is None else value.producer()
            if node is not None and node.attributes.get_int("keepdims", 1) != 1:
                return result.fail("its reduction loses the axis", value)
        return result

    def rewrite(self, op: Any, x: ir.Value, axes_too: ir.Value, **_: Any) -> ir.Value:
        assert x.shape is not None
        shares: ir.Value = op.Softmax(x, axis=_one_axis(axes_too, len(x.shape)))
        return shares


RULES: Final = pattern.RewriteRuleSet(
    [
        *(_LayerNorm.rule(divides) for divides in (True, False)),
        _Gain.rule(),
        _Offset.rule(),
        *(_Softmax.rule(is_shifted) for is_shifted in (True, False)),
    ],
    commute=True,
)


# onnxscript's own, without those that take x + 1e-12 for x: epsilons are as small
EXACT: Final = (
    common.two_reshapes_matmul_reshape_rule,
    common.one_reshape_matmul_reshape_rule,
    common.cast_constant_of_shape_rule,
    common.cast_constant_of_shape_without_value_rule,
    common.collapse_slice_rule,
    common.collapse_slice2_rule,
    common.materialize_reshape_shape_rule,
    common.min_min_rule,
    common.max_max_rule,
    common.min_max_rule,
    common.max_min_rule,
    common.successive_clip_relu_rule,
    common.successive_relu_clip_rule,
    common.successive_relu_rule,
    common.successive_clip_rule,
    common.cast_cast_rule,
    common.no_op_cast_rule,
    common.no_op_expand_rule,
    common.flatten_to_reshape_rule,
    common.reshape_reshape_rule,
    common.slice_split_rule,
    common.no_op_transpose_rule,
    common.transpose_transpose_rule,
    common.unsqueeze_unsqueeze_rule,
    common.squeeze_reshape_1d_rule,
    common.no_op_dynamic_scatter_nd_rule,
    common.no_op_static_scatter_nd_rule,
    common.normalize_pad_format_conv_rule,
    common.normalize_pad_format_conv_integer_rule,
    common.fuse_pad_into_conv_rule,
    common.fuse_pad_into_conv_integer_rule,
    common.fuse_batchnorm_into_conv_rule,
    common.fuse_batchnorm_into_conv_transpose_rule,
    common.fuse_batchnorm_into_gemm_rule,
    common.remove_optional_bias_from_conv_rule,
    common.remove_optional_bias_from_conv_transpose_rule,
    common.remove_optional_bias_from_qlinear_conv_rule,
    common.remove_optional_bias_from_gemm_rule,
)


def _array(value: ir.Value) -> np.ndarray[Any, Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _integers(value: ir.Value) -> list[int] | None:
    if value.const_value is None:
        return None
    return [int(number) for number in _array(value).reshape(-1)]


def _one_axis(value: ir.Value, rank: int) -> int | None:
    axes = _integers(value) or []
    return axes[0] % rank if len(axes) == 1 else None


def _number(value: ir.Value) -> float | None:
    if value.const_value is None or value.const_value.size != 1:
        return None
    return float(_array(value).reshape(()))


def _fits(gain: ir.Value, other: ir.Value, normed: ir.Value) -> MatchResult:
    """Whether a constant varies along the normalized axes alone."""
    result = MatchResult()
    if gain.const_value is None or other.const_value is None:
        return result.fail("it is computed", other)
    sizes, wanted = tuple(_array(other).shape), tuple(_array(gain).shape)
    lead = sizes[: max(len(sizes) - len(wanted), 0)]
    rank = len(normed.shape) if normed.shape is not None else 0
    if any(size != 1 for size in lead) or len(sizes) > rank:
        return result.fail("it varies along other axes", other)
    return result


def _as(value: ir.Value, gain: ir.Value) -> np.ndarray[Any, Any]:
    """A constant in the shape of the gain."""
    array, shape = _array(value), tuple(_array(gain).shape)
    return np.ascontiguousarray(
        np.broadcast_to(array.reshape(array.shape[max(array.ndim - len(shape), 0) :]), shape)
    )


def _attributes(normed: ir.Value) -> dict[str, Any]:
    node = normed.producer()
    assert node is not None
    return {
        "axis": node.attributes.get_int("axis", -1),
        "epsilon": node.attributes.get_float("epsilon", 1e-5),
    }
