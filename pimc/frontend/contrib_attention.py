"""Attention of com.microsoft, as onnxruntime's transformer optimizer writes it, in ONNX's own."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from pimc.frontend.spelling import Speller, Spelling, shape_of

Results = list[ir.Value | None]
_FILTER = -10000.0  # what stands for "masked" by default
_TURN: Final = (0, 2, 1, 3)  # [images, places, heads, channels] and back


def attention(write: Spelling) -> Results | None:
    """Attention: one product makes queries, keys and values."""
    source, weights, bias = (write.input(position) for position in range(3))
    sizes, columns = shape_of(source), shape_of(weights)
    unread = [write.input(position) for position in (4, 6)]  # states of earlier places
    if sizes is None or columns is None or write.has_output(1) or unread != [None, None]:
        return None
    if write.number("do_rotary"):
        return None
    parts = [int(n) for n in write.attributes("qkv_hidden_sizes").get("qkv_hidden_sizes", ())]
    parts = parts or [columns[-1] // 3] * 3
    product = write.op("MatMul", (source, weights))
    if bias is not None:
        product = write.op("Add", (product, bias), "bias")
    return attended(write, product, parts, sizes, 3, 5)


def attended(
    write: Spelling,
    product: ir.Value,
    channels: list[int],
    sizes: tuple[int, ...],
    mask: int,
    addend: int | None,
) -> Results | None:
    """Attention behind the one product that makes queries, keys and values.

    channels: of each of the three. sizes: shape of what the product was made of.
    """
    cuts = np.cumsum([0, *channels])
    axis = write.constant("last", np.array([len(sizes) - 1]))
    three = []
    for at, name in enumerate(("query", "key", "value")):
        start = write.constant(f"{name}_start", cuts[at : at + 1])
        end = write.constant(f"{name}_end", cuts[at + 1 : at + 2])
        three.append(write.op("Slice", (product, start, end, axis), name))
    return _heads(write, three, channels, sizes[0], (sizes[1], sizes[1]), mask, addend)


def multi_head_attention(write: Spelling) -> Results | None:
    """MultiHeadAttention of three separate tensors [images, places, channels]."""
    three = [write.input(position) for position in range(3)]
    shapes = [shape_of(value) for value in three]
    beyond = [write.input(position) for position in range(6, 10)]
    if any(value is not None for value in beyond) or any(map(write.has_output, (1, 2, 3))):
        return None
    if any(shape is None or len(shape) != 3 for shape in shapes):
        return None  # packed, or keys of another layer's form
    parts = [shape[2] for shape in shapes if shape]
    bias = write.array(3)
    if write.input(3) is not None and bias is None:
        return None
    cuts = np.cumsum([0, *parts])
    operands: list[ir.Value] = []
    for at, (value, name) in enumerate(zip(three, ("query", "key", "value"), strict=True)):
        assert value is not None
        if bias is not None:
            own = write.constant(f"{name}_bias", bias[cuts[at] : cuts[at + 1]])
            value = write.op("Add", (value, own), f"{name}_bias")
        operands.append(value)
    images, places = (shapes[0] or ())[:2]
    return _heads(write, operands, parts, images, (places, (shapes[1] or ())[1]), 4, 5)


def _heads(
    write: Spelling,
    three: list[ir.Value],
    channels: list[int],
    images: int,
    places: tuple[int, int],
    mask: int,
    addend: int | None,
) -> Results | None:
    """Softmax of the scaled products of queries and keys, times the values.

    places: of queries, and of keys and values. mask, addend: input positions of the mask and of
    what is added to the products.
    """
    heads = int(write.number("num_heads", 1))
    if any(size % heads for size in channels):
        return None
    rows = [places[0], places[1], places[1]]
    names = ("query", "key", "value")
    query, key, value = (
        write.turned(
            write.shaped(tensor, (images, count, heads, size // heads), f"{name}_heads"),
            _TURN if name != "key" else (0, 2, 3, 1),
            f"{name}_turned",
        )
        for tensor, count, size, name in zip(three, rows, channels, names, strict=True)
    )
    scale = write.number("scale") or 1 / float(np.sqrt(channels[0] // heads))
    products = write.op("MatMul", (query, key), "products")
    products = write.op("Mul", (products, write.constant("scale", np.float32(scale))), "scaled")
    if addend is not None and write.input(addend) is not None:
        products = write.op("Add", (products, write.input(addend)), "with_bias")
    masks = _masks(write, mask, images, places)
    if masks is None:
        return None
    for number, term in enumerate(masks):
        products = write.op("Add", (products, term), f"masked_{number}")
    shares = write.op("Softmax", (products,), "softmax", axis=-1)
    mixed = write.turned(write.op("MatMul", (shares, value), "mixed"), _TURN, "places")
    result = write.shaped(mixed, (images, places[0], channels[2]), "joined")
    return [result, *[None] * (len(write.node.outputs) - 1)]


def _masks(
    write: Spelling, position: int, images: int, places: tuple[int, int]
) -> list[ir.Value] | None:
    """What is added so that nobody looks ahead, or at what is masked out; None if not known."""
    low = write.number("mask_filter_value", _FILTER)
    found = []
    if write.number("unidirectional"):
        ahead = np.triu(np.ones(places, np.float32), places[1] - places[0] + 1)
        found.append(write.constant("ahead", ahead * np.float32(low)))
    given = write.input(position)
    if given is None:
        return found
    sizes = shape_of(given)
    if sizes != (images, places[1]):
        return None  # lengths, or a mask for every pair of places
    shown = write.op("Cast", (given,), "shown", to=int(ir.DataType.BOOL))
    real = write.op("Cast", (shown,), "mask", to=int(ir.DataType.FLOAT))
    low_if = write.op("Sub", (write.constant("one", np.float32(1)), real), "masked_out")
    term = write.op("Mul", (low_if, write.constant("low", np.float32(low))), "filter")
    return [*found, write.shaped(term, (images, 1, 1, places[1]), "mask_rows")]


def embedding(write: Spelling) -> Results | None:
    """EmbedLayerNormalization: rows of two or three tables, summed and normalized."""
    numbers, segments, words, positions, kinds = (write.input(at) for at in range(5))
    sizes, rows = shape_of(numbers), write.array(3)
    if sizes is None or write.has_output(1) or (segments is None) != (kinds is None):
        return None
    if write.input(8) is not None:
        places = write.op("Gather", (positions, write.input(8)), "positions")
    elif rows is not None and len(rows) >= sizes[-1]:
        places = write.constant("positions", rows[: sizes[-1]])
    else:
        return None
    total = write.op("Gather", (words, numbers), "words")
    if segments is not None:
        total = write.op("Add", (total, write.op("Gather", (kinds, segments), "kinds")), "typed")
    total = write.op("Add", (total, places), "placed")
    epsilon = write.number("epsilon", 1e-12)
    gains = [value for value in (write.input(5), write.input(6)) if value is not None]
    normed = write.op("LayerNormalization", (total, *gains), axis=-1, epsilon=epsilon)
    return [normed, None, total if write.has_output(2) else None]


ATTENTION: Final[dict[str, Speller]] = {
    "Attention": attention,
    "MultiHeadAttention": multi_head_attention,
    "EmbedLayerNormalization": embedding,
}
