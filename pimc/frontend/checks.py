"""Checks: for each family of operators the reason why one of its nodes is not supported.

A check returns None, or the reason in words that follow "Conv `name`: ". Nothing is raised here:
`pimc.frontend.supported` collects the reasons of all nodes into one message.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from isa.catalog_normalize import MOST_COUNTED
from pimc.frontend.bound import late_weights
from pimc.frontend.ceil_pools import window_count
from pimc.frontend.emit.pool import reduced_axes, spatial_axes
from pimc.frontend.emit.windows import windows_of
from pimc.frontend.islands import is_float
from pimc.frontend.net import Net, Op, used_inputs
from pimc.frontend.norms import groups_of, is_group_norm
from pimc.frontend.recurrent import why_not
from pimc.frontend.regions import BINARY, LOGIC, is_bool, is_lookup

Check = Callable[[Net, Op], str | None]
_FLOAT = onnx.TensorProto.FLOAT
_BOTH = "Add, Sub, Mul, Div, Max and Min"
MAX_FAN_IN = (2**31 - 1) // (255 * 128)  # more products could exceed 32 bits


def check_conv(net: Net, op: Op) -> str | None:
    """Constant weights, one or two spatial axes; `expand` has made two of three."""
    reason = _constant_weights(net, op) or _images(net, op) or _window_attributes(op)
    if reason:
        return reason
    weights = net.shapes[op.inputs[1]]
    if len(weights) not in (3, 4):
        return f"it has {len(weights) - 2} spatial axes; 1 to 3 are supported"
    channels = weights[1] * int(op.attributes.get("group", 1))
    if channels != net.shapes[op.inputs[0]][1]:
        return f"its input has {net.shapes[op.inputs[0]][1]} channels, its weights {channels}"
    return _fan_in(int(np.prod(weights[1:])))


def check_conv_transpose(net: Net, op: Op) -> str | None:
    """Asked only of those that did not become convolutions (`expand`)."""
    axes = len(net.shapes[op.inputs[0]]) - 2
    if axes not in (1, 2, 3):
        return f"it has {axes} spatial axes; 1 to 3 are supported"
    return _constant_weights(net, op) or "its quantized weights cannot be rearranged"


def _window_attributes(op: Op) -> str | None:
    pads = op.attributes.get("pads") or ()
    return f"pads={list(pads)} are negative" if any(pad < 0 for pad in pads) else None


def _constant_weights(net: Net, op: Op) -> str | None:
    if late := late_weights(net, op.inputs[1:2]):
        return late
    if net.is_constant(op.inputs[0]):
        return "its input is a constant and its weights are not the second operand"
    return late_weights(net, op.inputs[2:3], "its bias is")


def _images(net: Net, op: Op) -> str | None:
    size = net.shapes[op.inputs[0]][0]
    return None if size == 1 else f"axis 0 of its input has size {size}, but is not the batch"


def _fan_in(inputs: int) -> str | None:
    if inputs <= MAX_FAN_IN:
        return None
    return f"an output sums {inputs} products; 32 bits are certain to hold {MAX_FAN_IN}"


def check_gemm(net: Net, op: Op) -> str | None:
    """A constant second operand, and a bias per output."""
    reason = _constant_weights(net, op)
    if reason:
        return reason
    if op.attributes.get("transA"):
        return "transA=1 reads the images as columns"
    outputs = net.shapes[op.output][-1]
    if op.input(2) and net.constant(op.input(2)).size not in (1, outputs):
        return f"its bias has shape {list(net.shapes[op.input(2)])}, not one value per output"
    return _product_weights(net, op)


def check_matmul(net: Net, op: Op) -> str | None:
    """A constant second operand, the same for all rows; or two computed ones."""
    if not any(net.is_constant(name) for name in op.inputs[:2]):
        return _computed_product(net, op)
    if not net.is_constant(op.inputs[1]):
        return "its constant is the first operand; weights are taken from the second"
    return _constant_weights(net, op) or _product_weights(net, op)


def _computed_product(net: Net, op: Op) -> str | None:
    """Two computed tensors: the same leading axes, and sums that fit 32 bits."""
    left, right = (net.shapes[name] for name in op.inputs)
    if min(len(left), len(right)) < 2 or left[:-2] != right[:-2]:
        return f"it broadcasts two computed tensors, {list(left)} and {list(right)}"
    if len(left) == 2 and net.batched.intersection(op.inputs):
        return "it mixes the images of a batch"
    limit = (2**31 - 1) // 255**2
    if left[-1] > limit:
        return f"an output sums {left[-1]} products; 32 bits are certain to hold {limit}"
    return None


def _product_weights(net: Net, op: Op) -> str | None:
    weights = net.shapes[op.inputs[1]]
    if len(weights) < 2 or any(size != 1 for size in weights[:-2]):
        return f"its weights have shape {list(weights)}, not one matrix"
    return _fan_in(weights[-1] if op.attributes.get("transB") else weights[-2])


def check_pool(net: Net, op: Op) -> str | None:
    """One or two spatial axes; `expand` has made two of three."""
    if len([name for name in op.outputs if name]) > 1:
        return "its second output, the indices of the maxima, is not supported"
    axes = len(net.shapes[op.inputs[0]]) - 2
    if axes not in (1, 2, 3):
        return f"it has {axes} spatial axes; 1 to 3 are supported"
    reason = _images(net, op) or _window_attributes(op) or _ceil_mode(net, op)
    return reason or ("its windows over three axes have ceil_mode=1" if axes == 3 else None)


def _ceil_mode(net: Net, op: Op) -> str | None:
    """What `ceil_pools` has left: only padding that counts is a reason to keep ceil_mode."""
    if not op.attributes.get("ceil_mode"):
        return None
    windows = windows_of(net, op, tuple(op.attributes["kernel_shape"]))
    axes = len(windows.kernel)
    counts = tuple(
        window_count(size, windows.pads[a], windows.pads[a + axes], reach, windows.strides[a])
        for a, (size, reach) in enumerate(
            zip(net.shapes[op.inputs[0]][2:], windows.reach, strict=True)
        )
    )
    if counts == net.shapes[op.output][2:]:
        return None
    return "with ceil_mode=1 its last window starts in padding that counts"


def check_reduction(net: Net, op: Op) -> str | None:
    """A global pool over all axes behind batch and channel; `expand` has seen to other axes."""
    axes = reduced_axes(op, net)
    if axes is None:
        return "its axes are computed at run time"
    return check_pool(net, op) if spatial_axes(op, net) else "it reduces over the batch axis"


def check_elementwise(net: Net, op: Op) -> str | None:
    """Asked only of operators that did not fit into a table of one tensor."""
    inputs = [name for name in used_inputs(op) if not net.is_constant(name)]
    if op.op_type == "BatchNormalization" and op.attributes.get("training_mode"):
        return "training_mode=1 computes its statistics at run time"
    if op.op_type not in BINARY | LOGIC and not is_float(net, op):
        if len(inputs) > 1:
            return f"it combines tensors; only {_BOTH} do that on the machine"
        return f"its constants vary along several axes; only {_BOTH} take those"
    if op.op_type == "Div" and net.is_constant(op.inputs[0]) and not is_float(net, op):
        return "it divides a constant that varies along several axes by a tensor"
    return _operands(net, op, inputs)


def check_choice(net: Net, op: Op) -> str | None:
    """Any condition, and at least one of the tensors that it chooses from."""
    if all(map(net.is_constant, op.inputs[1:])):
        return "its constants vary along several axes"
    return _operands(net, op, [name for name in op.inputs if not net.is_constant(name)])


def _operands(net: Net, op: Op, inputs: list[str]) -> str | None:
    """Quantities or truth values, whose batch axes meet."""
    if not inputs:
        return "all its operands are constants that could not be folded"
    shape = net.shapes[op.output]
    for name in inputs:
        sizes = net.shapes[name]
        if net.types.get(name, _FLOAT) != _FLOAT and not is_bool(net, name):
            return f"`{name}` holds whole numbers, not 8-bit quantities"
        if name in net.batched and (len(sizes) != len(shape) or sizes[0] != shape[0]):
            return f"`{name}` of shape {list(sizes)} broadcasts its batch axis into {list(shape)}"
    return None


def check_softmax(net: Net, op: Op) -> str | None:
    """Over one axis, but not the batch."""
    rank = len(net.shapes[op.output])
    if not rank:
        return "its input is a scalar"
    is_batch = op.inputs[0] in net.batched and int(op.attributes.get("axis", -1)) % rank == 0
    return "it normalizes over the batch axis" if is_batch else None


def check_layer_norm(net: Net, op: Op) -> str | None:
    """Over any axes but the batch, with constant gain and offset."""
    if int(op.attributes.get("axis", -1)) % len(net.shapes[op.inputs[0]]) == 0:
        return "it normalizes over the batch axis"
    if len([name for name in op.outputs if name]) > 1:
        return "its further outputs, mean and deviation, are not supported"
    if is_group_norm(net, op):
        return check_channel_norm(net, op)
    return _computed_gain(net, op)


def _computed_gain(net: Net, op: Op) -> str | None:
    if any(name and not net.is_constant(name) for name in op.inputs[1:]):
        return "its gain or offset is computed at run time"
    return None


def check_channel_norm(net: Net, op: Op) -> str | None:
    """Constant gain and offset; sums that fit; `expand` has made images of no batch one image."""
    shape = net.shapes[op.inputs[0]]
    if reason := _computed_gain(net, op):
        return reason
    if len(shape) < 3:
        return f"its input of shape {list(shape)} has no places"
    if op.op_type != "LayerNormalization":
        sizes = [math.prod(net.shapes[name]) for name in op.inputs[1:]]
        if sizes != [shape[1], shape[1]]:
            return f"its gain and offset have {sizes} numbers for {shape[1]} channels"
    groups = groups_of(net, op).count
    if groups < 1 or shape[1] % groups:
        return f"its {shape[1]} channels are not {groups} groups of equal size"
    count = math.prod(shape[1:]) // groups
    if count > MOST_COUNTED:
        return f"it adds up {count:,} elements; 32 bits are certain to hold {MOST_COUNTED:,}"
    return None


def unwritten(reason: str) -> Check:
    """The check of an operator that `expand` writes in others: it could not, for this reason."""
    return lambda net, op: reason


def check_rewritten_norm(net: Net, op: Op) -> str | None:
    """Asked only of those that `expand` could not write in other operators."""
    return _computed_gain(net, op) or "it normalizes over the batch axis"


def check_lrn(net: Net, op: Op) -> str | None:
    """Across channels of images."""
    return _images(net, op)


def check_move(net: Net, op: Op) -> str | None:
    """Where the elements go must be known at compile time; or a row is looked up."""
    if is_lookup(net, op):
        return _lookup(net, op)
    if net.is_constant(op.inputs[0]):
        return "it picks from a constant at run time"
    if op.op_type not in ("Reshape", "Expand", "Squeeze", "Unsqueeze"):
        late = [name for name in op.inputs[1:] if name and not net.is_constant(name)]
        if late:
            return f"`{late[0]}`, which says where elements go, is computed at run time"
    return None


def _lookup(net: Net, op: Op) -> str | None:
    """One number per row of the result, out of a matrix."""
    numbers, table = net.shapes[op.inputs[1]], net.shapes[op.inputs[0]]
    if len(table) != 2 or int(op.attributes.get("axis", 0)) % 2:
        return f"it picks from a constant of shape {list(table)}, not rows of a matrix"
    if len(numbers) - int(op.inputs[1] in net.batched) > 1:
        said = "at most one axis behind the batch is supported"
        return f"its row numbers have shape {list(numbers)}; {said}"
    return None


def check_recurrent(net: Net, op: Op) -> str | None:
    """Constant weights; what `expand` could write as cells."""
    reason = why_not(net, op)
    return reason or _fan_in(max(net.shapes[name][0] for name in op.inputs[1::2]))


def check_concat(net: Net, op: Op) -> str | None:
    """Any axis; constants among the inputs are fine."""
    if all(net.is_constant(name) for name in op.inputs):
        return "all its inputs are constants that could not be folded"
    return None


def check_resize(net: Net, op: Op) -> str | None:
    """Nearest neighbour only: elements are copied, never mixed."""
    mode = op.attributes.get("mode", "nearest")
    if mode != "nearest":
        hint = " by whole factors of at most 64 together, corners not aligned"
        return f"mode={mode} mixes elements; supported are nearest, and linear{hint}"
    coordinates = op.attributes.get("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        return f"coordinate_transformation_mode={coordinates} is not supported"
    return check_move(net, op)
