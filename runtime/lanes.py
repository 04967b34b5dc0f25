"""What a vector instruction does to each element: the steps of a lane, which are timed and priced.

A step is (event of the target, how often per written element). The lanes are pipelined over the
steps, so time goes by the slowest step and energy by all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isa.catalog import (
    Accumulate,
    Add,
    LayerNorm,
    Lookup,
    Lrn,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Requant,
    Softmax,
    Sub,
    SumPool,
)
from isa.instruction import Instruction
from runtime.core_view import CoreView

Steps = tuple[tuple[str, int], ...]

ADD, MULTIPLY = ("vector_add", 1), ("vector_multiply", 1)
DIVIDE, TABLE = ("vector_divide", 1), ("vector_table", 1)
_DEQUANTIZE = (ADD, MULTIPLY)  # subtract the zero point, multiply by the scale
_QUANTIZE = (DIVIDE, ADD)  # divide by the scale, round and add the zero point

_LANES: dict[type[Instruction], Callable[[Any], Steps]] = {
    Accumulate: lambda i: (ADD,),
    Requant: lambda i: (ADD, MULTIPLY, ADD),
    Lut: lambda i: (TABLE,),
    Lookup: lambda i: (TABLE,),
    Add: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, ADD, *_QUANTIZE),
    Sub: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, ADD, *_QUANTIZE),
    Max: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, ("pool_compare", 1), *_QUANTIZE),
    Min: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, ("pool_compare", 1), *_QUANTIZE),
    Mul: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, MULTIPLY, *_QUANTIZE),
    MaxPool: lambda i: (("pool_compare", _others(i)),),
    SumPool: lambda i: (("vector_add", _others(i)),),
    # the largest element and the distance to it, the power (a table), the sum, the quotient
    Softmax: lambda i: (("pool_compare", 1), ADD, TABLE, ADD, DIVIDE, *_QUANTIZE),
    # the sum, the square and its sum; the distance, the quotient, gain and offset
    LayerNorm: lambda i: (ADD, MULTIPLY, ADD, MULTIPLY, ADD, DIVIDE, MULTIPLY, ADD, *_QUANTIZE),
    # the squares of the neighbours, their sum, its root (a table), and the quotient
    Lrn: lambda i: (
        *_DEQUANTIZE,
        MULTIPLY,
        ("vector_add", i.size),
        MULTIPLY,
        ADD,
        TABLE,
        DIVIDE,
        *_QUANTIZE,
    ),
}


VECTOR_CLASSES = (*_LANES, MatMul)


def lane_steps(view: CoreView, i: Instruction) -> Steps:
    """The steps of one instruction per written element."""
    if isinstance(i, MatMul):
        terms = view.shape(i.a)[2]
        return (("vector_multiply", terms), ("vector_add", terms), MULTIPLY, ADD)
    return _LANES[type(i)](i)


def _others(i: MaxPool | SumPool) -> int:
    """Operations that reduce a window to one element; a window of one still passes the lane."""
    return max(1, i.kernel[0] * i.kernel[1] - 1)
