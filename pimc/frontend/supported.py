"""Supported: the table of operators, and the one message that names every node outside of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from isa.diagnostics import Findings, Location
from pimc.frontend import checks
from pimc.frontend.contrib import SPELLERS
from pimc.frontend.contrib_quantized import DYNAMIC
from pimc.frontend.islands import is_float, takes_floats
from pimc.frontend.net import INT_NAMES, LAYOUT, MICROSOFT, NUMBER_TYPES, Net, Op, Port, used_inputs
from pimc.frontend.partitions import is_host
from pimc.frontend.qlinear import QLINEAR
from pimc.frontend.recurrent import KINDS
from pimc.frontend.regions import (
    BINARY,
    ELEMENTWISE,
    LOGIC,
    MOVES,
    Region,
    Step,
    is_bool,
    is_entry,
    is_lookup,
)

LARGEST = 2**31  # elements of a tensor; nothing is allocated before this is checked
_FLOAT = onnx.TensorProto.FLOAT
_CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))
_PORT_TYPES = frozenset((_FLOAT, *INT_NAMES, *NUMBER_TYPES))
_RESULT_TYPES = frozenset((_FLOAT, *INT_NAMES, onnx.TensorProto.BOOL))


@dataclass(frozen=True)
class Rule:
    """How an operator is supported: its family, a word on its limits, the check of one node."""

    family: str
    note: str
    check: checks.Check


_MATRIX = Rule("crossbar", "constant weights, 1-D to 3-D, any groups", checks.check_conv)
_POOL = Rule("pool", "1-D to 3-D", checks.check_pool)
_REDUCTION = Rule("pool", "over any axes but the batch", checks.check_reduction)
_MOVE = Rule("movement", "indices known at compile time", checks.check_move)
_TABLE = Rule("table", "a function of one tensor, with constants", checks.check_elementwise)
_SUM = Rule("vector", "of two tensors, or with any constant; broadcast", checks.check_elementwise)
_LOGIC = Rule("vector", "of quantities, or of truth values; broadcast", checks.check_elementwise)
_SOFTMAX = Rule("vector", "over one axis", checks.check_softmax)
_RECURRENT = Rule(
    "crossbar",
    "constant weights, default activations, any direction; sequences of equal length",
    checks.check_recurrent,
)
_CHANNEL_NORM = Rule("vector", "constant gain and offset", checks.check_channel_norm)
RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(ELEMENTWISE - BINARY - LOGIC), _TABLE),
    **dict.fromkeys(sorted(MOVES), _MOVE),
    "Conv": _MATRIX,
    "ConvTranspose": Rule(
        "crossbar", "constant weights, 1-D to 3-D, any groups", checks.check_conv_transpose
    ),
    "Gemm": Rule("crossbar", "constant weights, transA=0", checks.check_gemm),
    "MatMul": Rule("crossbar", "one constant operand; vector if none is", checks.check_matmul),
    "MaxPool": _POOL,
    "AveragePool": _POOL,
    "GlobalMaxPool": _POOL,
    "GlobalAveragePool": _POOL,
    "ReduceMax": _REDUCTION,
    "ReduceMean": _REDUCTION,
    "ReduceMin": _REDUCTION,
    "ReduceSum": _REDUCTION,
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), _REDUCTION),
    "Add": _SUM,
    "Sub": _SUM,
    "Mul": _SUM,
    "Div": _SUM,
    "Max": _SUM,
    "Min": _SUM,
    "Sum": Rule("vector", "of any number of tensors", checks.check_elementwise),
    **dict.fromkeys(sorted(LOGIC), _LOGIC),
    "Where": Rule("vector", "any condition; of quantities", checks.check_choice),
    "Softmax": _SOFTMAX,
    "LogSoftmax": _SOFTMAX,
    "LayerNormalization": Rule("vector", "constant gain and offset", checks.check_layer_norm),
    "InstanceNormalization": _CHANNEL_NORM,
    "GroupNormalization": _CHANNEL_NORM,
    **dict.fromkeys(
        ("LpNormalization", "MeanVarianceNormalization", "RMSNormalization"),
        Rule("vector", "not over the batch axis", checks.check_rewritten_norm),
    ),
    "LRN": Rule("vector", "", checks.check_lrn),
    "CumSum": Rule(
        "crossbar",
        "along a constant axis, not the batch",
        checks.unwritten("it adds up the batch, or an axis that is too long or not constant"),
    ),
    "Einsum": Rule(
        "crossbar",
        "one tensor, or the product of two; crossbars if one is constant",
        checks.unwritten("its equation is no product of two tensors over letters"),
    ),
    "Mean": Rule("vector", "of any number of tensors", checks.check_elementwise),
    "ReduceLogSum": _REDUCTION,
    "Trilu": Rule("vector", "", checks.unwritten("its diagonal is computed at run time")),
    "Concat": Rule("movement", "any axis", checks.check_concat),
    "Resize": Rule(
        "movement", "nearest; on crossbars: linear, by whole factors", checks.check_resize
    ),
    **dict.fromkeys(KINDS, _RECURRENT),
}


@dataclass(frozen=True, eq=False)
class Refusal:
    """An operator that the chip does not compute: diagnostic code, reason, what to do."""

    op: Op
    code: str
    reason: str
    hint: str | None = None


_STANDARD = ("QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger")
_LIST_HINT = "`pimc ops` lists what is"
_LAYOUT_HINT = "let onnxruntime save the model at ORT_ENABLE_EXTENDED, or give the original"
_QUANTIZED = (
    "scales must be positive constants, zero points and weights constants, activations 8 bits"
)
_VANISH = ("Constant", "ConstantOfShape", "Dropout", "Shape", "Size", "Range")


def supported_ops() -> dict[str, tuple[str, str]]:
    """Operator -> (family, limits), sorted by name; com.microsoft ones carry their domain."""
    table = {name: (rule.family, rule.note) for name, rule in RULES.items()}
    table |= dict.fromkeys(_VANISH, ("folded", "at compile time"))
    for name in QLINEAR:
        is_standard = name in _STANDARD
        table[name if is_standard else f"{MICROSOFT}.{name}"] = (
            "quantized",
            "constant scales, 8 bits",
        )
    for name in (*(f"{MICROSOFT}.{own}" for own in SPELLERS), DYNAMIC):
        table.setdefault(name, ("written out", "where its parameters are constants"))
    return dict(sorted(table.items()))


def refuse_other_types(model: onnx.ModelProto) -> None:
    """Refuse a model with sequences or maps at its ports, before the libraries stumble on them.

    Nodes of foreign domains, which make such things, are named in the same message.
    """
    findings, graph = Findings(), model.graph
    for role, ports in (("input", graph.input), ("output", graph.output)):
        for port in ports:
            kind = port.type.WhichOneof("value")
            if kind is not None and kind != "tensor_type":
                at = Location(node=f"{role} `{port.name}`")
                text = f"{role} `{port.name}` is a {kind.removesuffix('_type')}, not a tensor"
                findings.error("F214", text, at)
    if not findings:
        return
    local = {function.domain for function in model.functions}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx", MICROSOFT, *local):
            label = f"{node.domain}.{node.op_type} `{node.name or node.output[0]}`"
            text = f"{label}: domain {node.domain} is not supported"
            findings.error("F212", text, Location(node=label), _LIST_HINT)
    findings.raise_if_any()


def check_net(net: Net, steps: Sequence[Step]) -> None:
    """Refuse a net with unsupported nodes, inputs or outputs, all of them in one PimError."""
    findings = Findings()
    _check_ports(net, findings)
    for found in refusals(net, steps):
        label = f"{label_of(found.op)} `{found.op.name}`"
        findings.error(found.code, f"{label}: {found.reason}", Location(node=label), found.hint)
    findings.raise_if_any()


def refusals(net: Net, steps: Sequence[Step], with_followers: bool = False) -> list[Refusal]:
    """Every operator that the chip cannot compute, and why; partitions are past that question.

    with_followers: also those that could be computed if only what they read were on the chip.
    """
    regions = {id(op): step for step in steps if isinstance(step, Region) for op in step.ops}
    unknown: set[str] = set()  # results of refused nodes: what follows from them is no news
    refused = []
    for op in net.ops:
        if is_host(op):
            continue
        region = regions.get(id(op))
        found = _refusal(net, op, region is not None, unknown)
        if with_followers and found is None:
            found = _follower(net, op, region)
        if not with_followers and (found is not None or unknown.intersection(op.inputs)):
            unknown.update(name for name in op.outputs if name not in net.shapes)
        if found is not None:
            refused.append(Refusal(op, *found))
    return refused


def _follower(net: Net, op: Op, region: Region | None) -> tuple[str, str, str | None] | None:
    """Why an operator has to go where its neighbours are: they hold numbers, not quantities."""
    border = (region.root, region.output) if region else (*used_inputs(op), *op.outputs)
    if is_lookup(net, op) or is_entry(net, op):
        border = op.outputs
    outside = net.numbers | net.raw
    for name in border:
        kind = net.types.get(name, _FLOAT)
        is_held = kind == _FLOAT or (is_bool(net, name) and name not in outside)
        if name and not net.is_constant(name) and not is_held:
            elements = onnx.TensorProto.DataType.Name(kind).lower()
            return "F214", f"`{name}` has {elements} elements, not 8-bit quantities", None
    return None


def label_of(op: Op) -> str:
    """Its type, with the domain where that is not ONNX's own."""
    return f"{op.domain}.{op.op_type}" if op.domain else op.op_type


def _refusal(
    net: Net, op: Op, is_in_region: bool, unknown: set[str]
) -> tuple[str, str, str | None] | None:
    """Code, reason and hint for one node; None when it is supported."""
    rule = RULES.get(op.op_type)
    if op.op_type in _CONTROL_FLOW:
        return "F213", "control flow decides at run time; the machine runs one fixed stream", None
    is_rest = op.op_type in ("QuantizeLinear", "DequantizeLinear") and any(
        net.types.get(name) != _FLOAT for name in (op.inputs[0], op.output)
    )
    if is_rest and _is_restored(net, op):
        return "F214", "a neighbour on the host computes with its integers as numbers", None
    if op.op_type in QLINEAR or is_rest:
        return "F211", _QUANTIZED, None
    if op.domain == LAYOUT:
        return "F212", "its operands are laid out for one processor", _LAYOUT_HINT
    if op.domain:
        return "F212", f"domain {op.domain} is not supported", _LIST_HINT
    if rule is None:
        return "F210", "this operator is not supported", _LIST_HINT
    names = [name for name in (*used_inputs(op), *op.outputs) if name]
    missing = [name for name in names if name not in net.shapes and not net.is_constant(name)]
    if missing:
        if unknown.intersection(missing) or unknown.intersection(op.inputs):
            return None
        return "F205", f"the shape of `{missing[0]}` depends on data", None
    large = next((n for n in op.outputs if n and math.prod(net.shapes[n]) > LARGEST), None)
    if large:
        count = math.prod(net.shapes[large])
        return "F211", f"its result `{large}` has {count:,} elements, more than {LARGEST:,}", None
    empty = next((n for n in names if 0 in net.shapes[n] and not net.is_constant(n)), None)
    if empty:
        return "F211", f"`{empty}` has no elements", None
    held = (_FLOAT, onnx.TensorProto.BOOL)
    wrong = next((n for n in op.outputs if n and net.types.get(n, _FLOAT) not in held), None)
    if wrong and all(net.types.get(name) != net.types[wrong] for name in op.inputs if name):
        kind = onnx.TensorProto.DataType.Name(net.types[wrong]).lower()
        return "F214", f"it computes {kind} elements; only float32 and 8-bit integers are", None
    is_checked = not is_in_region and (is_float(net, op) or not is_entry(net, op))
    reason = (_why_no_floats(net, op) or rule.check(net, op)) if is_checked else None
    return ("F211", reason, None) if reason else None


def _why_no_floats(net: Net, op: Op) -> str | None:
    """Why an operator of a quantized model cannot compute with what the model leaves float32."""
    if not is_float(net, op) or takes_floats(net, op):
        return None
    name = next(n for n in (*op.inputs, *op.outputs) if n in net.reals)
    return f"the model leaves `{name}` float32, for which the chip has no such instruction"


def _is_restored(net: Net, op: Op) -> bool:
    """Whether a Q or DQ was added between quantities of the chip and whole numbers of the host."""
    has_integers = any(net.types.get(name) in INT_NAMES for name in (op.inputs[0], op.output))
    return has_integers and all(map(net.is_constant, op.inputs[1:]))


def _check_numbers(net: Net, port: Port, findings: Findings) -> None:
    """Whole numbers may only pick the rows of constants, or become quantities or truth values."""
    at = Location(node=f"input `{port.name}`")
    others = [
        op
        for op in net.ops
        if port.tensor in op.inputs and not (is_host(op) or is_lookup(net, op) or is_entry(net, op))
    ]
    if others or port.tensor in net.output_tensors():
        users = ", ".join(f"{op.op_type} `{op.name}`" for op in others) or "the outputs"
        findings.error(
            "F214",
            f"input `{port.name}` has elements of type "
            f"{onnx.TensorProto.DataType.Name(port.elem_type).lower()}, which may only pick rows "
            "of a constant by Gather, become floats or truth values by Cast, or be compared with "
            f"a constant; it is used by {users}",
            at,
        )


def _check_ports(net: Net, findings: Findings) -> None:
    for role, ports in (("input", net.inputs), ("output", net.outputs)):
        for port in ports:
            at = Location(node=f"{role} `{port.name}`")
            if role == "output" and port.tensor in net.raw:
                continue
            kinds = _RESULT_TYPES if role == "output" else _PORT_TYPES
            if port.elem_type not in kinds:
                kind = onnx.TensorProto.DataType.Name(port.elem_type).lower()
                findings.error(
                    "F214",
                    f"{role} `{port.name}` has elements of type {kind}; floats, integers and bool "
                    "are supported",
                    at,
                )
            elif port.tensor in net.numbers:
                _check_numbers(net, port, findings)
            elif role == "output" and net.is_constant(port.tensor):
                findings.error("F211", f"output `{port.name}` is a constant", at)
    if not net.outputs:
        findings.error("F211", "the model has no outputs")
