"""Constant tables of a program under construction: named once, stored once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isa.program import DTYPES, Table

# Names of buffers (passes/emit*.py; numbered where a core has several). Tensors must not take
# them: a core's buffers and the global tensors share one namespace.
_BUFFERS = re.compile(r"(rows|row|acc|part|mix|out|in|side|constant|row\.\w+)\d*")
INLINE_ELEMENTS = 4  # tables up to this size stand in the text, on one line


@dataclass(eq=False)
class Names:
    """Identifiers for the text made from ONNX names: legal, short, each used once."""

    taken: set[str] = field(default_factory=set)

    def fresh(self, wish: str) -> str:
        base = re.sub(r"[^\w.]+", "_", wish, flags=re.ASCII).strip("_.") or "t"
        if base[0].isdigit() or _BUFFERS.fullmatch(base):
            base = f"t_{base}"
        name, count = base, 2
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name


@dataclass(eq=False)
class Tables:
    """Tables by content: asking for the same values again gives the first name."""

    names: Names
    tables: list[Table] = field(default_factory=list)
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def add(self, wish: str, dtype: str, values: NDArray[np.generic]) -> str:
        """Name of a table that holds ``values`` as ``dtype``; ``wish`` is the name to try."""
        array = np.ascontiguousarray(values, DTYPES[dtype])
        key = (dtype, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.names.fresh(wish)
            table = Table(self._known[key], dtype, array, array.size <= INLINE_ELEMENTS)
            self.tables.append(table)
        return self._known[key]
