"""The C kernel; see runtime/_crossbar*.c. Every array is C-contiguous; every size is checked."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

class Plan:
    """An opaque, immutable block matrix (a PyCapsule; the name exists for type checkers only)."""

def gemm(
    u: NDArray[np.uint8], weights: NDArray[np.int8], out: NDArray[np.int32], level: int
) -> None:
    """``out = u @ weights``; weights: [output tiles, ceil(inputs / 4), 16, 4].

    Raises ValueError when the sizes differ, TypeError for another element type.
    """

def plan(
    inputs: int,
    outputs: int,
    adc_max: int,
    rows: NDArray[np.int32],
    first: NDArray[np.int64],
    cells: NDArray[np.uint8],
    list_groups: NDArray[np.int64],
    list_columns: NDArray[np.int64],
    list_outputs: NDArray[np.int64],
    output: NDArray[np.int32],
    entry: NDArray[np.int64],
    slot: NDArray[np.int32],
    factor: NDArray[np.int32],
    /,
) -> Plan:
    """Check and copy a block matrix.

    rows: [groups, R], -1 unused; the groups of one route list stand together. first: [groups],
    the first stored column. cells: as in BlockMatrix. list_groups: [lists + 1], the groups of
    each list. list_columns: [lists], stored columns of each of its groups. list_outputs:
    [lists + 1], ranges of ``output`` and ``entry``. output: [entries]. entry: [entries + 1],
    ranges of ``slot`` (column within the group) and ``factor``, both [routes].
    """

def serial(
    plan: Plan,
    u: NDArray[np.uint8],
    out: NDArray[np.int32],
    method: Literal["table", "popcount", "excess", "sliced", "auto"],
    level: int,
) -> int:
    """Bit-serial product with the clip at ``adc_max``; returns the saturated conversions.

    "table" and "popcount" write ``out``. "excess", "sliced" and "auto" expect the linear product
    there and subtract what the clip cuts off; "auto" turns from "excess" to the quickest other
    where the clip cuts too often.
    """

def can(plan: Plan, method: str) -> bool:
    """Whether a method can do the plan.

    "table": a group's largest sum fits a byte. "sliced": up to 12 word lines of 1-bit cells.
    """

class Streams:
    """An opaque engine (a PyCapsule; the name exists for type checkers only)."""

def kinds() -> tuple[str, ...]:
    """The kinds of operations; a kind's number in ``code`` is its place."""

def engine(
    images: int,
    storages: list[NDArray[Any]],
    queues: list[NDArray[Any]],
    tables: list[NDArray[Any]],
    matrices: list[tuple[int, int, NDArray[np.int8] | None, Plan | None, str]],
    boxes: NDArray[np.int64],
    terms: NDArray[np.int64],
    code: NDArray[np.int64],
    streams: NDArray[np.int64],
    variables: int,
    scratch_bytes: int,
    level: int,
    /,
) -> Streams:
    """Check and copy streams of operations; the memory of the arrays is used, not copied.

    storages: [images, rows, columns, channels]. queues: [depth, images, elements]. matrices:
    inputs, outputs, packed weights, plan, method. boxes: [n, 14]: storage, whether it is a ring,
    rows, columns, channels, and for each axis the start: constant, first term, number of terms.
    terms: [n, 2]: variable, factor. code: [n, 12]: kind, the boxes into, a and b, and eight numbers
    as the kind reads them. streams: [n + 1, 1], ranges of ``code``. variables: of all loops.
    Raises ValueError, TypeError or BufferError for what it cannot do.
    """

def run(
    engine: Streams,
    calls: list[Callable[..., object]],
    records: list[Callable[[int, int], None] | None] | None,
    /,
) -> tuple[int, list[int], list[int], list[int], list[int], list[int], list[int]]:
    """Run all streams from their start.

    calls: by number, called with the variables of the enclosing loops. records: by queue, called
    with slot and elements of each message. Returns -1 at the end, -2 where all that are left wait,
    else the number of the stream whose operation is not possible; then saturations by matrix,
    position by stream, values of the variables, and by queue messages sent, taken, and elements
    of the oldest one that waits. Raises what a call raises, and KeyboardInterrupt.
    """

def best_level() -> int:
    """0 portable, 1 AVX2, 2 AVX-512 with VNNI and BITALG."""

def source_hash() -> str:
    """The sha256 of the source file that the kernel was compiled from."""
