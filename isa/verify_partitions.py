"""Checks of partitions: their tensors, and that one core alone, once, has each of them run."""

from __future__ import annotations

from isa.catalog import Host, Load, Store
from isa.printer import quoted
from isa.program import Loop, Partition, Statement, walk
from isa.verify_scope import Scope, known_hint

_MAY_BE = {"input": ("input", "host"), "output": ("output", "host")}


def check_partitions(scope: Scope) -> None:
    """Note everything that is wrong with the partitions of a program."""
    owners: dict[str, str] = {}  # host tensor -> its partition
    runners = _runners(scope)
    for partition in scope.partitions.values():
        _check_tensors(scope, partition, owners)
        cores = runners.get(partition.name, [])
        if len(cores) != 1:
            text = f"partition {quoted(partition.name)} is run {len(cores)} times for an image"
            hint = "one `host` outside of loops, on one core, names it"
            scope.declared("V427", text, "partition", None, partition.name, hint)
    for tensor in scope.tensors.values():
        if tensor.role == "host" and tensor.name not in owners:
            text = f"host tensor {quoted(tensor.name)} belongs to no partition"
            scope.declared("V427", text, "tensor", None, tensor.name)
    _check_cores(scope, {name: runners.get(owner, []) for name, owner in owners.items()})


def _check_tensors(scope: Scope, partition: Partition, owners: dict[str, str]) -> None:
    for role, names in (("input", partition.inputs), ("output", partition.outputs)):
        for name in names:
            tensor, where = scope.tensors.get(name), f"partition {quoted(partition.name)}"
            code, problem, hint = "V427", None, None
            if tensor is None:
                code, problem = "V401", f"names tensor {quoted(name)}, which is not declared"
                hint = known_hint(name, scope.tensors, "tensors")
            elif tensor.role not in _MAY_BE[role]:
                problem = f"{quoted(name)} is of role {tensor.role}, and cannot be an {role} of it"
            elif name in owners:
                problem = f"tensor {quoted(name)} is taken, by {quoted(owners[name])}"
            elif tensor.role != "input":
                owners[name] = partition.name
            if problem:
                text = f"{where}: {problem}"
                scope.declared(code, text, "partition", None, partition.name, hint)
    if not partition.outputs:
        text = f"partition {quoted(partition.name)} has no outputs"
        scope.declared("V427", text, "partition", None, partition.name)


def _runners(scope: Scope) -> dict[str, list[int]]:
    """Cores that run each partition, as often as they do."""
    found: dict[str, list[int]] = {}

    def visit(core: int, body: tuple[Statement, ...], times: int) -> None:
        for statement in body:
            if isinstance(statement, Loop):
                visit(core, statement.body, 2)  # a loop is refused, even of one round
            elif isinstance(statement, Host):
                found.setdefault(statement.partition, []).extend([core] * times)

    for core in scope.distinct_cores():
        visit(core.index, core.body, 1)
    return found


def _check_cores(scope: Scope, cores: dict[str, list[int]]) -> None:
    """Nobody but the core that runs a partition touches its tensors: nothing else is in order."""
    for core in scope.distinct_cores():
        for i in walk(core.body):
            if isinstance(i, Load | Store):
                name = (i.source if isinstance(i, Load) else i.into).name
                if name in cores and cores[name] and core.index not in cores[name]:
                    text = f"core {core.index} uses host tensor {quoted(name)}, whose partition "
                    text += f"core {cores[name][0]} runs"
                    scope.declared("V427", text, "tensor", None, name)
