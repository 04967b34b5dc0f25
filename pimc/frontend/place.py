"""Place: which operators the chip computes, which stay on the host, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from passes.graph import Graph, MatrixNode
from pimc.frontend.batch import spread_batch
from pimc.frontend.export import partition_model
from pimc.frontend.islands import mark_islands
from pimc.frontend.net import INT_NAMES, MICROSOFT, RAW_TYPES, Net, Op, QParams
from pimc.frontend.partitions import between, body_of, is_host, partitioned
from pimc.frontend.recurrent import KINDS
from pimc.frontend.regions import plan
from pimc.frontend.session import run_on_zeros
from pimc.frontend.supported import LARGEST, Refusal, label_of, refusals

_FLOAT, _BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
_PRODUCTS = {  # in whatever domain -> its kind, and the place of its weights
    **{kind: (kind, 1) for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")},
    **dict.fromkeys(("ConvInteger", "FusedConv"), ("Conv", 1)),
    **dict.fromkeys(("MatMulInteger", "FusedMatMul", "MatMulIntegerToFloat"), ("MatMul", 1)),
    "FusedGemm": ("Gemm", 1),
    "QGemm": ("Gemm", 3),
    "QLinearConv": ("Conv", 3),
    "QLinearMatMul": ("MatMul", 3),
}


@dataclass(frozen=True)
class Stay:
    """An operator on the host. code: what `--no-host` would refuse it with.

    macs: multiplications of one image; of matrix operators alone, and 0 for unknown shapes.
    """

    node: str
    op_type: str
    partition: str
    code: str
    reason: str
    macs: int = 0

    def as_json(self) -> dict[str, str | int]:
        return dict(self.__dict__)


def place(net: Net) -> tuple[Stay, ...]:
    """Put what the chip cannot do into partitions, in place; say why for every operator.

    Taking an operator off the chip can take its neighbours with it (they would read types or
    shapes that the chip does not have), so this repeats until nothing moves.
    """
    _refuse_unknown(net.ops)
    ops, found, inputs = list(net.ops), dict[int, Refusal](), _batched_inputs(net)
    while True:
        net.ops = partitioned(net, ops, found)
        net.batched = set(inputs)
        spread_batch(net)
        net.raw = _raw(net)
        mark_islands(net)
        more = refusals(net, plan(net), with_followers=True) or _unwritable(net)
        if not more:
            break
        found |= {id(refusal.op): refusal for refusal in more}
    _refuse_broken(net, found)
    return tuple(
        Stay(
            op.name,
            label_of(op),
            part.name,
            found[id(op)].code,
            found[id(op)].reason,
            macs_of(net, op),
        )
        for part in net.ops
        if is_host(part)
        for op in body_of(part)
    )


def _batched_inputs(net: Net) -> set[str]:
    return {port.tensor for port in net.inputs} & net.batched


def _raw(net: Net) -> set[str]:
    """Tensors that only the host and the outside touch: they stay what they are.

    What the model itself quantizes is rounded wherever it goes.
    """
    touched: set[str] = set()
    hosted: set[str] = set()
    for op in net.ops:
        (hosted if is_host(op) else touched).update((*op.inputs, *op.outputs))
    ports = {port.tensor for port in net.inputs} & net.output_tensors()
    numbers = {name for name in hosted if net.types.get(name, _FLOAT) not in (_FLOAT, _BOOL)}
    others = numbers | {port.tensor for port in net.inputs if port.elem_type == _BOOL} & hosted
    raw = (hosted - touched - ports - net.qparams.keys()) | others
    for port in net.outputs:  # integers that were moved on the host are integers
        is_byte = port.elem_type in INT_NAMES and net.types.get(port.tensor, _FLOAT) == _FLOAT
        if is_byte and port.tensor in raw:
            own = QParams(np.float32(1), 0, INT_NAMES[port.elem_type])
            net.qparams.setdefault(port.tensor, own)
            raw.discard(port.tensor)
    integers = {port.tensor for port in net.inputs if port.elem_type in INT_NAMES}
    return {name for name in raw if name and not net.is_constant(name)} - integers


def _unwritable(net: Net) -> list[Refusal]:
    """Operators between two partitions that hand on what no tensor of a program can hold."""
    maker = {name: op for op in net.ops if is_host(op) for name in op.outputs}
    for op in net.ops:
        for name in op.inputs if is_host(op) else ():
            if name in maker and _problem(net, name):
                way = between(net.ops, maker[name], op)
                reason = f"it stands between operators that hand on `{name}`, {_problem(net, name)}"
                more = [Refusal(o, "F205", reason) for o in way if not is_host(o)]
                if more:
                    return more
                text = f"partitions `{maker[name].name}` and `{op.name}` share `{name}`, "
                raise PimError(Diagnostic("F205", f"{text}{_problem(net, name)}"))
    for port in net.outputs:
        if port.tensor in maker and (problem := _problem(net, port.tensor)):
            raise PimError(
                Diagnostic(
                    "F205",
                    f"output `{port.name}` is a tensor {problem}",
                    Location(node=f"output `{port.name}`"),
                    "cut the model before it; a program declares the size of all its tensors",
                )
            )
    return []


def _problem(net: Net, name: str) -> str | None:
    """Why a tensor cannot be declared in a program; None when it can."""
    if name not in net.shapes:
        return "whose shape depends on data"
    if 0 in net.shapes[name]:
        return "which has no elements"
    if math.prod(net.shapes[name]) > LARGEST:
        return f"which has {math.prod(net.shapes[name]):,} elements"
    kind = net.types.get(name, _FLOAT)
    if kind not in RAW_TYPES:
        return f"whose elements are {onnx.TensorProto.DataType.Name(kind).lower()}"
    return None


def _refuse_broken(net: Net, found: Mapping[int, Refusal]) -> None:
    """Refuse what the host cannot run either: every partition runs once, on zeros."""
    findings = Findings()
    for part in net.ops:
        if not is_host(part):
            continue
        too_large = [op for op in body_of(part) if _is_too_large(net, op)]
        hint: str | None = None
        try:
            if not too_large:
                hint = _other_shape(net, part)
        except PimError as error:
            hint = f"the host cannot run it either: {error.diagnostics[0].message}"
        if too_large or hint is not None:
            for op in too_large or body_of(part):
                refusal, label = found[id(op)], f"{label_of(op)} `{op.name}`"
                findings.error(
                    refusal.code, f"{label}: {refusal.reason}", Location(node=label), hint
                )
    findings.raise_if_any()


def _other_shape(net: Net, part: Op) -> str | None:
    """Run a partition on zeros; what to say where a result has not the shape that onnx infers."""
    for name, result in run_on_zeros(partition_model(net, part)).items():
        declared = net.shapes.get(name, result.shape)
        if declared != result.shape:
            return f"the host gives `{name}` the shape {list(result.shape)}, onnx {list(declared)}"
    return None


def _is_too_large(net: Net, op: Op) -> bool:
    """Whether an operator is not to be tried; onnxruntime never ends a convolution of nothing."""
    if op.op_type in ("Conv", "ConvTranspose"):
        return any(0 in net.shapes.get(name, ()) for name in op.inputs)
    return any(math.prod(net.shapes.get(name, ())) > LARGEST for name in op.outputs)


def macs_of(net: Net, op: Op) -> int:
    """Multiplications of a matrix operator for one image, 0 of others or where shapes are open."""
    if op.op_type in KINDS and not op.domain:
        return _recurrent_macs(net, op)
    kind, place = _PRODUCTS.get(op.op_type, ("", 0))
    shapes = [net.shapes.get(name) for name in (op.input(0), op.input(place), op.output)]
    if not kind or None in shapes:
        return 0
    given, weights, result = (shape or () for shape in shapes)
    if kind == "Conv":
        return math.prod(result) * math.prod(weights[1:])
    if kind == "ConvTranspose":
        return math.prod(given) * math.prod(weights[1:])
    depth = given[-2] if op.attributes.get("transA") else given[-1]
    return math.prod(result) * depth


def _recurrent_macs(net: Net, op: Op) -> int:
    """Both products of every element of the sequence."""
    shapes = [net.shapes.get(name) for name in op.inputs[:3]]
    if None in shapes:
        return 0
    given, *weights = (shape or () for shape in shapes)
    return given[0] * given[1] * sum(map(math.prod, weights))


def host_warnings(graph: Graph, stays: Sequence[Stay]) -> tuple[Diagnostic, ...]:
    """The warning that nothing at all is left for the crossbars."""
    if not stays or any(isinstance(node, MatrixNode) for node in graph.nodes):
        return ()
    return (
        Diagnostic(
            "F225",
            f"no crossbar is used: {len(stays)} operators run on the host",
            hint="the summary says why for each of them; `pimc ops` lists what the chip does",
            severity="warning",
        ),
    )


def _refuse_unknown(ops: Sequence[Op]) -> None:
    """Refuse operators that the host cannot run either."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    foreign = [op for op in ops if op.domain not in ("", MICROSOFT)]
    known = {(s.domain, s.name) for s in get_all_operator_schema()} if foreign else set()
    findings = Findings()
    for op in foreign:
        if (op.domain, op.op_type) not in known:
            label = f"{label_of(op)} `{op.name}`"
            text = f"{label}: neither the chip nor onnxruntime knows domain {op.domain}"
            hint = "replace it by operators of ONNX, or cut the model before it"
            findings.error("F212", text, Location(node=label), hint)
    findings.raise_if_any()
