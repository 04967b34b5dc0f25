"""The instructions that normalize: along the channels, or over groups of them."""

from __future__ import annotations

from dataclasses import dataclass

from isa.instruction import Instruction, TableRef
from isa.operands import Region

MOST_COUNTED = 2**23  # elements of a group: sums of so many fit 32 bits, products 64


@dataclass(frozen=True)
class Softmax(Instruction):
    """``into = sat(rint(f32(e) / f32(sum(e)) / scale) + zero)`` over the channels.

    ``e = powers[source - max(source) + 255]``, the sum exact in s32. powers: s32 table [256] of
    ``exp(d * scale of the source) * 2^p`` for d = -255..0, so that a sum cannot overflow.
    """

    mnemonic = "softmax"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    powers: TableRef
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class LogSoftmax(Instruction):
    """``into = sat(rint((f32(d) * scale_a - l) / scale) + zero)`` over the channels.

    ``d = source - max(source)`` and ``l``, the logarithm of ``t = f32(sum(powers[d + 255])) /
    f32(powers[255])``, is made of what IEEE pins down: ``l = 2048 * ((q - 1) / (q + 1))`` with
    ``q`` the tenfold square root of ``t``, each rounded to f32. Up to ``t = 2^16`` that is
    within 0.0003 of ``ln t``. powers: as of ``softmax``.
    """

    mnemonic = "logsoftmax"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    powers: TableRef
    scale_a: float = 1.0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class LayerNorm(Instruction):
    """``into = sat(rint((d / root * gain + offset) / scale) + zero)`` over the C channels.

    ``d = f32(C * source - S)`` and ``root = sqrt(f32(C * Q - S^2) + epsilon)``, where ``S`` and
    ``Q`` are the exact sums of ``source`` and of its squares: scale and zero point of the source
    cancel. gain, offset: f32 tables [C]. epsilon: the model's, times ``(C / source scale)^2``.
    """

    mnemonic = "layernorm"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    gain: TableRef
    offset: TableRef
    epsilon: float = 1.0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Moments(Instruction):
    """``into += moments of source``, whole numbers by groups of channels.

    Channel ``g`` of ``into`` [1, 3, G] is for the channels ``g * C / G`` to ``(g + 1) * C / G`` of
    ``source``, all rows and columns of it. Column 0 gets their sum; columns 1 and 2 the sum of
    their squares, ``high * 2^24 + low`` with ``low`` from 0 to 2^24 - 1.
    """

    mnemonic = "moments"
    unit = "vector"
    reads = ("into", "source")
    writes = ("into",)
    into: Region
    source: Region


@dataclass(frozen=True)
class GroupNorm(Instruction):
    """``into = sat(rint((d / root * gain + offset) / scale) + zero)`` by groups of channels.

    ``d = f32(count * source - S)`` and ``root = sqrt(f32(count * Q - S^2) + epsilon)``, where
    ``S`` and ``Q`` are what `moments` has made of the ``count`` elements of the channel's group:
    scale and zero point of the source cancel. gain, offset: f32 tables that broadcast to [W, C].
    epsilon: the model's, times ``(count / source scale)^2``.
    """

    mnemonic = "groupnorm"
    unit = "vector"
    reads = ("source", "moments")
    writes = ("into",)
    into: Region
    source: Region
    moments: Region
    gain: TableRef
    offset: TableRef
    count: int = 1
    epsilon: float = 1.0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class Lrn(Instruction):
    """Local response normalization over ``size`` neighbouring channels, as ONNX LRN.

    ``n = source - zero_a``; ``s = f32(f32(sum(n^2)) * factor) + bias``, the sum exact;
    ``into = sat(rint(f32(n * scale_a) / root / scale) + zero)`` with ``root = s^beta`` in f32, made
    of square roots where ``beta`` is 0.5 or 0.75. factor: ``alpha / size * scale_a^2``.
    """

    mnemonic = "lrn"
    unit = "vector"
    reads = ("source",)
    writes = ("into",)
    into: Region
    source: Region
    size: int = 5
    factor: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    scale_a: float = 1.0
    zero_a: int = 0
    scale: float = 1.0
    zero: int = 0
