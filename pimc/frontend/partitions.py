"""Partitions: operators that stay on the host, cut into connected parts that never form a cycle.

An operator's *epoch* counts how often a way to it changes from the host to the chip and back.
Operators of one epoch have no chip between them, and every way leads to the same epoch or a later
one: so the connected parts of each epoch are convex, and no two of them wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from graphlib import TopologicalSorter
from typing import TypeGuard

from pimc.frontend.net import Net, Op

DOMAIN = "pimc"
HOST = "Host"  # the operator of a net that stands for a partition; attribute body: its operators


def is_host(op: object) -> TypeGuard[Op]:
    """Whether a step is a partition."""
    return isinstance(op, Op) and op.domain == DOMAIN


def body_of(op: Op) -> tuple[Op, ...]:
    """The operators of a partition."""
    return tuple(op.attributes["body"])


def partitioned(net: Net, ops: Sequence[Op], hosted: Collection[int]) -> list[Op]:
    """``ops`` (in topological order) with those in ``hosted``, by id, put into partitions."""
    reads = [op.reads for op in ops]
    part = _parts(ops, reads, hosted)
    maker = {name: at for at, op in enumerate(ops) for name in op.outputs if name}
    order = TopologicalSorter[int]()
    for at in range(len(ops)):
        needed = {part[maker[name]] for name in reads[at] if name in maker}
        order.add(part[at], *sorted(needed - {part[at]}))
    members: dict[int, list[int]] = {}
    for at, number in enumerate(part):
        members.setdefault(number, []).append(at)
    outputs = net.output_tensors()
    found: list[Op] = []
    for number in order.static_order():
        if id(ops[number]) not in hosted:
            found.append(ops[number])
            continue
        inside = set(members[number])
        body = [ops[at] for at in members[number]]
        made = dict.fromkeys(name for op in body for name in op.outputs if name)
        outside = {name for at in range(len(ops)) if at not in inside for name in reads[at]}
        inputs = dict.fromkeys(name for at in members[number] for name in reads[at])
        found.append(
            Op(
                _free_name(net, sum(is_host(op) for op in found)),
                HOST,
                tuple(name for name in inputs if name not in made),
                tuple(name for name in made if name in outside or name in outputs),
                {"body": tuple(body)},
                DOMAIN,
            )
        )
    return found


def _parts(ops: Sequence[Op], reads: Sequence[Sequence[str]], hosted: Collection[int]) -> list[int]:
    """For every operator the first of those that it shares a partition with."""
    part = list(range(len(ops)))
    epochs: list[int] = []
    maker: dict[str, int] = {}

    def first(at: int) -> int:
        while part[at] != at:
            part[at] = part[part[at]]
            at = part[at]
        return at

    for at, op in enumerate(ops):
        on_host = id(op) in hosted
        makers = [maker[name] for name in reads[at] if name in maker]
        left = [epochs[m] + int(id(ops[m]) in hosted and not on_host) for m in makers]
        epochs.append(max(left, default=0))
        for m in makers if on_host else ():
            if id(ops[m]) in hosted and epochs[m] == epochs[at]:
                low, high = sorted((first(m), first(at)))
                part[high] = low
        maker |= {name: at for name in op.outputs if name}
    return [first(at) for at in range(len(ops))]


def _free_name(net: Net, number: int) -> str:
    taken = {op.name for op in net.ops if not is_host(op)}
    name = f"host{number}"
    while name in taken:
        name = f"{name}_"
    return name


def between(ops: Sequence[Op], first: Op, last: Op) -> Iterator[Op]:
    """The operators on ways from one to another; ``ops`` in topological order."""
    after = set(first.outputs)
    behind = []
    for op in ops:
        if op is not first and op is not last and after.intersection(op.inputs):
            after.update(op.outputs)
            behind.append(op)
    before = set(last.inputs)
    for op in reversed(behind):
        if before.intersection(op.outputs):
            before.update(op.inputs)
            yield op
