"""Cells: the steps of LSTM, GRU and RNN as data, and a recurrent layer as an ONNX Scan of them.

Each step is one operator of ONNX on rows [batch, units] and one instruction of the machine. So the
float model that ranges are taken from, the integer reference and the program are made from the
same lines (formulas: the specification of the ONNX operators LSTM-22, GRU-22, RNN-22).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from pimc.frontend.net import Op

KIND = "cell"  # attribute of an operator that is one cell over a sequence: its key in CELLS
_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Step:
    """``results = op(inputs)``; a MatMul multiplies a row by the weights of some gates."""

    results: tuple[str, ...]
    op: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """What happens for one element of the sequence.

    Rows ``x0``, ``x1``, ... are gates of the input's product, in ONNX's order; ``r0``, ... those of
    the state's. kept: rows of the state -> those that they become; ``h`` is the first. held: rows
    that are rounded to 8 bits in a range that is calibrated; ``y`` is the first. ``y`` and
    ``c_out`` are for others alone, whose wishes for scales so stay out of the state.
    """

    gates: int
    kept: dict[str, str]
    held: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def products(self) -> list[Step]:
        """The steps with weights."""
        return [step for step in self.steps if step.op == "MatMul"]


def gate_number(row: str) -> int:
    """Which gate a row ``x2`` or ``r2`` belongs to."""
    return int(row[1:])


def _steps(text: str) -> tuple[Step, ...]:
    found = []
    for line in text.strip().splitlines():
        results, right = line.split("=")
        op, *inputs = right.split()
        found.append(Step(tuple(results.split()), op, tuple(inputs)))
    return tuple(found)


_LSTM = _steps("""
    r0 r1 r2 r3 = MatMul h
    i_sum  = Add x0 r0
    i      = Sigmoid i_sum
    o_sum  = Add x1 r1
    o      = Sigmoid o_sum
    f_sum  = Add x2 r2
    f      = Sigmoid f_sum
    g_sum  = Add x3 r3
    g      = Tanh g_sum
    stays  = Mul c f
    comes  = Mul i g
    c_held = Add stays comes
    c_out  = Add stays comes
    c_next = Add stays comes
    c_tanh = Tanh c_held
    h_next = Mul o c_tanh
    y      = Mul o c_tanh
""")
_GRU = """
    {first}
    z_sum  = Add x0 r0
    z      = Sigmoid z_sum
    r_sum  = Add x1 r1
    r      = Sigmoid r_sum
    {reset}
    n      = Tanh n_sum
    gap    = Sub s n
    stays  = Mul gap z
    h_next = Add stays n
    y      = Add stays n
    s_next = Add stays n
"""
_RESET_BEFORE = {
    "first": "r0 r1 = MatMul h",
    "reset": "gated = Mul s r\n r2 = MatMul gated\n n_sum = Add x2 r2",
}
_RESET_AFTER = {
    "first": "r0 r1 r2 = MatMul h",
    "reset": "gated = Mul r2 r\n n_sum = Add x2 gated",
}
_RNN = _steps("""
    r0     = MatMul h
    sum    = Add x0 r0
    h_next = Tanh sum
    y      = Tanh sum
""")
_GRU_SUMS = ("z_sum", "r_sum", "n_sum")
_GRU_KEPT = {"h": "h_next", "s": "s_next"}
CELLS = {
    "LSTM": Cell(
        4,
        {"h": "h_next", "c": "c_next"},
        ("y", "c_out", "h_next", "c_held", "i_sum", "o_sum", "f_sum", "g_sum"),
        _LSTM,
    ),
    "GRU": Cell(
        3,
        _GRU_KEPT,
        ("y", "h_next", "gated", *_GRU_SUMS),
        _steps(_GRU.format(**_RESET_BEFORE)),
    ),
    "GRU reset after": Cell(
        3,
        _GRU_KEPT,
        ("y", "h_next", *_GRU_SUMS),
        _steps(_GRU.format(**_RESET_AFTER)),
    ),
    "RNN": Cell(1, {"h": "h_next"}, ("y", "h_next", "sum"), _RNN),
}


def is_cell(op: Op) -> bool:
    """Whether an operator is one cell over a sequence, as `pimc.frontend.recurrent` makes it.

    Its inputs: x [steps, batch, inputs]; weights [inputs, gates * units] and bias of the input;
    weights and bias of each product of the cell; the first rows [batch, units] of what is kept.
    Its outputs: the rows that are held, for all steps, [steps, batch, units].
    """
    return KIND in op.attributes


def cell_of(op: Op) -> Cell:
    """The cell of an operator for which `is_cell` holds."""
    return CELLS[str(op.attributes[KIND])]


def float_nodes(op: Op) -> list[onnx.NodeProto]:
    """A cell over a sequence in float32: product and bias of the input, and a Scan."""
    cell, base = cell_of(op), op.outputs[0]
    x, weights, bias, *rest = op.inputs
    product, sums = f"{base}/product", f"{base}/sums"
    body = _float_body(op, cell, rest)
    last = [f"{base}/last/{row}" for row in cell.kept]
    return [
        helper.make_node("MatMul", [x, weights], [product], f"{op.name}/product"),
        helper.make_node("Add", [product, bias], [sums], f"{op.name}/bias"),
        helper.make_node(
            "Scan",
            [*rest[2 * len(cell.products) :], sums],
            [*last, *op.outputs],
            op.name,
            body=body,
            num_scan_inputs=1,
        ),
    ]


def _float_body(op: Op, cell: Cell, constants: Sequence[str]) -> onnx.GraphProto:
    def inner(row: str) -> str:
        return f"{op.outputs[0]}/{row}"

    weights = iter(constants)
    nodes = [split_node(inner("x"), [inner(f"x{gate}") for gate in range(cell.gates)])]
    for step in cell.steps:
        results, inputs = ([inner(row) for row in rows] for rows in (step.results, step.inputs))
        if step.op != "MatMul":
            nodes.append(helper.make_node(step.op, inputs, results, results[0]))
            continue
        product, sums = f"{results[0]}/product", f"{results[0]}/sums"
        nodes += [
            helper.make_node("MatMul", [*inputs, next(weights)], [product], product),
            helper.make_node("Add", [product, next(weights)], [sums], sums),
            split_node(sums, results),
        ]
    handed = [*cell.kept.values(), *cell.held]
    outputs = [inner(f"out{at}") for at in range(len(handed))]
    for row, output in zip(handed, outputs, strict=True):
        nodes.append(helper.make_node("Identity", [inner(row)], [output], output))
    given, made = (
        [helper.make_tensor_value_info(name, _FLOAT, None) for name in names]
        for names in ([*map(inner, cell.kept), inner("x")], outputs)
    )
    return helper.make_graph(nodes, "cell", given, made)


def split_node(source: str, parts: Sequence[str]) -> onnx.NodeProto:
    """Gates side by side, each as a row of its own."""
    if len(parts) == 1:
        return helper.make_node("Identity", [source], parts, f"{source}/gates")
    count = len(parts)
    return helper.make_node("Split", [source], parts, f"{source}/gates", axis=-1, num_outputs=count)
