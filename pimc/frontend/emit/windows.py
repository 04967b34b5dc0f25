"""Windows: kernel, stride, dilation and explicit pads of a Conv or a pool, auto_pad resolved."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.frontend.net import Net, Op


@dataclass(frozen=True)
class Windows:
    """Per spatial axis: kernel, stride, dilation; pads: all begins, then all ends (as ONNX)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements from the first to the last position of a window, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def windows_of(net: Net, op: Op, kernel: tuple[int, ...]) -> Windows:
    """Windows of an operator with the attributes of Conv, AveragePool or MaxPool."""
    axes = len(kernel)
    strides = tuple(op.attributes.get("strides") or (1,) * axes)
    dilations = tuple(op.attributes.get("dilations") or (1,) * axes)
    mode = op.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = net.shapes[op.inputs[0]][2:]
        begins, ends = [], []
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            low = total // 2 if mode == "SAME_UPPER" else total - total // 2
            begins.append(low)
            ends.append(total - low)
        pads = (*begins, *ends)
    elif mode == "VALID":
        pads = (0,) * (2 * axes)
    else:
        pads = tuple(op.attributes.get("pads") or (0,) * (2 * axes))
    return Windows(kernel, strides, dilations, pads)
