"""Einsum: a product of two tensors over letters, as transposes, reshapes and one MatMul."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pimc.frontend.net import Op
from pimc.frontend.writer import Writer


def einsum(write: Writer) -> list[Op] | None:
    """One tensor, or two with letters of their own each; no letter twice in a term."""
    net, op = write.net, write.op
    if any(name not in net.shapes for name in op.inputs) or len(op.inputs) > 2:
        return None
    ranks = [len(net.shapes[name]) for name in op.inputs]
    parsed = _parsed(str(op.attributes["equation"]), ranks)
    if parsed is None:
        return None
    terms, result = parsed
    names = list(op.inputs)
    if len(names) == 2 and net.is_constant(names[0]):  # weights are second operands
        names.reverse()
        terms.reverse()
    sizes: dict[str, int] = {}
    for name, term in zip(names, terms, strict=True):
        for letter, size in zip(term, net.shapes[name], strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    if any(
        tuple(sizes[letter] for letter in term) != net.shapes[name]
        for name, term in zip(names, terms, strict=True)
    ):
        return None  # a size of 1 that broadcasts
    if len(names) == 1:
        kept = _summed(write, names[0], terms[0], result, sizes, "only")
        return _ended(write, *kept, result)
    left, right = (
        _summed(write, name, term, result + other, sizes, side)
        for name, term, other, side in zip(
            names, terms, reversed(terms), ("left", "right"), strict=True
        )
    )
    return _product(write, left, right, result, sizes)


def _parsed(equation: str, ranks: list[int]) -> tuple[list[str], str] | None:
    """Letters of each term and of the result, dots spelled as capitals; None beyond that."""
    inputs, _, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        return None
    spare = [chr(code) for code in range(192, 192 + 64)]
    behind = [rank - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=True)]
    hidden = max(behind)
    spelled = [
        term.replace("...", "".join(spare[hidden - count : hidden]))
        for term, count in zip(terms, behind, strict=True)
    ]
    if "->" not in equation:
        letters = "".join(terms).replace(".", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        result = ("..." if "..." in equation else "") + "".join(once)
    whole = result.replace("...", "".join(spare[:hidden]))
    fits = [(len(term), len(set(term))) for term in spelled] == [(rank, rank) for rank in ranks]
    known = set(whole) <= set("".join(spelled)) and len(set(whole)) == len(whole)
    return (spelled, whole) if fits and known else None


def _summed(
    write: Writer, name: str, term: str, wanted: str, sizes: Mapping[str, int], wish: str
) -> tuple[str, str]:
    """A tensor and its letters, those that nobody else has summed up."""
    lost = [axis for axis, letter in enumerate(term) if letter not in wanted]
    if not lost:
        return name, term
    kept = "".join(letter for letter in term if letter in wanted)
    if write.net.is_constant(name):
        values = write.net.constant(name).sum(axis=tuple(lost), dtype=np.float32)
        return write.constant(f"{wish}_sum", values), kept
    axes = write.constant(f"{wish}_axes", np.array(lost, np.int64))
    shape = [sizes[letter] for letter in kept]
    return write.add("ReduceSum", (name, axes), shape, f"{wish}_sum", keepdims=0), kept


def _product(
    write: Writer,
    left: tuple[str, str],
    right: tuple[str, str],
    result: str,
    sizes: Mapping[str, int],
) -> list[Op]:
    """``[common, rows, summed] x [common, summed, columns]``.

    Without common letters, the first one of the rows stays apart: it may be the batch.
    """
    common = "".join(c for c in result if c in left[1] and c in right[1])
    summed = "".join(c for c in left[1] if c in right[1] and c not in result)
    rows = "".join(c for c in left[1] if c not in common + summed)
    columns = "".join(c for c in right[1] if c not in common + summed)
    lead = common or rows[:1]
    inner = rows if common else rows[1:]
    wide, high, deep = (math.prod(sizes[c] for c in part) for part in (columns, inner, summed))
    leading = [sizes[c] for c in lead]
    is_matrix = not common and not inner
    a = _laid_out(write, *left, lead + inner + summed, sizes, "left")
    a = write.reshape(a, (*leading, *([] if is_matrix else [high]), deep), "left_rows")
    b = _laid_out(write, *right, common + summed + columns, sizes, "right")
    matrices = (*(leading if common else []), deep, wide)
    if write.net.is_constant(b):
        b = write.constant("weights", write.net.constant(b).reshape(matrices))
    else:
        b = write.reshape(b, matrices, "right_columns")
    shape = (*leading, *([] if is_matrix else [high]), wide)
    product = write.add("MatMul", (a, b), shape, "product")
    letters = lead + inner + columns
    product = write.reshape(product, [sizes[c] for c in letters], "letters")
    return _ended(write, product, letters, result)


def _laid_out(
    write: Writer, name: str, term: str, wanted: str, sizes: Mapping[str, int], wish: str
) -> str:
    """A tensor with its letters in another order."""
    if term == wanted:
        return name
    order = [term.index(letter) for letter in wanted]
    if write.net.is_constant(name):
        return write.constant(f"{wish}_turned", write.net.constant(name).transpose(order))
    shape = [sizes[letter] for letter in wanted]
    return write.add("Transpose", (name,), shape, f"{wish}_turned", perm=order)


def _ended(write: Writer, name: str, term: str, result: str) -> list[Op]:
    write.add("Transpose", (name,), None, perm=[term.index(letter) for letter in result])
    return write.ops
