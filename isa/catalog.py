"""The instructions of the machine, one class each: operands, effects, formula.

Buffers hold integers, or f32 numbers, in ``[row, column, channel]`` order. An instruction works on
one row of windows or elements. ``W`` columns and ``C`` channels are those of the written region;
integers are exact, ``f32`` and ``f64`` mark IEEE single and double precision, ``rint`` rounds half
to even and ``sat`` clamps to the range of the destination type (for s32: to the f32 numbers within
it; what is no number becomes the smallest).
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.catalog_float import FLOAT_CLASSES
from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Lrn, Moments, Softmax
from isa.instruction import (
    ONE_BY_ONE,
    ChannelRef,
    Instruction,
    MatrixRef,
    Pair,
    PartitionRef,
    TableRef,
)
from isa.operands import Region


@dataclass(frozen=True)
class Load(Instruction):
    """``into = source``: copy from an input or host tensor in global memory to the core."""

    mnemonic = "load"
    unit = "memory"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region


@dataclass(frozen=True)
class Store(Instruction):
    """``into = source``: copy from the core to an output or host tensor in global memory."""

    mnemonic = "store"
    unit = "memory"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region


@dataclass(frozen=True)
class Send(Instruction):
    """Append ``source`` as one message to ``channel``; waits while the channel is full."""

    mnemonic = "send"
    unit = "network"
    reads = ("source",)
    channel: ChannelRef
    source: Region


@dataclass(frozen=True)
class Recv(Instruction):
    """Take the oldest message of ``channel`` into ``into``; waits while the channel is empty.

    The elements keep their row-major order; ``into`` has as many as the message.
    """

    mnemonic = "recv"
    unit = "network"
    writes = ("into",)
    into: Region
    channel: ChannelRef


@dataclass(frozen=True)
class Host(Instruction):
    """``outputs = partition(inputs)``: the host runs a part of the network on tensors.

    The tensors stand in global memory, and the `.partition` line names them. Each goes to and
    comes from the partition's ONNX model in the shape and order of its own declaration, one
    image at a time, a batch axis of 1 before it where it is batched. The time is that of moving
    the tensors over a link of the global memory; the host's own work has none.
    """

    mnemonic = "host"
    unit = "memory"
    partition: PartitionRef


@dataclass(frozen=True)
class Fill(Instruction):
    """``into = value`` in every element."""

    mnemonic = "fill"
    unit = "memory"
    writes = ("into",)
    into: Region
    value: int = 0


@dataclass(frozen=True)
class Const(Instruction):
    """``into = table``: constants of the model, row by row; the sizes are equal."""

    mnemonic = "const"
    unit = "memory"
    writes = ("into",)
    into: Region
    table: TableRef


@dataclass(frozen=True)
class Copy(Instruction):
    """``into = source``, element by element in row-major order; the sizes are equal."""

    mnemonic = "copy"
    unit = "memory"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region


@dataclass(frozen=True)
class Gather(Instruction):
    """``into.flat[i] = source.flat[index[i]]``; an index of -1 leaves ``value``.

    index: table s32 with one entry per element of ``into``, into the row-major elements of
    ``source``.
    """

    mnemonic = "gather"
    unit = "memory"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    index: TableRef
    value: int = 0


@dataclass(frozen=True)
class Mvm(Instruction):
    """``into[w, o] = sum_k u[w, k] * matrix[k, o]`` for every window ``w`` of one output row.

    Window ``w`` is the ``kernel`` box of ``source`` that starts at column ``w * stride``, its
    positions ``dilation`` apart, so ``k = (i * kernel_columns + j) * channels + c``. The inputs
    stream as unsigned bits: ``u = x`` for u8 and ``u = x + 128`` for s8; the constant
    ``(128 + zero) * sum_k matrix[k, o]`` belongs into the bias of ``requant``. Each stored
    column of a block is converted once per input bit and saturates at the ADC's largest code:
    ``sum over groups, columns, routes: sign * 2^shift * sum_t 2^t * min(sum_r bit_t(u) * cell,
    adc_max)``, which equals the product above wherever no column can saturate. The target's
    `accumulation.routing` says when routes are taken: `after-bits`, on the sum over ``t``, or
    `per-bit`, on each of its terms; time and energy differ, the integers do not.
    """

    mnemonic = "mvm"
    unit = "matrix"
    reads = ("source",)
    writes = ("into",)
    into: Region
    matrix: MatrixRef
    source: Region
    kernel: Pair = ONE_BY_ONE
    stride: int = 1
    dilation: Pair = ONE_BY_ONE


@dataclass(frozen=True)
class Accumulate(Instruction):
    """``into += source`` in s32: partial sums of a layer that is split over its inputs."""

    mnemonic = "accumulate"
    unit = "vector"
    reads = ("into", "source")
    writes = ("into",)
    into: Region
    source: Region


@dataclass(frozen=True)
class Requant(Instruction):
    """``into = sat(rint(f32(source + bias) * scale) + zero)``, onnxruntime's requantization.

    source: s32. bias: s32 table, scale: f32 table; both broadcast to [W, C]. Into s32, the result
    is a sum in a step of its own, for arithmetic that needs more than 8 bits. Into f32, it is the
    product ``f32(source + bias) * scale`` itself.
    """

    mnemonic = "requant"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    bias: TableRef
    scale: TableRef
    zero: int = 0


@dataclass(frozen=True)
class Lut(Instruction):
    """``into = table[channel, source - min]``: any function of one 8-bit value.

    table: [256] or [C, 256] of the destination type, f32 included; ``min`` is -128 for s8 and 0
    for u8.
    """

    mnemonic = "lut"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    table: TableRef


@dataclass(frozen=True)
class Lookup(Instruction):
    """``into[w, c] = table[source[w], c]``: rows of a constant by number (an embedding).

    source: s32, as many elements as ``into`` has columns; a negative one counts from the end.
    table: [rows, C] of the destination type. A number that names no row stops the run.
    """

    mnemonic = "lookup"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    table: TableRef


@dataclass(frozen=True)
class Elementwise(Instruction):
    """Base of the instructions on two operands with a scale and a zero point each."""

    unit = "vector"
    reads = ("a", "b")
    writes = ("into",)
    into: Region
    a: Region
    b: Region
    scale_a: float = 1.0
    zero_a: int = 0
    scale_b: float = 1.0
    zero_b: int = 0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Add(Elementwise):
    """``into = sat(rint((f32(a - zero_a) * scale_a + f32(b - zero_b) * scale_b) / scale) + zero)``.

    All in f32, each operation rounded on its own. ``b`` broadcasts over columns and channels.
    Operands and result are of any type each; an f32 operand is its own real value, with scale 1
    and zero 0, and an f32 result is neither scaled nor rounded.
    """

    mnemonic = "add"


@dataclass(frozen=True)
class Sub(Elementwise):
    """As ``add`` with ``-`` between the two products."""

    mnemonic = "sub"


@dataclass(frozen=True)
class Mul(Elementwise):
    """As ``add`` with ``*`` between the two products."""

    mnemonic = "mul"


@dataclass(frozen=True)
class Div(Elementwise):
    """As ``add`` with the quotient of the two products, as IEEE has it.

    A number over zero is infinite and saturates in an integer type, zero over zero is no number.
    """

    mnemonic = "div"


@dataclass(frozen=True)
class Pow(Elementwise):
    """As ``add`` with the first product to the power of the second, in f64, rounded once to f32."""

    mnemonic = "pow"


@dataclass(frozen=True)
class Max(Elementwise):
    """As ``add`` with the larger of the two products."""

    mnemonic = "max"


@dataclass(frozen=True)
class Min(Elementwise):
    """As ``add`` with the smaller of the two products."""

    mnemonic = "min"


@dataclass(frozen=True)
class Select(Instruction):
    """``into = sat(rint(r / scale) + zero)``, where ``mask`` chooses between two operands.

    ``r = f32(a - zero_a) * scale_a`` where it is not 0, ``r = f32(b - zero_b) * scale_b`` where it
    is, each operation rounded on its own. ``mask``, ``a`` and ``b`` broadcast over columns and
    channels each.
    """

    mnemonic = "select"
    unit = "vector"
    reads = ("mask", "a", "b")
    writes = ("into",)
    into: Region
    mask: Region
    a: Region
    b: Region
    scale_a: float = 1.0
    zero_a: int = 0
    scale_b: float = 1.0
    zero_b: int = 0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Pool(Instruction):
    """Base of the instructions that reduce windows channel by channel."""

    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    kernel: Pair = ONE_BY_ONE
    stride: int = 1
    dilation: Pair = ONE_BY_ONE


@dataclass(frozen=True)
class MaxPool(Pool):
    """``into[w, c] = max`` of channel ``c`` over window ``w`` of ``source`` (windows as in mvm)."""

    mnemonic = "maxpool"


@dataclass(frozen=True)
class SumPool(Pool):
    """``into[w, c] = sum`` in s32 of channel ``c`` over window ``w`` (windows as in mvm)."""

    mnemonic = "sumpool"


@dataclass(frozen=True)
class MatMul(Instruction):
    """``into[w, o] = sat(rint(f32(s) * scale) + zero)``, the product of two computed matrices.

    ``s = sum_k (a[w, k] - zero_a) * (b[k, o] - zero_b)``, exact in s32: the columns of ``b`` are
    the channels of ``a``. scale: ``scale of a * scale of b / scale of the result``. Into f32, it is
    ``f32(s) * scale`` itself.
    """

    mnemonic = "matmul"
    unit = "vector"
    reads = ("a", "b")
    writes = ("into",)
    into: Region
    a: Region
    b: Region
    zero_a: int = 0
    zero_b: int = 0
    scale: float = 1.0
    zero: int = 0


_CLASSES: tuple[type[Instruction], ...] = (
    Load, Store, Host, Send, Recv, Fill, Const, Copy, Gather, Mvm, Accumulate, Requant, Lut,
    Lookup, Add, Sub, Mul, Div, Pow, Max, Min, Select, MatMul, MaxPool, SumPool, Softmax,
    LogSoftmax, LayerNorm, Lrn, Moments, GroupNorm, *FLOAT_CLASSES,
)  # fmt: skip
CATALOG: dict[str, type[Instruction]] = {cls.mnemonic: cls for cls in _CLASSES}
