"""Norms: normalization over the places of groups of channels, in whatever words a model says it.

InstanceNormalization, GroupNormalization and LayerNormalization over several axes are one thing:
axis 1 is divided into groups of neighbours, each normalized over all that it holds of an image.
Exporters write a GroupNormalization out as an InstanceNormalization between two Reshapes, with
gain and offset behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimc.frontend.net import Array, Net, Op
from pimc.frontend.writer import Writer

_CHANNEL_NORMS = frozenset(("GroupNormalization", "InstanceNormalization"))


@dataclass(frozen=True, eq=False)
class Groups:
    """count: groups of axis 1. gain, offset: float32, of as many axes as the tensor has behind the
    batch, each of full size or 1."""

    count: int
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]


def is_group_norm(net: Net, op: Op) -> bool:
    """Whether an operator normalizes over several axes behind the batch."""
    if op.op_type != "LayerNormalization":
        return op.op_type in _CHANNEL_NORMS and not op.domain
    rank = len(net.shapes[op.inputs[0]])
    return int(op.attributes.get("axis", -1)) % rank in (1, 2) and not is_over_last(net, op)


def is_over_last(net: Net, op: Op) -> bool:
    """Whether a LayerNormalization is over the last axis alone."""
    rank = len(net.shapes[op.inputs[0]])
    return int(op.attributes.get("axis", -1)) % rank == rank - 1


def groups_of(net: Net, op: Op) -> Groups:
    """What an operator of which `is_group_norm` holds computes with; its constants are known."""
    shape = net.shapes[op.inputs[0]][1:]
    if op.op_type == "LayerNormalization":
        axis = int(op.attributes.get("axis", -1)) % (len(shape) + 1)
        inner = (*[1] * (axis - 1), *shape[axis - 1 :])
        count = math.prod(shape[: axis - 1])
    else:
        inner = (shape[0], *[1] * (len(shape) - 1))
        count = int(op.attributes.get("num_groups", shape[0]))
    gain, offset = (_parameter(net, op, at, inner) for at in (1, 2))
    return Groups(count, gain, offset)


def _parameter(net: Net, op: Op, at: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Gain or offset, axes along which it does not vary left at size 1."""
    name = op.input(at)
    values = net.constant(name).astype(np.float32) if name else np.zeros(1, np.float32)
    if values.size == math.prod(shape):
        values = values.reshape(shape)
    values = np.broadcast_to(values, shape)
    for axis in range(len(shape)):
        first = values.take([0], axis)
        values = first if np.array_equal(np.broadcast_to(first, values.shape), values) else values
    return np.ascontiguousarray(values)


# ---------------------------------------------------------------------- read back
def gather_norms(net: Net) -> None:
    """Read normalizations that were written out back as one operator each, in place."""
    net.ops = [_by_channel(net, op) for op in net.ops]
    readers, makers, outputs = net.consumers(), net.producers(), net.output_tensors()
    replaced: dict[int, Op] = {}
    for op in net.ops:
        if op.op_type not in _CHANNEL_NORMS or not _is_plain(net, op):
            continue
        chain = _Chain(net, op, readers, outputs)
        chain.take_reshapes(makers)
        while chain.take_factor() or chain.take_term():
            pass
        if chain.last is not op:
            replaced[id(chain.last)] = chain.written()
    net.ops = [replaced.get(id(op), op) for op in net.ops]
    net.remove_unused()


def _is_plain(net: Net, op: Op) -> bool:
    """Whether there are a constant gain and offset for each channel of a known shape."""
    shape = net.shapes.get(op.inputs[0], ())
    constants = op.inputs[1:3]
    if op.domain or len(shape) < 3 or not all(map(net.is_constant, constants)):
        return False
    return all(net.shapes[name] == (shape[1],) for name in constants)


def _by_channel(net: Net, op: Op) -> Op:
    """A LayerNormalization whose gain and offset are the same everywhere, by channel."""
    known = [name for name in op.inputs if name]
    if op.op_type != "LayerNormalization" or op.domain or any(op.outputs[1:]):
        return op
    if any(name not in net.shapes for name in known) or not all(map(net.is_constant, known[1:])):
        return op
    if not is_group_norm(net, op):
        return op
    groups, channels = groups_of(net, op), net.shapes[op.inputs[0]][1]
    if groups.gain.size > 1 or groups.offset.size > 1 or groups.count not in (1, channels):
        return op
    write = Writer(net, op)
    names = [
        write.constant(wish, np.full(channels, values.reshape(())))
        for wish, values in (("gain", groups.gain), ("offset", groups.offset))
    ]
    epsilon = float(op.attributes.get("epsilon", 1e-5))
    attributes = {"num_groups": groups.count, "epsilon": epsilon}
    inputs = (op.inputs[0], *names)
    return Op(op.name, "GroupNormalization", inputs, op.outputs, attributes)


class _Chain:
    """A normalization by channels and what follows it alone. last: the operator it ends with."""

    def __init__(self, net: Net, op: Op, readers: dict[str, list[Op]], outputs: set[str]) -> None:
        self.net, self.op, self.last = net, op, op
        self.readers, self.outputs = readers, outputs
        self.source, self.channels = op.inputs[0], net.shapes[op.inputs[0]][1]
        self.groups = int(op.attributes.get("num_groups", self.channels))
        self.gain, self.offset = (
            net.constant(name).astype(np.float32).reshape(-1) for name in op.inputs[1:3]
        )

    def take_reshapes(self, makers: dict[str, Op]) -> None:
        """The Reshapes that make groups of channels into channels, and that undo it."""
        net, before, after = self.net, makers.get(self.source), self._follower(moves=True)
        if self.op.op_type != "InstanceNormalization" or before is None or after is None:
            return
        if before.op_type != "Reshape" or after.op_type != "Reshape":
            return
        shape, grouped = net.shapes.get(before.inputs[0], ()), net.shapes[self.source]
        is_whole = len(shape) > 2 and shape == net.shapes.get(after.output)
        if not is_whole or shape[0] != grouped[0] or shape[1] % grouped[1]:
            return
        if net.qparams.get(before.inputs[0]) != net.qparams.get(self.source):
            return
        size = shape[1] // grouped[1]
        self.source, self.channels, self.last = before.inputs[0], shape[1], after
        self.gain, self.offset = np.repeat(self.gain, size), np.repeat(self.offset, size)

    def take_factor(self) -> bool:
        """A constant factor for each channel, as a part of the gain."""
        values = self._constant("Mul")
        if values is None:
            return False
        self.gain, self.offset = self.gain * values, self.offset * values
        return True

    def take_term(self) -> bool:
        """A constant that is added to each channel, as a part of the offset."""
        values = self._constant("Add")
        if values is None:
            return False
        self.offset = self.offset + values
        return True

    def _constant(self, op_type: str) -> Array | None:
        """The constant by channel of the one operator that follows, which is taken up."""
        after = self._follower(moves=False)
        if after is None or after.op_type != op_type or after.domain:
            return None
        other = after.inputs[after.inputs[0] == self.last.output]
        shape = self.net.shapes[self.last.output]
        if not self.net.is_constant(other) or self.net.shapes.get(after.output) != shape:
            return None
        sizes = self.net.shapes[other]
        sizes = (*[1] * (len(shape) - len(sizes)), *sizes)
        if any(size > 1 for axis, size in enumerate(sizes) if axis != 1):
            return None
        self.last = after
        return self.net.constant(other).astype(np.float32).reshape(-1)

    def _follower(self, moves: bool) -> Op | None:
        """The only reader of the result, of which nobody else wants to know the integers.

        moves: it hands the integers on.
        """
        name = self.last.output
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs or any(self.last.outputs[1:]):
            return None
        held = self.net.qparams.get(name)
        is_free = held is None or (moves and held == self.net.qparams.get(readers[0].output))
        return readers[0] if is_free else None

    def written(self) -> Op:
        """One operator for all that was taken up."""
        write = Writer(self.net, self.last)
        names = (write.constant("gain", self.gain), write.constant("offset", self.offset))
        epsilon = float(self.op.attributes.get("epsilon", 1e-5))
        attributes = {"num_groups": self.groups, "epsilon": epsilon}
        inputs, outputs = (self.source, *names), self.last.outputs
        return Op(self.op.name, "GroupNormalization", inputs, outputs, attributes)


# ---------------------------------------------------------------------- rewrites
def flat_layer_norm(write: Writer) -> list[Op] | None:
    """Over several axes behind several others: over their product, row by row."""
    net, op, shape = write.net, write.op, write.shape()
    axis = int(op.attributes.get("axis", -1)) % len(shape)
    constants = [name for name in op.inputs[1:] if name]
    if axis == 0 or is_over_last(net, op) or is_group_norm(net, op):
        return None
    if not all(map(net.is_constant, constants)):
        return None
    rows = (*shape[:axis], math.prod(shape[axis:]))
    flat = write.reshape(op.inputs[0], rows, "flatten")
    names = [
        write.constant(
            f"parameter{at}", np.broadcast_to(net.constant(name), shape[axis:]).reshape(-1)
        )
        for at, name in enumerate(constants)
    ]
    attributes = {**op.attributes, "axis": -1}
    normed = write.add("LayerNormalization", (flat, *names), rows, **attributes)
    write.reshape(normed, None, "unflatten")
    return write.ops


def mean_variance(write: Writer) -> list[Op] | None:
    """MeanVarianceNormalization: what it does not reduce over becomes channels."""
    op, shape = write.op, write.shape()
    rank = len(shape)
    axes = {int(axis) % rank for axis in op.attributes.get("axes", (0, 2, 3))}
    kept = [axis for axis in range(rank) if axis not in axes]
    if not kept or rank < 2:
        return None
    tail = [axis for axis in range(rank) if axis in axes]
    batch = [axis for axis in kept if axis == 0]
    source, order = op.inputs[0], [*kept, *tail]
    if order != sorted(order):
        turned = [shape[axis] for axis in order]
        source = write.add("Transpose", (source,), turned, "turned", perm=order)
    lead = math.prod(shape[axis] for axis in batch)
    channels = math.prod(shape[axis] for axis in kept) // lead
    rows = [lead, channels, *(shape[axis] for axis in tail)]
    source = write.reshape(source, rows, "channels")
    names = [write.constant(wish, np.full(channels, value, np.float32))
             for wish, value in (("gain", 1), ("offset", 0))]  # fmt: skip
    epsilon = 1e-18  # of the variance: the operator adds 1e-9 to its root
    normed = write.add("InstanceNormalization", (source, *names), rows, "norm", epsilon=epsilon)
    if order == sorted(order):
        write.reshape(normed, None, "shape")
        return write.ops
    normed = write.reshape(normed, [shape[axis] for axis in order], "shape")
    write.add("Transpose", (normed,), None, perm=np.argsort(order).tolist())
    return write.ops


def one_image(write: Writer) -> list[Op] | None:
    """Images that are not a batch: the groups of all of them are those of one."""
    net, op, shape = write.net, write.op, write.shape()
    if shape[0] == 1 or not is_group_norm(net, op):
        return None
    if len(shape) < 3 or not all(net.is_constant(name) for name in op.inputs[1:] if name):
        return None
    attributes, names = dict(op.attributes), list(op.inputs[1:])
    folded = (1, shape[0] * shape[1], *shape[2:])
    if op.op_type == "LayerNormalization":
        axis = int(op.attributes.get("axis", -1)) % len(shape)
        folded, attributes["axis"] = (1, math.prod(shape[:axis]), *shape[axis:]), 2
    else:
        names = [
            write.constant(f"parameter{at}", np.tile(net.constant(name).reshape(-1), shape[0]))
            for at, name in enumerate(names)
        ]
        if op.op_type == "GroupNormalization":
            attributes["num_groups"] = int(attributes["num_groups"]) * shape[0]
    source = write.reshape(op.inputs[0], folded, "one")
    normed = write.add(op.op_type, (source, *names), folded, **attributes)
    write.reshape(normed, None, "several")
    return write.ops
