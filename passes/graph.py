"""The Graph: a quantized network in the machine's terms, between the frontend and the passes.

Every value is a tensor [rows, columns, channels] of integers or float32; images are what a program
is run over, so no batch axis appears. An NCHW tensor becomes [H, W, C]; another tensor usually
keeps its row-major order as [product of the rest, columns, channels]; its ``order`` and ``shape``
say exactly how. Constants are folded into the nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog_float import FUNCTIONS
from isa.program import DTYPES, Shape

Pair = tuple[int, int]
_ELEMENTWISE = frozenset(cls.mnemonic for cls in FUNCTIONS)


@dataclass(frozen=True)
class Value:
    """One tensor. Real value = (integer - zero) * scale.

    name: of a graph input or output, the model's own name of it. onnx_name names the tensor of
    ``reference.onnx`` with the same integers; onnx_shape is its shape without the batch axis;
    transposing by ``order`` and reshaping gives ``shape``.
    scale is None where the ONNX tensor itself holds integers without a scale.
    """

    name: str
    dtype: str  # "s8", "u8" or "f32"; "s32" of row numbers and of gates' sums
    shape: Shape
    scale: float | None
    zero: int
    onnx_name: str
    onnx_shape: tuple[int, ...]
    order: tuple[int, ...]
    batched: bool = True


@dataclass(frozen=True, eq=False)
class Node:
    """Base: ``name`` is the ONNX node (what messages and reports call it)."""

    name: str
    inputs: tuple[str, ...]
    output: str

    @property
    def results(self) -> tuple[str, ...]:
        """All values that it makes."""
        return (self.output,)


@dataclass(frozen=True, eq=False)
class MatrixNode(Node):
    """Conv, Gemm or MatMul with constant weights: mvm, then requantization.

    weights: int16 or int8 [outputs, kernel_rows, kernel_columns, inputs / groups], weight zero
    points already subtracted. bias: int32 [outputs], as in the ONNX model (the streaming
    constant is added when the program is emitted). scale: float32 [outputs] or [1], the factor
    of ``requant``. pads: (top, left, bottom, right), filled with the input's zero point.
    """

    weights: NDArray[np.integer]
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]
    groups: int = 1
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class LutNode(Node):
    """Any function of one 8-bit value: table [256] or [channels, 256], indexed from the minimum."""

    table: NDArray[np.integer | np.float32]


@dataclass(frozen=True, eq=False)
class LookupNode(Node):
    """Rows of a constant by number: the channels of the input are the columns of the output.

    table: [rows, channels] of the type of the output.
    """

    table: NDArray[np.integer | np.float32]


@dataclass(frozen=True, eq=False)
class BinaryNode(Node):
    """``op`` ("add", "sub", "mul", "div", "pow", "max", "min") on two values, as `isa.catalog.Add`.

    The second input may be 1 in rows and columns, or in channels (broadcast). ``constant``
    replaces the second input: an 8-bit array [rows, columns, channels], its qparams beside it; or
    a float32 one, which may be 1 in rows and columns, and in channels.
    """

    op: str
    constant: NDArray[np.integer | np.float32] | None = None
    constant_scale: float = 1.0
    constant_zero: int = 0


@dataclass(frozen=True, eq=False)
class SelectNode(Node):
    """``isa.catalog.Select``: inputs are the mask, and what is taken where it is set and elsewhere.

    Each of them is of the result's shape, or 1 in rows and columns, or in channels. ``constant``
    replaces the third input as that of a BinaryNode, and may be [1, 1, 1]. is_inverted: the second
    input is taken where the mask is 0.
    """

    constant: NDArray[np.integer] | None = None
    constant_scale: float = 1.0
    constant_zero: int = 0
    is_inverted: bool = False


@dataclass(frozen=True, eq=False)
class PoolNode(Node):
    """Max or average pooling.

    op: "max" (padding never wins) or "sum" (the integer sum over the window, padding counts as
    the zero point, then requantization with ``bias`` and ``scale``). scale: float32
    broadcastable to [rows, columns, channels], so that border windows can divide by fewer elements.
    bias: int32 [1].
    """

    op: str
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    bias: NDArray[np.int32] | None = None
    scale: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class MoveNode(Node):
    """Data movement: transpose, slice, split, concat, pad, resize, channel shuffle, any chain.

    index: int32 [rows, columns, channels] of the output; each entry is an element of the inputs
    laid one after another in row-major order, or -1 for ``fill``.
    """

    index: NDArray[np.int32]
    fill: int = 0


@dataclass(frozen=True, eq=False)
class RealNode(Node):
    """One of the instructions of `isa.catalog_float` without tables: a function of each element,
    a reduction over the channels, or a softmax over them. mnemonic: which.
    """

    mnemonic: str

    @property
    def is_elementwise(self) -> bool:
        """Whether each element of the result depends on one of the input."""
        return self.mnemonic in _ELEMENTWISE


@dataclass(frozen=True, eq=False)
class FloatLayerNormNode(Node):
    """Layer normalization over the channels, in the formula of `isa.catalog_float.FloatLayerNorm`.

    gain, offset: float32 [channels].
    """

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True, eq=False)
class SoftmaxNode(Node):
    """Softmax over the channels. powers: int32 [256], see `isa.catalog.Softmax`."""

    powers: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LogSoftmaxNode(Node):
    """Logarithm of a softmax over the channels, as `isa.catalog.LogSoftmax`.

    powers: int32 [256], as of a SoftmaxNode. scale: of the input.
    """

    powers: NDArray[np.int32]
    scale: float


@dataclass(frozen=True, eq=False)
class LayerNormNode(Node):
    """Layer normalization over the channels, in the formula of `isa.catalog.LayerNorm`.

    gain, offset: float32 [channels].
    """

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True, eq=False)
class GroupNormNode(Node):
    """Normalization of groups of channels over all rows and columns, by `isa.catalog.GroupNorm`.

    groups: of equal size, of neighbours. gain, offset: float32 that broadcast to [rows, columns,
    channels].
    """

    groups: int
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True, eq=False)
class ProductNode(Node):
    """Product of two computed matrices, row by row: [r, w, k] times [r, k, o] gives [r, w, o].

    scale: of `isa.catalog.MatMul`.
    """

    scale: float


@dataclass(frozen=True, eq=False)
class CellNode(Node):
    """The cell of a recurrent layer: steps that run for one row of the inputs after the other.

    The steps compute with *rows*, [1, columns, units] each, by names of their own. slices: rows
    that are channels of an input: (input, first channel). kept: rows that last from one row of
    the inputs to the next: (integers before the first one, or the input with them in its single
    row, held as the row is unless their types differ; the row that becomes it; no step reads the
    old one once that is made). steps: LutNode and BinaryNode on rows, in order. made: value of
    the graph -> the row that it consists of; a kept row stands for what it is before the steps.
    Such a value may go to a matrix whose sums are an input of the cell itself (`Graph.feedback`).
    """

    rows: dict[str, Value]
    slices: dict[str, tuple[str, int]]
    kept: dict[str, tuple[NDArray[np.integer] | str, str]]
    steps: tuple[LutNode | BinaryNode, ...]
    made: dict[str, str]

    @property
    def results(self) -> tuple[str, ...]:
        return tuple(self.made)

    @property
    def bytes(self) -> int:
        """Memory that the inputs and all rows take at once; a row stands where the old one was."""
        rows = self.rows.keys() - {following for _, following in self.kept.values()}
        return sum(
            math.prod(self.rows[name].shape) * DTYPES[self.rows[name].dtype].itemsize
            for name in rows
        )


@dataclass(frozen=True, eq=False)
class LrnNode(Node):
    """Local response normalization over channels, in the formula of ``isa.catalog.Lrn``."""

    size: int
    factor: float
    beta: float
    bias: float


@dataclass(frozen=True, eq=False)
class HostNode(Node):
    """A part of the network that the host runs, as an ONNX model.

    outputs: all values it makes, ``output`` the first of them. sources: how the model sees each
    input, which is the same integers or numbers in ONNX order; of ``Value.shape`` and ``order``
    only their own consistency counts. model: the file.
    """

    outputs: tuple[str, ...]
    sources: tuple[Value, ...]
    model: bytes

    @property
    def results(self) -> tuple[str, ...]:
        return self.outputs


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order, but for the matrices of recurrent layers (`feedback`); values
    by name; names of the graph's inputs and outputs.

    handed: inputs and outputs that are not the model's own, but go from phase to phase.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: dict[str, Value]
    handed: frozenset[str] = frozenset()

    def feedback(self) -> dict[str, CellNode]:
        """Values that a cell hands to the nodes before it, row by row, and that cell."""
        seen: set[str] = set()
        found: dict[str, CellNode] = {}
        for node in self.nodes:
            seen.update(node.inputs)
            if isinstance(node, CellNode):
                found |= {name: node for name in node.made if name in seen}
        return found

    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.results}

    def consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found
