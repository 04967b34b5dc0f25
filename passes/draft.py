"""A core while it is being written: buffers, the rows it receives, and steps of its stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from isa.catalog import Load, Recv
from isa.matrix import BlockMatrix
from isa.operands import Region, region
from isa.program import Matrix, Shape, Statement

Range = tuple[int, int]


@dataclass(frozen=True)
class BufferDraft:
    """A buffer before it has an address; see ``isa.program.Buffer``."""

    name: str
    dtype: str
    shape: Shape
    ring: bool = False
    fill: int | None = None

    def box(
        self,
        row: int = 0,
        rows: int = 1,
        columns: Range | None = None,
        channels: Range | None = None,
    ) -> Region:
        """A region of this buffer; axes that are taken whole are left out of the text."""
        if columns == (0, self.shape[1]):
            columns = None
        if channels == (0, self.shape[2]):
            channels = None
        if self.shape[0] == rows and not self.ring and columns is None and channels is None:
            return Region(self.name)
        return region(self.name, row, rows, columns, channels)


@dataclass(frozen=True)
class Link:
    """One producer's share of a value: the channel it arrives on and the channels it holds.

    rows: those that come on it; None for all.
    """

    channel: str
    channels: Range
    rows: range | None = None


@dataclass(frozen=True)
class Feed:
    """How a core gets (some channels of) a value, row by row.

    wanted: (start, stop) of the value's channels that the core needs. tensor: the program tensor
    to load rows from, for graph inputs; else ``links`` to receive on. chunks: column ranges of
    the messages of a row. rows: those that the core needs; None for all.
    """

    shape: Shape
    wanted: Range
    chunks: tuple[Range, ...]
    tensor: str | None = None
    links: tuple[Link, ...] = ()
    rows: frozenset[int] | None = None

    def needs(self, row: int) -> bool:
        """Whether the core is given a row."""
        return self.rows is None or row in self.rows

    def pitch(self, rows: int) -> int:
        """Steps after which the channels that rows come on repeat, ``rows`` rows to a step."""
        steps = [link.rows.step for link in self.links if link.rows is not None]
        return math.lcm(1, *(step // math.gcd(step, rows) for step in steps))

    @property
    def channels(self) -> int:
        return self.wanted[1] - self.wanted[0]

    def receive(
        self,
        into: BufferDraft,
        into_row: int,
        row: int,
        column: int = 0,
        channel: int = 0,
        piece: Range | None = None,
    ) -> list[list[Statement]]:
        """Steps, one per message, that put row ``row`` of the value into a buffer.

        ``column`` and ``channel`` are where the row starts in the buffer. piece: take only the
        messages within these columns; then it is the piece that starts there.
        """
        low = self.wanted[0] - channel
        left, right = piece or (0, self.shape[1])
        steps: list[list[Statement]] = []
        for first, last in self.chunks:
            if not left <= first < last <= right:
                continue
            columns = (column + first - left, column + last - left)
            if self.tensor is not None:
                box = into.box(into_row, 1, columns, (channel, channel + self.channels))
                whole = self.wanted == (0, self.shape[2])
                source = region(
                    self.tensor,
                    row,
                    1,
                    None if (first, last) == (0, self.shape[1]) else (first, last),
                    None if whole else self.wanted,
                )
                steps.append([Load(box, source)])
                continue
            step: list[Statement] = []
            for link in self.links:
                if link.rows is not None and row not in link.rows:
                    continue
                held = (link.channels[0] - low, link.channels[1] - low)
                step.append(Recv(into.box(into_row, 1, columns, held), link.channel))
            steps.append(step)
        return steps


@dataclass(eq=False)
class CoreDraft:
    """The growing program of one core."""

    index: int
    layer: str
    buffers: list[BufferDraft] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)

    def buffer(
        self,
        name: str,
        dtype: str,
        shape: Shape,
        ring: bool = False,
        fill: int | None = None,
    ) -> BufferDraft:
        """Declare a buffer; a name that is taken gets a number."""
        taken = {buffer.name for buffer in self.buffers}
        unique, count = name, 2
        while unique in taken:
            unique, count = f"{name}{count}", count + 1
        draft = BufferDraft(unique, dtype, shape, ring, fill)
        self.buffers.append(draft)
        return draft

    def matrix(
        self, name: str, inputs: Range, outputs: Range, blocks: BlockMatrix, of: str = ""
    ) -> Matrix:
        """Declare a matrix; ``of``: the one of which it is a copy."""
        matrix = Matrix(name, self.layer, inputs, outputs, blocks, of=of)
        self.matrices.append(matrix)
        return matrix
