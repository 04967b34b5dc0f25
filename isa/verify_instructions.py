"""Checks of instructions: types, sizes and values of the operands, one function per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isa.catalog import (
    Accumulate,
    Add,
    Const,
    Copy,
    Div,
    Elementwise,
    Fill,
    Gather,
    Host,
    Load,
    Lookup,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Mvm,
    Pow,
    Recv,
    Requant,
    Select,
    Send,
    Store,
    Sub,
    SumPool,
)
from isa.instruction import Instruction
from isa.printer import name_text, quoted
from isa.program import Loop, Statement
from isa.verify_rules import (
    BYTES,
    quantized,
    real,
    same_shape,
    same_size,
    same_type,
    typed,
    value_of,
    windows,
)
from isa.verify_scope import Scope
from isa.verify_site import Operand, Site

Kind = TypeVar("Kind", bound=Instruction)
Check = Callable[[Site, Any], None]

CHECKS: dict[type[Instruction], Check] = {}


def checks(*classes: type[Instruction]) -> Callable[[Check], Check]:
    """Register the check of some instruction classes, called with resolved regions."""

    def register(function: Check) -> Check:
        for cls in classes:
            CHECKS[cls] = function
        return function

    return register


def check_instructions(scope: Scope) -> None:
    """Note everything that is wrong with the operands of all instructions.

    Instructions in loops that never run are checked for names, types and sizes as well; only
    bounds cannot be wrong there.
    """
    for core in scope.distinct_cores():
        ordinal = _check_body(scope, core.index, core.body, {}, 0)
        assert ordinal >= 0


def _check_body(
    scope: Scope,
    core: int,
    body: tuple[Statement, ...],
    variables: Mapping[str, range],
    ordinal: int,
) -> int:
    """Check a stream from its instruction ``ordinal`` on; returns the next ordinal."""
    for statement in body:
        if isinstance(statement, Loop):
            ordinal = _check_loop(scope, core, statement, variables, ordinal)
            continue
        site = Site(scope, core, ordinal, statement, variables)
        site.resolve()
        check = CHECKS.get(type(statement))
        if check is None:
            site.error("V401", "is no instruction of the catalog", statement.mnemonic)
        else:
            check(site, statement)
        ordinal += 1
    return ordinal


def _check_loop(
    scope: Scope, core: int, loop: Loop, variables: Mapping[str, range], ordinal: int
) -> int:
    name = quoted(loop.variable)
    at = scope.at_declaration("core", None, str(core))
    if loop.variable in variables:
        message = f"core {core}: a loop over {name} stands inside of another one"
        scope.findings.error("V402", message, at, "give the inner loop another variable")
    if loop.step < 1:
        message = f"core {core}: the loop over {name} has step {loop.step}"
        scope.findings.error("V406", message, at, "loops count upwards")
    values = range(loop.start, loop.stop, max(1, loop.step))
    if not values:
        message = f"core {core}: the loop over {name} never runs: {loop.start}..{loop.stop}"
        scope.findings.error("V406", message, at, "leave it out, or correct its bounds")
        values = range(loop.start, loop.start + 1)
    return _check_body(scope, core, loop.body, {**variables, loop.variable: values}, ordinal)


# ------------------------------------------------------------------ one check per class


@checks(Load, Store, Copy)
def _move(site: Site, i: Load | Store | Copy) -> None:
    if (found := site.regions("into", "source")) is not None:
        same_type(site, *found)
        same_size(site, *found)


@checks(Send, Recv)
def _message(site: Site, i: Send | Recv) -> None:
    channel = site.channel(i.channel)
    operand = site.region("source" if isinstance(i, Send) else "into")
    if channel is None:
        return
    verb, owner = ("sends", channel.source) if isinstance(i, Send) else ("receives", channel.target)
    if owner != site.core:
        message = f"core {owner} {verb} on channel {quoted(channel.name)}, not core {site.core}"
        site.error("V415", message, name_text(channel.name))
    if operand is None:
        return
    if operand.dtype != channel.dtype:
        message = f"`{operand.text}` is {operand.dtype}, channel {quoted(channel.name)} is "
        site.error("V403", message + channel.dtype, operand.text)
    columns, channels = channel.shape
    if operand.elements > columns * channels:
        message = (
            f"a message of {operand.elements} elements does not fit channel "
            f"{quoted(channel.name)}, which holds {columns} x {channels}"
        )
        site.error("V416", message, operand.text)


@checks(Host)
def _host(site: Site, i: Host) -> None:
    site.partition(i.partition)


@checks(Fill)
def _fill(site: Site, i: Fill) -> None:
    value_of(site, "value", site.region("into"))


@checks(Const)
def _const(site: Site, i: Const) -> None:
    into = site.region("into")
    if into is None:
        return
    values = site.table(i.table, into.dtype)
    if values is not None and values.size != into.elements:
        message = f"table {quoted(i.table)} has {values.size} values, `{into.text}` {into.elements}"
        site.error("V404", message, name_text(i.table))


@checks(Gather)
def _gather(site: Site, i: Gather) -> None:
    into, source = site.region("into"), site.region("source")
    index = site.table(i.index, "s32")
    value_of(site, "value", into)
    if into is not None and source is not None:
        same_type(site, into, source)
    if into is not None and index is not None and index.size != into.elements:
        message = f"index {quoted(i.index)} has {index.size} entries, `{into.text}` {into.elements}"
        site.error("V404", message, name_text(i.index))
    if source is not None and index is not None and index.size:
        low, high = int(np.min(index.astype(np.int64))), int(np.max(index.astype(np.int64)))
        if low < -1 or high >= source.elements:
            bad = low if low < -1 else high
            message = f"index {quoted(i.index)} names element {bad} of `{source.text}`, which has "
            site.error("V425", f"{message}{source.elements}", name_text(i.index))


@checks(Mvm)
def _mvm(site: Site, i: Mvm) -> None:
    into, source, matrix = site.region("into"), site.region("source"), site.matrix(i.matrix)
    typed(site, into, ("s32",))
    typed(site, source, BYTES)
    if into is None or source is None or not windows(site, into, source) or matrix is None:
        return
    inputs = i.kernel[0] * i.kernel[1] * source.shape[2]
    if inputs != matrix.blocks.inputs:
        message = (
            f"a window has {inputs} inputs ({i.kernel[0]} x {i.kernel[1]} x {source.shape[2]} "
            f"channels), matrix {quoted(matrix.name)} has {matrix.blocks.inputs}"
        )
        site.error("V404", message, name_text(matrix.name))
    if into.shape[2] != matrix.blocks.outputs:
        message = f"`{into.text}` has {into.shape[2]} channels, matrix {quoted(matrix.name)} gives "
        site.error("V404", f"{message}{matrix.blocks.outputs}", into.text)


@checks(Accumulate)
def _accumulate(site: Site, i: Accumulate) -> None:
    for name in ("into", "source"):
        typed(site, site.region(name), ("s32",))
    if (found := site.regions("into", "source")) is not None:
        same_shape(site, *found)


@checks(Requant)
def _requant(site: Site, i: Requant) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, source, ("s32",))
    value_of(site, "zero", into)
    if into is not None and into.dtype == "f32" and i.zero:
        site.error("V406", f"zero={i.zero} has no meaning: `{into.text}` holds f32", "zero=")
    if into is not None and source is not None:
        same_shape(site, into, source)
    scale = site.table(i.scale, "f32")
    if scale is not None and not np.isfinite(scale.astype(np.float64)).all():
        site.error("V406", f"table {quoted(i.scale)} has a scale that is not finite",
                   name_text(i.scale))  # fmt: skip
    broadcasts(site, i.bias, site.table(i.bias, "s32"))
    broadcasts(site, i.scale, scale)


def broadcasts(site: Site, name: str, table: NDArray[np.generic] | None) -> None:
    """A table has a number for each column and channel written, or one for several."""
    into = site.region("into")
    if table is None or into is None:
        return
    wanted = into.shape[1:]
    fits = table.ndim <= 2 and all(
        size in (1, whole) for size, whole in zip(table.shape[::-1], wanted[::-1], strict=False)
    )
    if not fits:
        message = f"table {quoted(name)} {list(table.shape)} does not broadcast to "
        site.error("V404", f"{message}{list(wanted)} [columns, channels]", name_text(name))


@checks(Lut)
def _lut(site: Site, i: Lut) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, source, BYTES)
    if into is None:
        return
    if source is not None:
        same_shape(site, into, source)
    table = site.table(i.table, into.dtype)
    wanted = ((256,), (into.shape[2], 256))
    if table is not None and table.shape not in wanted:
        message = f"table {quoted(i.table)} is {list(table.shape)}, expected [256] or "
        site.error("V404", f"{message}{list(wanted[1])}", name_text(i.table))


@checks(Lookup)
def _lookup(site: Site, i: Lookup) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, source, ("s32",))
    typed(site, into, (*BYTES, "f32"))
    if into is None:
        return
    if source is not None and math.prod(source.shape) != into.shape[0] * into.shape[1]:
        message = f"`{source.text}` has {math.prod(source.shape)} numbers, `{into.text}` "
        site.error("V404", f"{message}{into.shape[0] * into.shape[1]} columns", source.text)
    table = site.table(i.table, into.dtype)
    if table is not None and (table.ndim != 2 or table.shape[1] != into.shape[2]):
        message = f"table {quoted(i.table)} is {list(table.shape)}, expected [rows, "
        site.error("V404", f"{message}{into.shape[2]}]", name_text(i.table))


@checks(Add, Sub, Mul, Div, Pow, Max, Min)
def _binary(site: Site, i: Elementwise) -> None:
    into, a, b = site.region("into"), site.region("a"), site.region("b")
    for suffix, operand in (("", into), ("_a", a), ("_b", b)):
        quantized(site, operand, f"scale{suffix}", f"zero{suffix}")
    real(site, "scale_a", "scale_b")
    real(site, "scale", positive=True)
    if into is not None and a is not None:
        same_shape(site, into, a)
    if into is not None and b is not None:
        _spreads(site, b, into)


def _spreads(site: Site, operand: Operand, into: Operand) -> None:
    rows, columns, channels = operand.shape
    broadcast = columns in (1, into.shape[1]) and channels in (1, into.shape[2])
    if rows != into.shape[0] or not broadcast:
        message = f"`{operand.text}` {list(operand.shape)} does not broadcast to {list(into.shape)}"
        hint = "its columns and channels may be 1, its rows not"
        site.error("V404", message, operand.text, hint)


@checks(Select)
def _select(site: Site, i: Select) -> None:
    into, mask, a, b = (site.region(name) for name in ("into", "mask", "a", "b"))
    for operand in (into, mask, a, b):
        typed(site, operand, BYTES)
        if into is not None and operand is not None and operand is not into:
            _spreads(site, operand, into)
    for name, operand in (("zero", into), ("zero_a", a), ("zero_b", b)):
        value_of(site, name, operand)
    real(site, "scale_a", "scale_b")
    real(site, "scale", positive=True)


@checks(MaxPool, SumPool)
def _pool(site: Site, i: MaxPool | SumPool) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, source, BYTES)
    if isinstance(i, SumPool):
        typed(site, into, ("s32",))
    if into is None or source is None:
        return
    if isinstance(i, MaxPool):
        same_type(site, into, source)
    windows(site, into, source)
    if into.shape[2] != source.shape[2]:
        message = f"`{into.text}` has {into.shape[2]} channels, `{source.text}` {source.shape[2]}"
        site.error("V404", message, source.text)


@checks(MatMul)
def _product(site: Site, i: MatMul) -> None:
    into, a, b = site.region("into"), site.region("a"), site.region("b")
    typed(site, into, (*BYTES, "f32"))
    for name, operand in (("zero", into), ("zero_a", a), ("zero_b", b)):
        value_of(site, name, operand)
    for operand in (a, b):
        typed(site, operand, BYTES)
    real(site, "scale")
    if into is not None and into.dtype == "f32" and i.zero:
        site.error("V406", f"zero={i.zero} has no meaning: `{into.text}` holds f32", "zero=")
    if into is None or a is None or b is None:
        return
    wanted = (a.shape[0], a.shape[1], b.shape[2])
    if a.shape[2] != b.shape[1] or a.shape[0] != b.shape[0] or into.shape != wanted:
        message = (
            f"`{a.text}` {list(a.shape)} times `{b.text}` {list(b.shape)} does not give "
            f"`{into.text}` {list(into.shape)}"
        )
        site.error("V404", message, a.text, "the columns of b are the channels of a")
