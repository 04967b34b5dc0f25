"""A program: declarations of tensors, tables, channels and cores, and one stream per core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.instruction import Instruction
from isa.matrix import BlockMatrix

Shape = tuple[int, int, int]  # rows, columns, channels

DTYPES: dict[str, np.dtype] = {
    "s8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "s32": np.dtype(np.int32),
    "f32": np.dtype(np.float32),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model as the machine sees it, and how that maps to the ONNX tensor.

    role: "input", "output" and "host" stand in global memory, "host" ones for a partition to read
    or write; "inner" ones only travel on channels, and are declared so that a run can be compared
    with the reference tensor by tensor.
    shape: [rows, columns, channels] of the machine. onnx_name: of an input or output, the model's
    name for it; of an inner tensor, the one of the reference model with these integers.
    onnx_shape: without the batch axis; transposing it by ``order`` and reshaping gives ``shape``.
    scale: float value of one step, None when the ONNX tensor holds the integers themselves.
    batched: the ONNX tensor has a leading batch axis.
    """

    role: str
    name: str
    dtype: str
    shape: Shape
    onnx_name: str
    onnx_shape: tuple[int, ...]
    order: tuple[int, ...]
    scale: float | None = None
    zero: int = 0
    batched: bool = True

    @property
    def bytes(self) -> int:
        rows, columns, channels = self.shape
        return rows * columns * channels * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, eq=False)
class Table:
    """A named constant array of a vector or memory instruction (bias, scale, lut, index)."""

    name: str
    dtype: str
    values: NDArray[np.generic]
    inline: bool = False  # written in the text instead of the data file


@dataclass(frozen=True)
class Channel:
    """A first-in first-out queue of messages from one core to another.

    shape: (columns, channels) of the largest message. depth: messages it can hold. address: byte
    address in the memory of ``target``, None when the queue stands in global memory. carries:
    (tensor, first channel, last channel + 1) when the concatenated messages are those channels
    of that tensor, row by row; None for partial sums. rows: (start, stop, step) of the rows it
    carries, where several copies of a layer take turns; None for all.
    """

    name: str
    source: int
    target: int
    dtype: str
    shape: tuple[int, int]
    depth: int
    address: int | None = None
    carries: tuple[str, int, int] | None = None
    rows: tuple[int, int, int] | None = None

    def rows_of(self, tensor: Tensor) -> range:
        """The rows of the tensor that its messages hold, in their order."""
        return range(tensor.shape[0]) if self.rows is None else range(*self.rows)

    @property
    def bytes(self) -> int:
        return self.depth * self.shape[0] * self.shape[1] * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Buffer:
    """A box of a core's memory, [rows, columns, channels], at a byte address.

    address: None when the box does not fit the core and stands in global memory, as a queue may;
    it belongs to the core all the same, and every access crosses a link of the global memory.
    ring: row ``r`` stands in slot ``r mod rows``. fill: value of every element before the
    stream starts (padding columns keep it); None leaves the elements undefined.
    """

    name: str
    dtype: str
    shape: Shape
    address: int | None
    ring: bool = False
    fill: int | None = None

    @property
    def bytes(self) -> int:
        rows, columns, channels = self.shape
        return rows * columns * channels * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, eq=False)
class Matrix:
    """Programmed cells of one core: a part of the weights of one layer.

    layer: name of the ONNX node. inputs, outputs: (start, stop) of the layer's input channels
    and output channels that this part covers; its row ``k`` is
    ``(i * kernel_columns + j) * (inputs[1] - inputs[0]) + channel - inputs[0]``. of: the matrix
    of which this is a copy, programmed alike in crossbars of its own; empty where it is none.
    """

    name: str
    layer: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    blocks: BlockMatrix
    inline: bool = False  # written in the text instead of the data file
    of: str = ""


@dataclass(frozen=True)
class Loop:
    """``body`` for ``variable`` = start, start + step, ... below stop."""

    variable: str
    start: int
    stop: int
    body: tuple[Statement, ...]
    step: int = 1


Statement = Instruction | Loop


@dataclass(frozen=True, eq=False)
class Core:
    """One tile: its crossbars, its memory and its instruction stream. layer: for people."""

    index: int
    layer: str = ""
    matrices: tuple[Matrix, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    body: tuple[Statement, ...] = ()


@dataclass(frozen=True, eq=False)
class Partition:
    """A part of the network that runs on the host, as an ONNX model between tensors.

    inputs: tensors of role "input" or "host", outputs: of role "output" or "host", in the order
    of the model's own. sha256: of the file. model: its contents, empty where only the text was
    read.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sha256: str
    model: bytes = b""


@dataclass(frozen=True, eq=False)
class Program:
    """All that the compiler hands to the machine; ``isa.assembly`` prints and parses it."""

    target: str
    target_sha256: str
    tensors: tuple[Tensor, ...] = ()
    tables: tuple[Table, ...] = ()
    channels: tuple[Channel, ...] = ()
    cores: tuple[Core, ...] = ()
    partitions: tuple[Partition, ...] = ()

    def matrices(self) -> Iterator[Matrix]:
        for core in self.cores:
            yield from core.matrices


def walk(body: tuple[Statement, ...]) -> Iterator[Instruction]:
    """Every instruction of a stream once, in text order."""
    for statement in body:
        if isinstance(statement, Loop):
            yield from walk(statement.body)
        else:
            yield statement


def unroll(body: tuple[Statement, ...]) -> Iterator[tuple[Instruction, dict[str, int]]]:
    """Every executed instruction with the values of its loop variables, in execution order.

    The dictionary is shared between steps: copy it to keep it.
    """
    yield from _unroll(body, {})


def _unroll(
    body: tuple[Statement, ...], env: dict[str, int]
) -> Iterator[tuple[Instruction, dict[str, int]]]:
    for statement in body:
        if isinstance(statement, Loop):
            for value in range(statement.start, statement.stop, statement.step):
                env[statement.variable] = value
                yield from _unroll(statement.body, env)
            env.pop(statement.variable, None)
        else:
            yield statement, env
