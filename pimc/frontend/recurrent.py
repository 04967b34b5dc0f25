"""Recurrent: LSTM, GRU and RNN as cells of one direction, and why some of them stay on the host.

A layer of two directions becomes two cells, the second one on the reversed sequence; Y, Y_h and
Y_c are put together from what the cells make by movement alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pimc.frontend.bound import late_weights
from pimc.frontend.cells import CELLS, KIND, gate_number, is_cell
from pimc.frontend.net import Array, Net, Op
from pimc.frontend.partitions import body_of, is_host
from pimc.frontend.writer import Writer

KINDS = ("GRU", "LSTM", "RNN")
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_ACTIVATIONS = {
    "LSTM": ["sigmoid", "tanh", "tanh"],
    "GRU": ["sigmoid", "tanh"],
    "RNN": ["tanh"],
}
_TIME = 0  # the axis of the sequence
_BATCH_FIRST, _Y_BATCH_FIRST = [1, 0, 2], [2, 0, 1, 3]  # orders of axes for layout=1


def why_not(net: Net, op: Op) -> str | None:
    """Why a recurrent layer cannot be put on the chip; None when it can, or is a cell already."""
    if is_cell(op):
        return None
    return next(_obstacles(net, op), None)


def _obstacles(net: Net, op: Op) -> Iterator[str]:
    given = op.attributes
    steps = net.shapes[op.inputs[0]][1 if given.get("layout") else _TIME]
    if late := late_weights(net, op.inputs[1:4]):
        yield late
    lengths = op.input(4)
    if lengths and not (net.is_constant(lengths) and np.all(net.constant(lengths) == steps)):
        yield f"sequence_lens cuts its sequences of {steps} elements"
    if op.input(7) and not (net.is_constant(op.inputs[7]) and not net.constant(op.inputs[7]).any()):
        yield "it has peepholes"
    if given.get("clip"):
        yield f"clip={given['clip']:g} limits its sums"
    if given.get("input_forget"):
        yield "input_forget=1 couples two of its gates"
    wanted = _ACTIVATIONS[op.op_type] * len(_DIRECTIONS[_direction(op)])
    names = [text.decode() if isinstance(text, bytes) else text for text in
             given.get("activations") or wanted]  # fmt: skip
    if [name.lower() for name in names] != wanted:
        yield f"its activations are {', '.join(names)}; the default ones are supported"


def sequence_of_images(net: Net) -> str | None:
    """A recurrent layer, on the host or not, whose sequence would be the images of a batch."""
    every = (inner for op in net.ops for inner in (body_of(op) if is_host(op) else [op]))
    for op in every:
        is_sequence = op.op_type in KINDS and not op.domain and not _is_turned(op)
        if is_sequence and op.inputs[0] in net.batched:
            return f"{op.op_type} `{op.name}`"
    return None


def _direction(op: Op) -> str:
    return str(op.attributes.get("direction", "forward"))


def write_recurrent(write: Writer) -> list[Op] | None:
    """One cell for each direction, and the movement around them."""
    net, op = write.net, write.op
    if why_not(net, op) is not None:
        return None
    y, y_h, y_c = (op.outputs[at] if at < len(op.outputs) else "" for at in range(3))
    whole, last, last_c = [], [], []
    x = _turned(write, op.inputs[0], "x") if _is_turned(op) else op.inputs[0]
    for number, is_reversed in enumerate(_DIRECTIONS[_direction(op)]):
        cell = _cell(write, x, number, is_reversed)
        steps, batch, units = net.shapes[cell.output]
        wish = f"direction{number}"
        if y_h:
            last.append(_last(write, cell.output, f"{wish}/last"))
        if y_c:
            held = CELLS[str(cell.attributes[KIND])].held
            last_c.append(_last(write, cell.outputs[held.index("c_out")], f"{wish}/last_c"))
        if y:
            turned = _reversed(write, cell.output, f"{wish}/y") if is_reversed else cell.output
            whole.append(write.reshape(turned, (steps, 1, batch, units), f"{wish}/axis"))
    for wish, parts, result, axis in (
        ("Y", whole, y, 1),
        ("Y_h", last, y_h, 0),
        ("Y_c", last_c, y_c, 0),
    ):
        if result and not _is_turned(op):
            write.add("Concat", parts, None, wish, result, axis=axis)
        elif result:
            sizes = list(net.shapes[parts[0]])
            sizes[axis] *= len(parts)
            joined = write.add("Concat", parts, sizes, f"{wish}/joined", axis=axis)
            order = _Y_BATCH_FIRST if result == y else _BATCH_FIRST
            write.add("Transpose", (joined,), None, wish, result, perm=order)
    return write.ops


def _is_turned(op: Op) -> bool:
    """Whether the batch comes before the sequence."""
    return bool(op.attributes.get("layout"))


def _turned(write: Writer, source: str, wish: str) -> str:
    """Batch and first axis exchanged."""
    first, second, *rest = write.net.shapes[source]
    shape = (second, first, *rest)
    return write.add("Transpose", (source,), shape, f"{wish}/turned", perm=_BATCH_FIRST)


def _cell(write: Writer, x: str, number: int, is_reversed: bool) -> Op:
    """The cell of one direction over ``x``; adds it, and what reverses its input."""
    net, op = write.net, write.op
    steps, batch, _ = net.shapes[x]
    weights, recurrent, bias = (_parameter(net, op, at, number) for at in (1, 2, 3))
    assert weights is not None, "the ONNX checker asks for weights"
    assert recurrent is not None, "and for those of the state"
    units = recurrent.shape[1]
    kind = op.op_type
    if kind == "GRU" and op.attributes.get("linear_before_reset"):
        kind = "GRU reset after"
    cell, wish = CELLS[kind], f"direction{number}"
    of_input, of_state = np.split(
        np.zeros(2 * len(weights), np.float32) if bias is None else bias, 2
    )
    if kind == "GRU reset after":  # the bias of the last gate is reset with the product it is of
        kept = np.concatenate([np.zeros(2 * units, np.float32), of_state[2 * units :]])
        of_input, of_state = of_input + of_state - kept, kept
    else:
        of_input, of_state = of_input + of_state, np.zeros_like(of_state)
    if is_reversed:
        x = _reversed(write, x, f"{wish}/x")
    inputs = [x, _weights(write, f"{wish}/w", weights)]
    inputs.append(write.constant(f"{wish}/b", of_input))
    for at, product in enumerate(cell.products):
        first, count = gate_number(product.results[0]), len(product.results)
        rows = slice(first * units, (first + count) * units)
        inputs.append(_weights(write, f"{wish}/r{at}", recurrent[rows]))
        inputs.append(write.constant(f"{wish}/rb{at}", of_state[rows]))
    for row in cell.kept:
        inputs.append(_state(write, row, number, (batch, units)))
    outputs = [write.tensor(f"{wish}/{row}", (steps, batch, units)) for row in cell.held]
    made = Op(f"{op.name}/{wish}", op.op_type, tuple(inputs), tuple(outputs), {KIND: kind})
    write.ops.append(made)
    return made


def _parameter(net: Net, op: Op, at: int, number: int) -> Array | None:
    """What an optional constant input holds for one direction, in float32."""
    name = op.input(at)
    return net.constant(name)[number].astype(np.float32) if name else None


def _state(write: Writer, row: str, number: int, shape: tuple[int, int]) -> str:
    """What a row of the state holds before the first step: zeros if the model does not say."""
    net, wish = write.net, f"direction{number}/{row}"
    name = write.op.input(6 if row == "c" else 5)
    if not name:
        return write.constant(wish, np.zeros(shape, np.float32))
    if net.is_constant(name):
        values = net.constant(name).astype(np.float32)
        return write.constant(wish, values[:, number] if _is_turned(write.op) else values[number])
    source = _turned(write, name, wish) if _is_turned(write.op) else name
    one = _slice(write, source, (number, number + 1, 0, 1), 1, f"{wish}/slice")
    return write.reshape(one, shape, wish)


def _weights(write: Writer, wish: str, weights: Array) -> str:
    """Weights [gates * units, inputs] as [inputs, gates * units]."""
    return write.constant(wish, np.ascontiguousarray(weights.T))


def _reversed(write: Writer, source: str, wish: str) -> str:
    steps = write.net.shapes[source][_TIME]
    return _slice(write, source, (-1, -steps - 1, _TIME, -1), steps, f"{wish}/reversed")


def _last(write: Writer, source: str, wish: str) -> str:
    steps = write.net.shapes[source][_TIME]
    return _slice(write, source, (steps - 1, steps, _TIME, 1), 1, wish)


def _slice(
    write: Writer, source: str, numbers: tuple[int, int, int, int], count: int, wish: str
) -> str:
    """numbers: start, end, axis and step of a Slice along the sequence."""
    names = [
        write.constant(f"{wish}/{at}", np.array([number], np.int64))
        for at, number in enumerate(numbers)
    ]
    shape = (count, *write.net.shapes[source][1:])
    return write.add("Slice", (source, *names), shape, wish)
