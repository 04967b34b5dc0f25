"""Volumes: convolutions and pools over three axes, in terms of those over two.

The planes of a volume lie one below the other, so its depth is folded into the height. A
convolution reads the planes under its kernel side by side, as channels: one layer with one set of
weights, whose windows between two planes are dropped. A pool takes each plane first, then the
depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pimc.frontend.emit.windows import Windows, windows_of
from pimc.frontend.net import Array, Op
from pimc.frontend.writer import Writer

_RANK = 5  # batch, channels, depth, height, width


def volume_conv(write: Writer) -> list[Op] | None:
    """A Conv over depth, height and width with constant weights."""
    net, op, shape = write.net, write.op, write.shape()
    if len(shape) != _RANK or not net.is_constant(op.inputs[1]) or shape[0] != 1:
        return None
    windows = windows_of(net, op, net.shapes[op.inputs[1]][2:])
    if any(pad < 0 for pad in windows.pads):
        return None
    group, stride = int(op.attributes.get("group", 1)), windows.strides[1]
    _, outputs, depth, height, width = net.shapes[op.output]
    source, rows = _planes(write, windows)
    source, channels = _side_by_side(write, source, windows, depth, group)
    whole = (1, channels, depth * rows, shape[4])
    source = write.reshape(source, whole, "below_each_other")
    below = max(windows.reach[1] - stride, 0)
    made = depth * rows // stride
    result = write.add(
        "Conv",
        (source, _flat_weights(write, group), *op.inputs[2:]),
        (1, outputs, made, width),
        "planes",
        group=group,
        strides=list(windows.strides[1:]),
        dilations=list(windows.dilations[1:]),
        pads=[0, windows.pads[2], below, windows.pads[5]],
    )
    if made == depth * height:
        write.reshape(result, None, "volume")
        return write.ops
    result = write.reshape(result, (1, outputs, depth, made // depth, width), "volume")
    _cut(write, result, None, 3, range(height), "valid")
    return write.ops


def _planes(write: Writer, windows: Windows) -> tuple[str, int]:
    """The input with its padding of depth and height, and the height of a plane.

    The height is a multiple of the stride, so that the windows of all planes start alike.
    """
    shape, stride = write.shape(), windows.strides[1]
    top, bottom = windows.pads[1], windows.pads[4]
    bottom += -(shape[3] + top + bottom) % stride
    pads = [0, 0, windows.pads[0], top, 0, 0, 0, windows.pads[3], bottom, 0]
    if not any(pads):
        return write.op.inputs[0], shape[3]
    padded = [size + pads[at] + pads[at + _RANK] for at, size in enumerate(shape)]
    name = write.constant("pads", np.array(pads, np.int64))
    return write.add("Pad", (write.op.inputs[0], name), padded, "padded"), padded[3]


def _side_by_side(
    write: Writer, source: str, windows: Windows, depth: int, group: int
) -> tuple[str, int]:
    """For each plane of the result those under its kernel as channels, group by group."""
    net, (taps, stride, step) = write.net, (w[0] for w in (windows.kernel, windows.strides,
                                                           windows.dilations))  # fmt: skip
    _, inputs, planes, *plane = net.shapes[source]
    parts = [
        _cut(write, source, (1, inputs, depth, *plane), 2,
             range(tap * step, tap * step + (depth - 1) * stride + 1, stride), f"tap{tap}")
        for tap in range(taps)
        if taps > 1 or stride > 1 or planes > depth
    ]  # fmt: skip
    if len(parts) < 2:
        return (parts or [source])[0], inputs
    channels = inputs * taps
    joined = write.add("Concat", parts, (1, channels, depth, *plane), "taps", axis=1)
    if group > 1:
        split = (1, taps, group, inputs // group, depth, *plane)
        joined = write.reshape(joined, split, "taps_of_groups")
        order = [0, 2, 1, 3, 4, 5, 6]
        turned = [split[axis] for axis in order]
        joined = write.add("Transpose", (joined,), turned, "groups_of_taps", perm=order)
    return joined, channels


def _flat_weights(write: Writer, group: int) -> str:
    """Weights [outputs, taps of the depth * channels / group, rows, columns]; integers kept."""
    net, name = write.net, write.op.inputs[1]

    def flat(values: Array) -> Array:
        outputs, _, _, *kernel = values.shape
        return np.ascontiguousarray(values.swapaxes(1, 2)).reshape(outputs, -1, *kernel)

    held = net.quantized.get(name)
    if held is None or held.axis not in (None, 0):
        return write.constant("weights", flat(net.constant(name)))
    made = net.fresh(f"{write.op.output}_weights")
    net.quantized[made] = replace(held, values=flat(held.values))
    net.shapes[made] = net.quantized[made].values.shape
    return made


def _cut(
    write: Writer, source: str, shape: Sequence[int] | None, axis: int, places: range, wish: str
) -> str:
    """The elements of an axis at ``places``."""
    limits = (places.start, places.stop, axis, places.step)
    names = [write.constant(f"{wish}_cut{at}", np.array([n], np.int64))
             for at, n in enumerate(limits)]  # fmt: skip
    return write.add("Slice", (source, *names), shape, wish)


def volume_pool(write: Writer) -> list[Op] | None:
    """MaxPool or AveragePool over depth, height and width: planes first, then the depth.

    An element of the padding counts, or does not, along each axis for itself.
    """
    net, op, shape = write.net, write.op, write.shape()
    if len(shape) != _RANK or op.attributes.get("ceil_mode") or any(op.outputs[1:]):
        return None
    if shape[0] != 1:
        return None
    windows = windows_of(net, op, tuple(op.attributes["kernel_shape"]))
    if any(pad < 0 for pad in windows.pads):
        return None
    _, channels, depth, height, width = net.shapes[op.output]
    folded = _folded(windows, shape, height)
    source = write.reshape(op.inputs[0], folded, "planes")
    places = (*folded[:2], folded[2] // shape[3] * height, width)
    source = _pooled(write, source, places, windows, (1, 2), "plane")
    source = write.reshape(source, (1, channels, shape[2], height * width), "columns")
    places = (1, channels, depth, height * width)
    source = _pooled(write, source, places, windows, (0,), "depth")
    write.reshape(source, None, "volume")
    return write.ops


def _folded(windows: Windows, shape: Sequence[int], height: int) -> tuple[int, ...]:
    """The planes below each other where no window of the result touches two; else as channels."""
    _, channels, depth, rows, columns = shape
    stride = windows.strides[1]
    is_apart = not windows.pads[1] and windows.reach[1] <= stride and rows == height * stride
    if is_apart:
        return 1, channels, depth * rows, columns
    return 1, channels * depth, rows, columns


def _pooled(
    write: Writer,
    source: str,
    shape: Sequence[int],
    windows: Windows,
    axes: tuple[int, ...],
    wish: str,
) -> str:
    """A pool of two axes with the windows of ``axes``; of the depth alone, by rows."""
    kinds = (windows.kernel, windows.strides, windows.dilations)
    kernel, strides, dilations = ([line[a] for a in axes] for line in kinds)
    begins, ends = ([windows.pads[a + first] for a in axes] for first in (0, 3))
    if len(axes) == 1:
        kernel, strides, dilations = ([*line, 1] for line in (kernel, strides, dilations))
        begins, ends = ([*line, 0] for line in (begins, ends))
    if kernel == strides == [1, 1] and not any((*begins, *ends)):
        return source
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    attributes |= {"dilations": dilations, "pads": [*begins, *ends]}
    if "count_include_pad" in write.op.attributes:
        attributes["count_include_pad"] = write.op.attributes["count_include_pad"]
    return write.add(write.op.op_type, (source,), shape, wish, **attributes)


def global_pool(write: Writer) -> list[Op] | None:
    """GlobalAveragePool or GlobalMaxPool of a volume."""
    return _pooled_whole(write, write.op.op_type) if len(write.shape()) == _RANK else None


def reduced_volume(write: Writer) -> list[Op]:
    """ReduceMean or ReduceMax over depth, height and width."""
    return _pooled_whole(
        write, f"Global{'Max' if write.op.op_type == 'ReduceMax' else 'Average'}Pool"
    )


def _pooled_whole(write: Writer, op_type: str) -> list[Op]:
    """One plane of all rows."""
    batch, channels, depth, height, width = write.shape()
    source = write.reshape(write.op.inputs[0], (batch, channels, depth * height, width), "planes")
    pooled = write.add(op_type, (source,), (batch, channels, 1, 1), "pooled")
    write.reshape(pooled, None, "volume")
    return write.ops
