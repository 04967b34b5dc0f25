"""Types of the C kernel of a non-ideal device; the definition stands in runtime/analog.py."""

from typing import Any

from numpy.typing import NDArray

def plan(
    inputs: int,
    outputs: int,
    columns: int,
    sizes: tuple[int, int, int],
    adc: tuple[int, int, int, int],
    layout: tuple[NDArray[Any], ...],
    cells: NDArray[Any],
    routes: tuple[Any, ...],
    thresholds: NDArray[Any] | None,
    noise: tuple[Any, ...] | None,
) -> object:
    """Check and copy a matrix on the grid. Raises ValueError for anything out of bounds.

    sizes: groups, word lines, route lists. adc: largest code, fraction bits, bias, top.
    layout: rows int32 [groups, lines], group int32, first int64 [groups], list_groups int64
    [lists + 1], list_columns int64 [lists]. cells: int16 [columns, lines]. routes: as from
    runtime.analog_paths. thresholds: int32 [codes] or None. noise: key0, key1, pool int16
    [65536 + 64], std int16 [lines + 1] or None, variance int32 [columns, lines] or None.
    """

def product(
    plan: object,
    u: NDArray[Any],
    out: NDArray[Any],
    image: int,
    window: int,
    windows: int,
    level: int,
) -> int:
    """Write the product of uint8 u [windows, inputs] in codes to int32 out [windows, outputs].

    Returns the saturated conversions. image, window, windows: see runtime.analog.Place.
    """

def source_hash() -> str:
    """The sha256 of the source this was compiled from."""

def sparse_plan(
    inputs: int,
    outputs: int,
    columns: int,
    sizes: tuple[int, int, int, int, int],
    adc: tuple[int, int, int, int],
    layout: tuple[NDArray[Any], ...],
    routes: tuple[NDArray[Any], ...],
    cells: NDArray[Any],
    ideal: NDArray[Any],
    thresholds: NDArray[Any],
    uniform: bool,
    level: int,
    most: int,
) -> object | None:
    """List where codes differ from the sums of the cells; None where these are over ``most``.

    sizes: groups, word lines, route lists, slots, routes. adc: as of `plan`. layout: rows, first,
    list_groups, list_columns, first slot int64 [lists]. routes: start int64 [slots + 1], output
    and factor int32 [routes]. cells, ideal: int16 [columns, lines]. thresholds: int32 [codes].
    Raises ValueError for anything out of bounds.
    """

def sparse(plan: object, u: NDArray[Any], out: NDArray[Any]) -> int:
    """Add the differences to the linear product in out; returns the saturated conversions."""
