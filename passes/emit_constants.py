"""Constant operands of element-wise nodes: kept in a buffer, or brought in piece by piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Const
from isa.operands import Region
from isa.program import DTYPES, Statement
from passes.draft import CoreDraft, Range
from passes.graph import BinaryNode, SelectNode
from passes.tables import Tables
from passes.wiring import MESSAGE_BYTES

Values = NDArray[np.integer | np.float32]
_TYPES = {dtype: name for name, dtype in DTYPES.items()}


class Constant:
    """The constant operand of a node on one core, for pieces of at most ``widest`` columns.

    channels: (start, stop) of those that the core computes.

    A small one is written once and stays; of a large one, such as a position embedding, only the
    piece at work stands in the core.
    """

    def __init__(
        self,
        draft: CoreDraft,
        tables: Tables,
        channels: Range,
        node: BinaryNode | SelectNode,
        widest: int,
    ) -> None:
        values: Values = node.constant  # type: ignore[assignment]
        if values.shape[2] > 1:
            values = values[:, :, slice(*channels)]
        self._tables, self._name, self._values = tables, f"{node.name}.constant", values
        self._dtype = _TYPES[values.dtype]
        rows, columns, width = values.shape
        self._stays = values.nbytes <= MESSAGE_BYTES or rows == columns == 1
        shape = values.shape if self._stays else (1, min(columns, widest), width)
        self._buffer = draft.buffer("constant", self._dtype, shape)

    def _table(self, values: Values) -> str:
        return self._tables.add(self._name, self._dtype, values)

    def setup(self) -> list[Statement]:
        """Statements that run once, before the rows."""
        if not self._stays:
            return []
        whole = self._buffer.box(rows=self._buffer.shape[0])
        return [Const(whole, self._table(self._values))]

    def take(self, row: int, piece: Range) -> list[Statement]:
        """Statements that bring in what columns ``piece`` of row ``row`` need."""
        if self._stays:
            return []
        held = self._values[row if len(self._values) > 1 else 0]
        held = held[slice(*piece)] if len(held) > 1 else held
        return [Const(self._buffer.box(columns=(0, len(held))), self._table(held[None]))]

    def region(self, row: int, piece: Range) -> Region:
        """The operand for columns ``piece`` of row ``row``."""
        rows, columns, _ = self._values.shape
        if not self._stays:
            return self._buffer.box(columns=(0, piece[1] - piece[0] if columns > 1 else 1))
        return self._buffer.box(row if rows > 1 else 0, 1, piece if columns > 1 else None)
