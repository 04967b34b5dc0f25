"""What a vector instruction does to each element: the steps of a lane, which are timed and priced.

A step is (event of the target, how often per element). The lanes are pipelined over the
steps, so time goes by the slowest step and energy by all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isa.catalog import (
    Accumulate,
    Add,
    Div,
    Lookup,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Pow,
    Requant,
    Select,
    Sub,
    SumPool,
)
from isa.catalog_float import (
    Convert,
    Erf,
    Exp,
    FloatLayerNorm,
    FloatSoftmax,
    Log,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceSum,
    Reduction,
    Sqrt,
    Tanh,
)
from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Lrn, Moments, Softmax
from isa.instruction import Instruction
from runtime.core_view import CoreView

Steps = tuple[tuple[str, int], ...]

ADD, MULTIPLY = ("vector_add", 1), ("vector_multiply", 1)
DIVIDE, TABLE = ("vector_divide", 1), ("vector_table", 1)
_DEQUANTIZE = (ADD, MULTIPLY)  # subtract the zero point, multiply by the scale
_QUANTIZE = (DIVIDE, ADD)  # divide by the scale, round and add the zero point
_COMPARE = ("pool_compare", 1)

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
    Div: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, DIVIDE, *_QUANTIZE),
    # the power of a logarithm: two tables and a product
    Pow: lambda i: (*_DEQUANTIZE, *_DEQUANTIZE, TABLE, MULTIPLY, TABLE, *_QUANTIZE),
    Select: lambda i: (("pool_compare", 1), *_DEQUANTIZE, *_QUANTIZE),
    MaxPool: lambda i: (("pool_compare", _others(i)),),
    SumPool: lambda i: (("vector_add", _others(i)),),
    # the largest element and the distance to it, the power (a table), the sum, the quotient
    Softmax: lambda i: (("pool_compare", 1), ADD, TABLE, ADD, DIVIDE, *_QUANTIZE),
    # the same up to the sum, whose logarithm (a table) is taken away from the distance
    LogSoftmax: lambda i: (("pool_compare", 1), ADD, TABLE, ADD, MULTIPLY, TABLE, ADD, *_QUANTIZE),
    # the sum, the square and its sum; the distance, the quotient, gain and offset
    LayerNorm: lambda i: (ADD, MULTIPLY, ADD, MULTIPLY, ADD, DIVIDE, MULTIPLY, ADD, *_QUANTIZE),
    # the sum, the square and its sum
    Moments: lambda i: (ADD, MULTIPLY, ADD),
    # the distance, the quotient, gain and offset
    GroupNorm: lambda i: (MULTIPLY, ADD, DIVIDE, MULTIPLY, ADD, *_QUANTIZE),
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
    Convert: lambda i: (*_DEQUANTIZE, *_QUANTIZE),
    **dict.fromkeys((Exp, Log, Sqrt, Tanh, Erf), lambda i: (*_DEQUANTIZE, TABLE, *_QUANTIZE)),
    # the largest element and the distance to it, the power (a table), the sum, the quotient
    FloatSoftmax: lambda i: (*_DEQUANTIZE, _COMPARE, ADD, TABLE, ADD, DIVIDE, *_QUANTIZE),
    # the sum and the distance, the square and its sum, the quotient, gain and offset
    FloatLayerNorm: lambda i: (
        *_DEQUANTIZE, ADD, ADD, MULTIPLY, ADD, DIVIDE, MULTIPLY, ADD, *_QUANTIZE,
    ),
}  # fmt: skip
_REDUCTIONS: dict[type[Instruction], Steps] = {  # what each channel of the source takes
    ReduceSum: (ADD,),
    ReduceMean: (ADD,),
    ReduceMax: (_COMPARE,),
    ReduceMin: (_COMPARE,),
}


VECTOR_CLASSES = (*_LANES, MatMul, *_REDUCTIONS)


def lane_steps(view: CoreView, i: Instruction) -> Steps:
    """The steps of one instruction per element that it works on."""
    if isinstance(i, MatMul):
        terms = view.shape(i.a)[2]
        return (("vector_multiply", terms), ("vector_add", terms), MULTIPLY, ADD)
    if isinstance(i, Reduction):
        channels = view.shape(i.source)[2]
        each = (*_DEQUANTIZE, *_REDUCTIONS[type(i)])
        return (*((name, channels * count) for name, count in each), DIVIDE, *_QUANTIZE)
    return _LANES[type(i)](i)


def lane_elements(view: CoreView, i: Instruction) -> int:
    """Elements that pass the lanes: those written, and those read by sums over all of them."""
    if isinstance(i, Moments):
        return view.elements(i.source)
    (into,) = i.written_regions()
    return view.elements(into)


def _others(i: MaxPool | SumPool) -> int:
    """Operations that reduce a window to one element; a window of one still passes the lane."""
    return max(1, i.kernel[0] * i.kernel[1] - 1)
