"""Checks of declarations: names, types, sizes, addresses, and the sums of what channels carry."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from isa.catalog import Recv, Send
from isa.printer import quoted
from isa.program import DTYPES, Buffer, Channel, Core, Loop, Statement, Table, Tensor
from isa.verify_scope import Scope, known_hint

ROLES = ("input", "output", "inner", "host")


def check_declarations(scope: Scope) -> None:
    """Note everything that is wrong with the declarations of a program, matrices aside."""
    program, target = scope.program, scope.target
    if program.target_sha256 and program.target_sha256 != target.sha256:
        scope.findings.error(
            "V423",
            f"the program was made for target `{program.target}` with sha256 "
            f"{program.target_sha256[:12]}, this is `{target.name}` with {target.sha256[:12]}",
            hint="verify it with the `target.json` of its own folder",
        )
    _check_names(scope)
    for tensor in program.tensors:
        _check_tensor(scope, tensor)
    for table in program.tables:
        _check_table(scope, table)
    for channel in program.channels:
        _check_channel(scope, channel)
    for core in program.cores:
        if not 0 <= core.index < target.cores:
            message = f"core {core.index} is outside 0..{target.cores} of `{target.name}`"
            hint = "a larger mesh has more cores: `--tiles auto`"
            scope.declared("V407", message, "core", None, str(core.index), hint)
        for buffer in core.buffers:
            _check_buffer(scope, core, buffer)
        _check_memory(scope, core)
    _check_carried(scope)


def _check_names(scope: Scope) -> None:
    program = scope.program
    _check_twice(scope, "tensor", None, (t.name for t in program.tensors))
    _check_twice(scope, "table", None, (t.name for t in program.tables))
    _check_twice(scope, "channel", None, (c.name for c in program.channels))
    _check_twice(scope, "partition", None, (p.name for p in program.partitions))
    _check_twice(scope, "core", None, (str(c.index) for c in program.cores))
    owners: dict[str, int] = {}
    for core in program.cores:
        _check_twice(scope, "buffer", core.index, (b.name for b in core.buffers))
        for matrix in core.matrices:
            if matrix.name in owners:
                message = f"matrix {quoted(matrix.name)} is declared twice"
                hint = f"core {owners[matrix.name]} has it; names of matrices are the program's"
                scope.declared("V402", message, "matrix", core.index, matrix.name, hint)
            owners.setdefault(matrix.name, core.index)
        for buffer in core.buffers:
            tensor = scope.tensors.get(buffer.name)
            if tensor is not None and tensor.role != "inner":
                message = f"buffer {quoted(buffer.name)} hides the {tensor.role} of that name"
                scope.declared("V402", message, "buffer", core.index, buffer.name, "rename it")


def _check_twice(scope: Scope, kind: str, core: int | None, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            shown = name if kind == "core" else quoted(name)
            message = f"{kind} {shown} is declared twice"
            scope.declared("V402", message, kind, core, name, "names are used once")
        seen.add(name)


def _check_tensor(scope: Scope, tensor: Tensor) -> None:
    def error(code: str, message: str, hint: str | None = None) -> None:
        scope.declared(code, f"tensor {quoted(tensor.name)}: {message}", "tensor", None,
                       tensor.name, hint)  # fmt: skip

    if tensor.role not in ROLES:
        error("V424", f"unknown role {tensor.role!r}", f"the roles are {', '.join(ROLES)}")
    if tensor.dtype not in DTYPES:
        error("V403", f"type {tensor.dtype} is none of {', '.join(DTYPES)}")
    elif not _holds(tensor.dtype, tensor.zero):
        error("V406", f"the zero point {tensor.zero} is no {tensor.dtype}")
    if len(tensor.shape) != 3 or min(tensor.shape) < 1:
        error("V404", f"shape {list(tensor.shape)} is not three sizes of at least 1")
    if sorted(tensor.order) != list(range(len(tensor.onnx_shape))):
        axes = len(tensor.onnx_shape)
        error("V424", f"order {list(tensor.order)} is no permutation of the {axes} ONNX axes")
    if math.prod(tensor.onnx_shape) != math.prod(tensor.shape):
        error(
            "V424",
            f"the ONNX shape {list(tensor.onnx_shape)} has {math.prod(tensor.onnx_shape)} "
            f"elements, the machine's {list(tensor.shape)} has {math.prod(tensor.shape)}",
        )
    if tensor.scale is not None and not (math.isfinite(tensor.scale) and tensor.scale > 0):
        error("V406", f"the scale {tensor.scale} is not positive and finite")


def _check_table(scope: Scope, table: Table) -> None:
    if table.dtype not in DTYPES or table.values.dtype != DTYPES[table.dtype]:
        message = f"table {quoted(table.name)} says {table.dtype}, holds {table.values.dtype}"
        scope.declared("V403", message, "table", None, table.name)


def _check_channel(scope: Scope, channel: Channel) -> None:
    def error(code: str, message: str, hint: str | None = None) -> None:
        scope.declared(code, f"channel {quoted(channel.name)}: {message}", "channel", None,
                       channel.name, hint)  # fmt: skip

    if channel.dtype not in DTYPES:
        error("V403", f"type {channel.dtype} is none of {', '.join(DTYPES)}")
    if min(channel.shape) < 1 or channel.depth < 1:
        error("V404", f"shape {list(channel.shape)} and depth {channel.depth} have to be positive")
    for end, core in (("sending", channel.source), ("receiving", channel.target)):
        if core not in scope.cores:
            error("V401", f"its {end} core {core} is not declared")
    if channel.carries is None:
        return
    name, first, stop = channel.carries
    tensor = scope.tensors.get(name)
    if tensor is None:
        hint = known_hint(name, scope.tensors, "tensors")
        error("V401", f"carries tensor {quoted(name)}, which is not declared", hint)
        return
    if channel.dtype != tensor.dtype:
        error("V403", f"has type {channel.dtype}, the tensor it carries is {tensor.dtype}")
    if not 0 <= first < stop <= tensor.shape[2]:
        error("V417", f"carries channels {first}..{stop} of {quoted(name)}, which has "
              f"{tensor.shape[2]}")  # fmt: skip
    if channel.rows is not None:
        low, high, step = channel.rows
        if not 0 <= low < high <= tensor.shape[0] or step < 1:
            text = " ".join(map(str, channel.rows))
            error("V417", f"carries rows [{text}] of {quoted(name)}, which has {tensor.shape[0]}")


def _check_buffer(scope: Scope, core: Core, buffer: Buffer) -> None:
    def error(code: str, message: str) -> None:
        text = f"buffer {quoted(buffer.name)} of core {core.index}: {message}"
        scope.declared(code, text, "buffer", core.index, buffer.name)

    if buffer.dtype not in DTYPES:
        error("V403", f"type {buffer.dtype} is none of {', '.join(DTYPES)}")
    elif buffer.fill is not None and not _holds(buffer.dtype, buffer.fill):
        error("V406", f"the fill value {buffer.fill} is no {buffer.dtype}")
    if min(buffer.shape) < 1:
        error("V404", f"shape {list(buffer.shape)} has a size below 1")


def _holds(dtype: str, value: int) -> bool:
    if dtype == "f32":
        return value == 0  # real numbers have no zero point, and no fill but zero
    info = np.iinfo(DTYPES[dtype])
    return bool(info.min <= value <= info.max)


def _check_memory(scope: Scope, core: Core) -> None:
    """Buffers and queues lie within the memory of the core and not on each other."""
    size = scope.target.memory.core_bytes
    places: list[tuple[int, int, str, str]] = []  # first byte, end, kind, name
    alignment: dict[tuple[str, str], int] = {}
    for buffer in core.buffers:
        if buffer.address is not None and buffer.dtype in DTYPES:
            places.append((buffer.address, buffer.bytes, "buffer", buffer.name))
            alignment["buffer", buffer.name] = DTYPES[buffer.dtype].itemsize
    for channel in scope.program.channels:
        is_here = channel.target == core.index and channel.address is not None
        if is_here and channel.address is not None and channel.dtype in DTYPES:
            places.append((channel.address, channel.bytes, "channel", channel.name))
            alignment["channel", channel.name] = DTYPES[channel.dtype].itemsize
    reached, holder = 0, ("", "")
    for address, length, kind, name in sorted(places):
        owner = core.index if kind == "buffer" else None
        text = f"{kind} {quoted(name)} at 0x{address:x}..0x{address + length:x}"
        if address < 0 or address + length > size:
            message = f"{text} is outside of the {size} bytes of core {core.index}"
            hint = "move queues or buffers to global memory (`@global`), or take a target with more"
            scope.declared("V413", message, kind, owner, name, hint)
        elif address % alignment[kind, name]:
            message = f"{text} is not aligned to its {alignment[kind, name]}-byte elements"
            scope.declared("V413", message, kind, owner, name)
        if address < reached and length:
            message = f"{text} lies on {holder[0]} {quoted(holder[1])} in core {core.index}"
            hint = f"the next free byte is 0x{reached:x}"
            scope.declared("V414", message, kind, owner, name, hint)
        if address + length > reached:
            reached, holder = address + length, (kind, name)


def _check_carried(scope: Scope) -> None:
    """What a channel says it carries is as much as its messages hold together."""
    sent = dict.fromkeys(scope.channels, 0)
    for core in scope.distinct_cores():
        for instruction, times in _counted(core.body, 1):
            if isinstance(instruction, Send) and instruction.channel in sent:
                sent[instruction.channel] += times * _elements(scope, core, instruction)
    for channel in scope.channels.values():
        tensor = scope.tensors.get(channel.carries[0]) if channel.carries else None
        if channel.carries is None or tensor is None:
            continue
        _, first, stop = channel.carries
        if channel.rows is not None and channel.rows[2] < 1:
            continue  # noted before
        wanted = len(channel.rows_of(tensor)) * tensor.shape[1] * (stop - first)
        if sent[channel.name] != wanted:
            message = (
                f"channel {quoted(channel.name)} carries channels {first}..{stop} of "
                f"{quoted(tensor.name)}, {wanted} elements, but {sent[channel.name]} are sent"
            )
            scope.declared("V417", message, "channel", None, channel.name)


def _elements(scope: Scope, core: Core, send: Send | Recv) -> int:
    region = send.source if isinstance(send, Send) else send.into
    buffer = scope.buffers[core.index].get(region.name)
    if buffer is None:
        return 0
    axes = (region.rows, region.columns, region.channels)
    return math.prod(
        size if axis is None else axis.count for size, axis in zip(buffer.shape, axes, strict=True)
    )


def _counted(body: tuple[Statement, ...], times: int) -> Iterable[tuple[object, int]]:
    """Every instruction of a stream with the number of times it is executed."""
    for statement in body:
        if isinstance(statement, Loop):
            trips = len(range(statement.start, statement.stop, max(1, statement.step)))
            yield from _counted(statement.body, times * trips)
        else:
            yield statement, times
