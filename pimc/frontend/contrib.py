"""Contrib: operators of com.microsoft in ONNX's own, as onnxruntime's optimizers write them.

A fused operator says less than the operators that it was made of; written out again, each has
its place on the chip. What is not understood here stays as it is, and with it on the host.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from isa.diagnostics import Findings
from pimc.frontend.contrib_attention import ATTENTION
from pimc.frontend.contrib_layout import spell_layouts
from pimc.frontend.contrib_quantized import DYNAMIC, FEW_BITS, QUANTIZED, spell_dynamic
from pimc.frontend.narrow import narrow
from pimc.frontend.net import MICROSOFT
from pimc.frontend.spelling import TO_FIRST, TO_LAST, WINDOW, Speller, Spelling


def spell_contrib(model: ir.Model) -> Findings:
    """Write out what can be, in place; what a user has to know about it."""
    spell_layouts(model)
    counts = Counter({DYNAMIC: spell_dynamic(model)})
    for node in list(model.graph):
        speller = SPELLERS.get(node.op_type) if node.domain == MICROSOFT else None
        if speller is not None:
            spelling = Spelling(node)
            results = speller(spelling)
            if results is not None:
                spelling.replace(results)
                counts[spelling.note] += 1
    notes = Findings()
    if counts[DYNAMIC]:
        notes.warning(
            "F228",
            f"{counts[DYNAMIC]} layers find a new scale for every input at run time; on the chip "
            "their inputs have fixed scales, from the calibration",
            hint="their weights keep the model's integers; give samples with --calib FILE.npz",
        )
    narrowed = narrow(model)
    if narrowed:
        notes.warning(
            "F229",
            f"the model quantizes {narrowed} tensors to 16 bits; the chip holds them in 8, over "
            "the same range",
        )
    if counts[FEW_BITS]:
        notes.warning(
            "F224",
            f"the weights of {counts[FEW_BITS]} layers have a scale for each block of inputs, "
            "which no integer product can use; they are quantized again per output channel",
        )
    return notes


# ---------------------------------------------------------------------- products
def _fused_conv(write: Spelling) -> list[ir.Value | None] | None:
    return write.convolved(write.node.inputs[:3], write.input(3))


def _fused_gemm(write: Spelling) -> list[ir.Value | None] | None:
    attributes = write.attributes("alpha", "beta", "transA", "transB")
    result = write.op("Gemm", write.node.inputs, **attributes)
    names = ("activation_alpha", "activation_beta")
    parameters = list(write.attributes(*names).values())
    found = write.activated(result, write.attributes("activation")["activation"], parameters)
    return None if found is None else [found]


def _fused_matmul(write: Spelling) -> list[ir.Value | None] | None:
    """A product with either operand transposed, times a number."""
    if write.number("transBatchA") or write.number("transBatchB"):
        return None
    operands = []
    for position, flag in enumerate(("transA", "transB")):
        value = write.input(position)
        if value is not None and write.number(flag):
            value = write.swapped(value, flag)
        operands.append(value)
    if None in operands:
        return None
    alpha = write.number("alpha", 1.0)
    result = write.op("MatMul", operands)
    if alpha != 1:
        result = write.op("Mul", (result, write.constant("alpha", np.float32(alpha))), "alpha")
    return [result]


def _gelu(write: Spelling) -> list[ir.Value | None]:
    """Gelu, BiasGelu and FastGelu: with a bias where there is one, exact or by tanh."""
    source, bias = write.input(0), write.input(1)
    if bias is not None:
        source = write.op("Add", (source, bias), "bias")
    kind = "tanh" if write.node.op_type == "FastGelu" else "none"
    return [write.op("Gelu", (source,), approximate=kind)]


def _quick_gelu(write: Spelling) -> list[ir.Value | None]:
    source = write.input(0)
    alpha = write.constant("alpha", np.float32(write.number("alpha", 1.702)))
    gate = write.op("Sigmoid", (write.op("Mul", (source, alpha), "alpha"),), "gate")
    return [write.op("Mul", (source, gate))]


def _skip_layer_norm(write: Spelling) -> list[ir.Value | None] | None:
    """The normalized sum of two tensors and a bias; and that sum."""
    if write.has_output(1) or write.has_output(2):
        return None
    total = write.op("Add", (write.input(0), write.input(1)), "sum")
    if write.input(4) is not None:
        total = write.op("Add", (total, write.input(4)), "bias")
    epsilon = write.number("epsilon", 1e-12)
    operands = [value for value in (total, write.input(2), write.input(3)) if value is not None]
    normed = write.op("LayerNormalization", operands, axis=-1, epsilon=epsilon)
    return [normed, None, None, total if write.has_output(3) else None]


def _channels_last_pool(write: Spelling) -> list[ir.Value | None]:
    source = write.input(0)
    assert source is not None
    turned = write.turned(source, TO_FIRST, "channels")
    pooled = write.op("MaxPool", (turned,), **write.attributes(*WINDOW, "ceil_mode"))
    return [write.turned(pooled, TO_LAST, "places")]


SPELLERS: dict[str, Speller] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    **dict.fromkeys(("Gelu", "BiasGelu", "FastGelu"), _gelu),
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
    "NhwcMaxPool": _channels_last_pool,
    **ATTENTION,
    **QUANTIZED,
}
