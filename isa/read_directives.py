"""Readers of directives: what each ``.name`` line declares, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.directive_fields import MAX_SIZE, Fields
from isa.matrix_text import MAX_CELL_BITS, MAX_LINES, BlocksDraft, axis_number
from isa.program import DTYPES, Buffer, Channel, Partition, Tensor
from isa.read_operands import read_span, single
from isa.syntax_tree import (
    Address,
    Arrow,
    Box,
    Contents,
    Directive,
    Hash,
    Items,
    Number,
    Range,
    SyntaxFault,
    whole_numbers,
)


def _sha256(fields: Fields) -> str:
    node = fields.attributes["sha256"].value
    return node.text if isinstance(node, Hash) else fields.text("sha256")


def read_target(directive: Directive) -> tuple[str, str]:
    """(name, sha256) of the target; an empty sha256 when none is given."""
    fields = Fields(directive, "sha256")
    name, sha256 = fields.name("the name of a target"), ""
    if "sha256" in fields.attributes:
        sha256 = _sha256(fields)
    fields.done()
    return name, sha256


def read_tensor(directive: Directive) -> Tensor:
    """The tensor of an `.input`, `.output`, `.host` or `.tensor` line."""
    fields = Fields(directive, "of", "shape", "order", "scale", "zero", "batched")
    name = fields.name("a name")
    dtype, (rows, columns, channels), _ = fields.shape(3)
    fields.done()
    scale = None
    if "scale" in fields.attributes:
        scale = single(fields.value("scale", Number, "a number").value)
    batched = True
    if "batched" in fields.attributes:
        word = fields.text("batched")
        if word not in ("yes", "no"):
            node = fields.attributes["batched"]
            raise fields.fault("E306", f"`batched`: expected yes or no, found `{word}`", node)
        batched = word == "yes"
    return Tensor(
        role="inner" if directive.name == ".tensor" else directive.name[1:],
        name=name,
        dtype=dtype,
        shape=(rows, columns, channels),
        onnx_name=fields.text("of"),
        onnx_shape=tuple(whole_numbers(fields.value("shape", Items, "a list"))),
        order=tuple(whole_numbers(fields.value("order", Items, "a list"))),
        scale=scale,
        zero=fields.integer("zero", 0) or 0,
        batched=batched,
    )


def read_partition(directive: Directive) -> Partition:
    """The partition of a `.partition` line, its model still to be read."""
    fields = Fields(directive, "sha256")
    name = fields.name("a name")
    inputs, outputs = [], []
    while not isinstance(fields.peek(), Arrow):
        inputs.append(fields.name("a tensor or `->`"))
    fields.take(Arrow, "`->`")
    while fields.peek() is not None:
        outputs.append(fields.name("a tensor"))
    fields.done()
    if "sha256" not in fields.attributes:
        raise fields.fault("E304", "`.partition` needs `sha256=`")
    return Partition(name, tuple(inputs), tuple(outputs), _sha256(fields))


def read_channel(directive: Directive) -> Channel:
    """The channel of a `.channel` line."""
    fields = Fields(directive, "depth", "carries", "rows")
    name = fields.name("a name")
    if fields.name("the word `core`") != "core":
        raise fields.fault("E306", "expected the word `core` after the channel's name")
    source = fields.count("the number of the sending core")
    fields.take(Arrow, "`->`")
    target = fields.count("the number of the receiving core")
    dtype, (columns, channels), _ = fields.shape(2)
    address = _address(fields)
    fields.done()
    depth = fields.natural(fields.value("depth", Number, "a whole number"), "`depth`", 1)
    carries = _carries(fields) if "carries" in fields.attributes else None
    rows = _rows(fields) if "rows" in fields.attributes else None
    return Channel(name, source, target, dtype, (columns, channels), depth, address, carries, rows)


def _rows(fields: Fields) -> tuple[int, int, int]:
    items = fields.value("rows", Items, "a list like `[1 56 4]`")
    numbers = whole_numbers(items)
    if len(numbers) != 3:
        message = "`rows`: expected first row, end and step like `[1 56 4]`"
        raise fields.fault("E306", message, items)
    return numbers[0], numbers[1], numbers[2]


def _carries(fields: Fields) -> tuple[str, int, int]:
    box = fields.value("carries", Box, "a tensor and its channels like `relu1[0..6]`")
    span = read_span(box.axes[0], "channel") if len(box.axes) == 1 else None
    if span is None or span.start.terms or span.start.constant < 0:
        message = "`carries`: expected a tensor and its channels like `relu1[0..6]`"
        raise fields.fault("E306", message, box)
    first = span.start.constant
    return box.name.text, first, first + span.count


def _address(fields: Fields) -> int | None:
    what = "a byte address like `@0x40` or `@global`"
    node = fields.take(Address, what)
    if node.text == "global":
        return None
    try:
        address = int(node.text, 16 if node.text[:2] == "0x" else 10)
    except ValueError:
        address = -1
    if not 0 <= address < MAX_SIZE:
        raise fields.fault("E306", f"expected {what}, found `@{node.text}`", node)
    return address


def read_buffer(directive: Directive) -> Buffer:
    """The buffer of a `.buffer` line."""
    fields = Fields(directive, "fill")
    name = fields.name("a name")
    dtype, (rows, columns, channels), ring = fields.shape(3, ring=True)
    address = _address(fields)
    fields.done()
    shape = (rows, columns, channels)
    return Buffer(name, dtype, shape, address, ring, fields.integer("fill", None))


def read_core(directive: Directive) -> tuple[int, str]:
    """(index, layer) of a core."""
    fields = Fields(directive)
    index = fields.count("the number of the core")
    layer = "" if fields.peek() is None else fields.name("the name of the layer")
    fields.done()
    return index, layer


@dataclass(frozen=True)
class MatrixHead:
    """A `.matrix` line; the blocks are empty yet. of: the matrix of which it is a copy."""

    name: str
    layer: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    draft: BlocksDraft
    of: str


def read_matrix(directive: Directive, layer: str) -> MatrixHead:
    """The head of a matrix."""
    fields = Fields(directive, "layer", "inputs", "outputs", "cell_bits", "lines", "of")
    box = fields.take(Box, "a name and a shape like `conv1[25, 6]`")
    sizes = [axis_number(axis) for axis in box.axes]
    if len(sizes) != 2 or any(size is None or size >= MAX_SIZE for size in sizes):
        raise fields.fault("E309", "expected a name and a shape like `conv1[25, 6]`", box)
    fields.done()
    inputs, outputs = (size or 0 for size in sizes)
    for key, limit in (("cell_bits", MAX_CELL_BITS), ("lines", MAX_LINES)):
        if key not in fields.attributes:
            continue
        node = fields.attributes[key]
        if fields.natural(node.value, f"`{key}`", 1) > limit:
            raise fields.fault("E309", f"`{key}` is above {limit}", node)
        if not directive.opens:
            message = f"`{key}` belongs to a matrix that stands in the text and ends in `:`"
            raise fields.fault("E305", message, node)
    if "layer" in fields.attributes:
        layer = fields.text("layer")
    draft = BlocksDraft(
        inputs, outputs, fields.integer("cell_bits", 1) or 1, fields.integer("lines", None)
    )
    of = fields.text("of") if "of" in fields.attributes else ""
    if of and directive.opens:
        message = "a copy (`of`) takes the blocks of its original and has no lines"
        raise fields.fault("E305", message, fields.attributes["of"])
    return MatrixHead(
        box.name.text, layer, fields.range("inputs"), fields.range("outputs"), draft, of
    )


TableHead = tuple[str, str, tuple[int, ...], list[Number] | None, bool]


def read_table(directive: Directive) -> TableHead:
    """(name, type, shape, values, more) of a table.

    values: None for a table in the data file. more: the values stand on the lines that follow.
    """
    fields = Fields(directive)
    name = fields.name("a name")
    dtype, shape, _ = fields.shape(None)
    if fields.peek() is None:
        return name, dtype, shape, None, False
    contents = fields.take(Contents, "`= [values]`")
    fields.done()
    if contents.values is None:
        return name, dtype, shape, [], True
    return name, dtype, shape, table_numbers(contents.values), False


def table_numbers(items: Items) -> list[Number]:
    """The numbers of a list, ranges written out."""
    numbers: list[Number] = []
    for item in items.items:
        if isinstance(item, Range):
            single_range = Items(item.column, item.end, (item,))
            values = whole_numbers(single_range)
            numbers += [Number(item.column, item.end, value) for value in values]
        else:
            numbers.append(item)
    return numbers


def table_array(
    dtype: str, shape: tuple[int, ...], numbers: Sequence[Number], head: Directive
) -> NDArray[np.generic]:
    """The array of a table. Raises SyntaxFault E309 for wrong counts and values out of range."""
    wanted = int(np.prod(shape, dtype=np.int64))
    if len(numbers) != wanted:
        message = f"the shape wants {wanted} values, found {len(numbers)}"
        raise SyntaxFault("E309", message, head.column, head.end)
    kind = DTYPES[dtype]
    if dtype != "f32":
        info = np.iinfo(kind)
        for number in numbers:
            inside = isinstance(number.value, int) and info.min <= number.value <= info.max
            if not inside:
                message = f"`{number.value}` is no {dtype}; those are {info.min}..{info.max}"
                raise SyntaxFault("E309", message, number.column, number.end)
    with np.errstate(over="ignore"):
        return np.array([number.value for number in numbers], kind).reshape(shape)
