"""Writer: collects the operators that replace one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pimc.frontend.net import Array, Net, Op


class Writer:
    """Collects the operators that replace one."""

    def __init__(self, net: Net, op: Op) -> None:
        self.net, self.op = net, op
        self.ops: list[Op] = []
        self._base = next(name for name in op.outputs if name)

    def shape(self) -> tuple[int, ...]:
        """Shape of the first input."""
        return self.net.shapes[self.op.inputs[0]]

    def constant(self, wish: str, values: Array) -> str:
        name = self.net.fresh(f"{self._base}_{wish}")
        self.net.constants[name], self.net.shapes[name] = values, values.shape
        return name

    def tensor(self, wish: str, shape: Sequence[int]) -> str:
        """Declare a new tensor of the type of the replaced operator's results."""
        name = self.net.fresh(f"{self._base}_{wish}")
        self.net.add_like(name, self._base)
        self.net.shapes[name] = tuple(int(size) for size in shape)
        return name

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        shape: Sequence[int] | None,
        wish: str = "",
        result: str = "",
        **attributes: Any,
    ) -> str:
        """Add an operator with a result of ``shape``; of the replaced one's result if None.

        wish: what is added to the operator's name; nothing for the one that keeps it. result:
        the replaced one's result that this is, the first by default.
        """
        result = result or self.op.output
        if shape is not None:
            result = self.tensor(wish or op_type.lower(), shape)
        name = f"{self.op.name}/{wish}" if wish else self.op.name
        self.ops.append(Op(name, op_type, tuple(inputs), (result,), attributes))
        return result

    def reshape(self, source: str, shape: Sequence[int] | None, wish: str) -> str:
        target = np.array(self.net.shapes[self.op.output] if shape is None else shape, np.int64)
        return self.add("Reshape", (source, self.constant(f"{wish}_shape", target)), shape, wish)
