"""The items of a directive line, taken one after the other, each with its kind checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from isa.matrix_text import axis_number
from isa.program import DTYPES
from isa.read_operands import describe
from isa.syntax_tree import Attribute, Box, Directive, Node, Number, Range, SyntaxFault
from isa.validate import did_you_mean

Kind = TypeVar("Kind", bound=Node)
MAX_SIZE: Final = 1 << 31  # of one axis and of all elements together

_TENSOR: Final = "NAME TYPE[rows, columns, channels] of=NAME shape=[..] order=[..] scale=N zero=N"
USAGE: Final = {
    ".pim": ".pim 1",
    ".target": ".target NAME sha256=HEX",
    ".data": ".data arrays.npz",
    ".input": f".input {_TENSOR}",
    ".output": f".output {_TENSOR}",
    ".tensor": f".tensor {_TENSOR}",
    ".host": f".host {_TENSOR}",
    ".partition": ".partition NAME INPUTS -> OUTPUTS sha256=HEX",
    ".table": ".table NAME TYPE[sizes] = [1 2 3]",
    ".channel": ".channel NAME core A -> B TYPE[columns, channels] depth=N @ADDRESS",
    ".core": '.core N "LAYER"',
    ".matrix": ".matrix NAME[inputs, outputs] inputs=a..b outputs=a..b",
    ".buffer": ".buffer NAME TYPE[rows, columns, channels] @ADDRESS fill=N",
}


class Fields:
    """The items of one directive, taken one after the other; what is left over is an error."""

    def __init__(self, directive: Directive, *keys: str) -> None:
        self.directive = directive
        self.attributes: dict[str, Attribute] = {}
        self._plain: list[Node] = []
        for item in directive.items:
            if isinstance(item, Attribute):
                self._note(item, keys)
            else:
                self._plain.append(item)
        self._taken = 0

    def _note(self, item: Attribute, keys: Sequence[str]) -> None:
        end = item.column + len(item.key)
        if item.key not in keys:
            hint = did_you_mean(item.key, list(keys)) or f"write `{USAGE[self.directive.name]}`"
            message = f"`{self.directive.name}` has no `{item.key}=`"
            raise SyntaxFault("E305", message, item.column, end, hint)
        if item.key in self.attributes:
            raise SyntaxFault("E305", f"`{item.key}` is given twice", item.column, end)
        self.attributes[item.key] = item

    def fault(self, code: str, message: str, node: Node | None = None) -> SyntaxFault:
        """A fault at ``node``, by default the whole directive, that shows how it is written."""
        place = node or self.directive
        hint = f"write `{USAGE[self.directive.name]}`"
        return SyntaxFault(code, message, place.column, place.end, hint)

    def peek(self) -> Node | None:
        """The next item without its name, None when all are taken."""
        return self._plain[self._taken] if self._taken < len(self._plain) else None

    def take(self, kind: type[Kind], what: str) -> Kind:
        """The next item, which has to be a ``kind``. Raises SyntaxFault E304, E306."""
        node = self.peek()
        if node is None:
            raise self.fault("E304", f"`{self.directive.name}` needs {what}")
        if not isinstance(node, kind):
            raise self.fault("E306", f"expected {what}, found {describe(node)}", node)
        self._taken += 1
        return node

    def name(self, what: str) -> str:
        """The next item, a bare name. Raises SyntaxFault E304, E306."""
        box = self.take(Box, what)
        if not box.is_bare:
            raise self.fault("E306", f"expected {what}, found {describe(box)}", box)
        return box.name.text

    def count(self, what: str) -> int:
        """The next item, a whole number from 0. Raises SyntaxFault E304, E306."""
        return self.natural(self.take(Number, what), what)

    def natural(self, node: Node, what: str, least: int = 0) -> int:
        """The whole number of a node, at least ``least``. Raises SyntaxFault E306."""
        value = node.value if isinstance(node, Number) else None
        if not isinstance(value, int) or not least <= value < MAX_SIZE:
            message = f"expected {what}, a whole number from {least}, found {describe(node)}"
            raise self.fault("E306", message, node)
        return value

    def integer(self, key: str, default: int | None) -> int | None:
        """The whole number of attribute ``key``."""
        if key not in self.attributes:
            return default
        node = self.attributes[key].value
        if not isinstance(node, Number) or not isinstance(node.value, int):
            message = f"`{key}`: expected a whole number, found {describe(node)}"
            raise self.fault("E306", message, node)
        return node.value

    def value(self, key: str, kind: type[Kind], what: str) -> Kind:
        """The value of a required attribute. Raises SyntaxFault E304, E306."""
        if key not in self.attributes:
            raise self.fault("E304", f"`{self.directive.name}` needs `{key}=`")
        node = self.attributes[key].value
        if not isinstance(node, kind):
            raise self.fault("E306", f"`{key}`: expected {what}, found {describe(node)}", node)
        return node

    def range(self, key: str) -> tuple[int, int]:
        """The range of a required attribute. Raises SyntaxFault E304, E306, E309."""
        node = self.value(key, Range, "a range like `0..6`")
        if not 0 <= node.start < node.stop < MAX_SIZE:
            message = f"`{key}`: `{node.start}..{node.stop}` is empty or negative"
            raise self.fault("E309", message, node)
        return node.start, node.stop

    def text(self, key: str) -> str:
        """The name of a required attribute. Raises SyntaxFault E304, E306."""
        node = self.value(key, Box, "a name")
        if not node.is_bare:
            raise self.fault("E306", f"`{key}`: expected a name, found {describe(node)}", node)
        return node.name.text

    def shape(self, axes: int | None, ring: bool = False) -> tuple[str, tuple[int, ...], bool]:
        """(type, sizes, is a ring) of an item such as ``s8[ring 5, 28, 1]``."""
        box = self.take(Box, "a type and a shape")
        if box.name.text not in DTYPES:
            end = box.column + len(box.name.text)
            hint = f"the types are {', '.join(DTYPES)}"
            message = f"unknown type `{box.name.text}`"
            raise SyntaxFault("E306", message, box.name.column, end, hint)
        if box.is_bare:
            raise self.fault("E309", f"`{box.name.text}` needs its sizes in brackets", box)
        if axes is not None and len(box.axes) != axes:
            message = f"expected {axes} sizes in the shape, found {len(box.axes)}"
            raise self.fault("E309", message, box)
        is_ring = ring and bool(box.axes) and box.axes[0].ring
        sizes = []
        for index, axis in enumerate(box.axes):
            rings = is_ring and index == 0 and axis.start is not None
            size = axis.start.constant if rings and axis.start else axis_number(axis)
            if size is None or not 0 <= size < MAX_SIZE:
                message = "expected a size, a plain whole number"
                raise SyntaxFault("E309", message, axis.column, axis.end)
            sizes.append(size)
        total = 1
        for size in sizes:
            total *= size
        if total >= MAX_SIZE:
            raise self.fault("E309", f"{total} elements are too many", box)
        return box.name.text, tuple(sizes), is_ring

    def done(self) -> None:
        """Raises SyntaxFault E304 for an item too many."""
        if (node := self.peek()) is not None:
            raise self.fault("E304", f"{describe(node)} is one item too many", node)
        if self.directive.opens and self.directive.name != ".matrix":
            raise self.fault("E304", f"`{self.directive.name}` has no block, but ends in `:`")
