"""The instructions on float32 rows: functions of one element, reductions, normalizations.

Each computes in f64 from the real values of its operands and rounds once, to f32. So it gives the
same f32 whoever computes it, but for the rare case that two f64 libraries lie on two sides of the
middle between two f32 numbers (docs/decisions/0018).
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.instruction import Instruction, TableRef
from isa.operands import Region


@dataclass(frozen=True)
class Real(Instruction):
    """Base: real values in, a real value out; either side may be held in 8 or 32 bits.

    An operand of an integer type means ``x = f32(source - zero_a) * scale_a`` in f32, one of type
    f32 is its own real value, with scale 1 and zero 0. A result ``y`` becomes
    ``sat(rint(y / scale) + zero)`` in an integer type and stays as it is in f32.
    """

    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    scale_a: float = 1.0
    zero_a: int = 0
    scale: float = 1.0
    zero: int = 0


class Function(Real):
    """Base of the functions of one element."""


class Reduction(Real):
    """Base of the reductions over the channels: ``into`` has one channel."""


@dataclass(frozen=True)
class Convert(Function):
    """``y = x``: from f32 to integers and back, or integers in another scale.

    An operand of an integer type means ``x = f32(source - zero_a) * scale_a``, one of type f32 is
    its own real value, with scale 1 and zero 0. A result becomes ``sat(rint(y / scale) + zero)``
    in an integer type, the smallest integer where it is no number, and stays as it is in f32. So
    it is with all instructions that have these operands.
    """

    mnemonic = "convert"


@dataclass(frozen=True)
class Exp(Function):
    """``y = f32(exp(x))``, the power of e in f64; operands as of ``convert``."""

    mnemonic = "exp"


@dataclass(frozen=True)
class Log(Function):
    """``y = f32(log(x))``, the natural logarithm in f64; operands as of ``convert``."""

    mnemonic = "log"


@dataclass(frozen=True)
class Sqrt(Function):
    """``y = f32(sqrt(x))``; operands as of ``convert``."""

    mnemonic = "sqrt"


@dataclass(frozen=True)
class Tanh(Function):
    """``y = f32(tanh(x))``, in f64; operands as of ``convert``."""

    mnemonic = "tanh"


@dataclass(frozen=True)
class Erf(Function):
    """``y = f32(sign(x) * (1 - exp(-x * x) * p(1 / (1 + 0.3275911 * abs(x)))))``, in f64.

    ``p(t) = 0.254829592 t - 0.284496736 t^2 + 1.421413741 t^3 - 1.453152027 t^4 + 1.061405429 t^5``
    (Abramowitz and Stegun, 7.1.26): off by 1.5e-7 at most. Operands as of ``convert``.
    """

    mnemonic = "erf"


@dataclass(frozen=True)
class ReduceSum(Reduction):
    """``y[w, 0] = f32(sum over c of x[w, c])`` in f64, from the first channel to the last."""

    mnemonic = "reducesum"


@dataclass(frozen=True)
class ReduceMean(Reduction):
    """``y[w, 0] = f32((sum over c of x[w, c]) / C)`` in f64, C the channels of the source."""

    mnemonic = "reducemean"


@dataclass(frozen=True)
class ReduceMax(Reduction):
    """``y[w, 0] = max over c of x[w, c]``; what is no number wins."""

    mnemonic = "reducemax"


@dataclass(frozen=True)
class ReduceMin(Reduction):
    """``y[w, 0] = min over c of x[w, c]``; what is no number wins."""

    mnemonic = "reducemin"


@dataclass(frozen=True)
class FloatSoftmax(Real):
    """``y[w, c] = f32(e[c] / sum(e))``, ``e[c] = exp(x[w, c] - max over c of x[w, c])`` in f64.

    The sum goes from the first channel to the last; operands as of ``convert``.
    """

    mnemonic = "fsoftmax"


@dataclass(frozen=True)
class FloatLayerNorm(Instruction):
    """``y[w, c] = f32(d[c] / sqrt(sum(d * d) / C + epsilon) * gain[c] + offset[c])`` in f64.

    ``d[c] = x[w, c] - sum(x) / C`` over the C channels, all sums from the first channel to the
    last. gain, offset: f32 tables [C]; other operands as of ``convert``.
    """

    mnemonic = "flayernorm"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    gain: TableRef
    offset: TableRef
    epsilon: float = 1e-5
    scale_a: float = 1.0
    zero_a: int = 0
    scale: float = 1.0
    zero: int = 0


FUNCTIONS: tuple[type[Function], ...] = (Convert, Exp, Log, Sqrt, Tanh, Erf)
REDUCTIONS: tuple[type[Reduction], ...] = (ReduceSum, ReduceMean, ReduceMax, ReduceMin)
FLOAT_CLASSES: tuple[type[Instruction], ...] = (
    *FUNCTIONS,
    *REDUCTIONS,
    FloatSoftmax,
    FloatLayerNorm,
)
