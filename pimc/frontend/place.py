"""Place: which operators the chip computes, which stay on the host, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from isa.diagnostics import Diagnostic, Location, PimError
from pimc.frontend.batch import spread_batch
from pimc.frontend.net import Net, Op
from pimc.frontend.partitions import between, body_of, is_host, partitioned
from pimc.frontend.regions import plan
from pimc.frontend.supported import Refusal, label_of, refusals

_FLOAT = onnx.TensorProto.FLOAT
RAW_TYPES = {  # what crosses the border as it is -> its type on the machine
    _FLOAT: "f32",
    onnx.TensorProto.BOOL: "s32",
    onnx.TensorProto.INT32: "s32",
    onnx.TensorProto.INT64: "s32",
    onnx.TensorProto.INT8: "s8",
    onnx.TensorProto.UINT8: "u8",
}


@dataclass(frozen=True)
class Stay:
    """An operator on the host. code: what `--no-host` would refuse it with."""

    node: str
    op_type: str
    partition: str
    code: str
    reason: str

    def as_json(self) -> dict[str, str]:
        return dict(self.__dict__)


def place(net: Net) -> tuple[Stay, ...]:
    """Put what the chip cannot do into partitions, in place; say why for every operator.

    Taking an operator off the chip can take its neighbours with it (they would read types or
    shapes that the chip does not have), so this repeats until nothing moves.
    """
    ops, found, inputs = list(net.ops), dict[int, Refusal](), _batched_inputs(net)
    while True:
        net.ops = partitioned(net, ops, found)
        net.batched = set(inputs)
        spread_batch(net)
        net.raw = _raw(net)
        more = refusals(net, plan(net), with_followers=True) or _unwritable(net)
        if not more:
            break
        found |= {id(refusal.op): refusal for refusal in more}
    return tuple(
        Stay(op.name, label_of(op), part.name, found[id(op)].code, found[id(op)].reason)
        for part in net.ops
        if is_host(part)
        for op in body_of(part)
    )


def _batched_inputs(net: Net) -> set[str]:
    return {port.tensor for port in net.inputs} & net.batched


def _raw(net: Net) -> set[str]:
    """Tensors that only the host and the outside touch: they stay what they are."""
    touched: set[str] = set()
    hosted: set[str] = set()
    for op in net.ops:
        (hosted if is_host(op) else touched).update((*op.inputs, *op.outputs))
    ports = {port.tensor for port in net.inputs} & net.output_tensors()
    others = {name for name in hosted if net.types.get(name, _FLOAT) != _FLOAT}
    raw = (hosted - touched - ports) | others
    integers = {port.tensor for port in net.inputs if port.elem_type in (2, 3)}
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
    kind = net.types.get(name, _FLOAT)
    if kind not in RAW_TYPES:
        return f"whose elements are {onnx.TensorProto.DataType.Name(kind).lower()}"
    return None


def hosted_ops(net: Net) -> Sequence[Op]:
    """Every operator on the host."""
    return [op for part in net.ops if is_host(part) for op in body_of(part)]
