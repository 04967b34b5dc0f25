"""Checks of the instructions that normalize."""

from __future__ import annotations

from isa.catalog_normalize import (
    MOST_COUNTED,
    GroupNorm,
    LayerNorm,
    LogSoftmax,
    Lrn,
    Moments,
    Softmax,
)
from isa.printer import name_text, quoted
from isa.verify_instructions import broadcasts, checks
from isa.verify_rules import BYTES, INTEGERS, real, same_shape, typed, value_of
from isa.verify_site import Site


@checks(Softmax, LogSoftmax, Lrn, LayerNorm)
def _normalize(site: Site, i: Softmax | LogSoftmax | Lrn | LayerNorm) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, into, BYTES)
    typed(site, source, INTEGERS if isinstance(i, Lrn) else BYTES)
    value_of(site, "zero", into)
    real(site, "scale", positive=True)
    if isinstance(i, Lrn):
        value_of(site, "zero_a", source)
        real(site, "scale_a", "factor", "beta", "bias")
        if i.size < 1:
            site.error("V406", f"size={i.size} has to be at least 1", f"size={i.size}")
    elif isinstance(i, Softmax | LogSoftmax):
        table_of_shape(site, i.powers, "s32", (256,))
        if isinstance(i, LogSoftmax):
            real(site, "scale_a")
    else:
        real(site, "epsilon")
        channels = 0 if source is None else source.shape[2]
        for name in (i.gain, i.offset):
            table_of_shape(site, name, "f32", (channels,))
    if into is not None and source is not None:
        same_shape(site, into, source)


def table_of_shape(site: Site, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    table = site.table(name, dtype)
    if table is not None and table.shape != shape:
        message = f"table {quoted(name)} is {list(table.shape)}, expected {list(shape)}"
        site.error("V404", message, name_text(name))


@checks(Moments)
def _moments(site: Site, i: Moments) -> None:
    typed(site, site.region("source"), BYTES)
    _held_moments(site, "into")


@checks(GroupNorm)
def _group_norm(site: Site, i: GroupNorm) -> None:
    into, source = site.region("into"), site.region("source")
    typed(site, into, BYTES)
    typed(site, source, BYTES)
    value_of(site, "zero", into)
    real(site, "epsilon")
    real(site, "scale", positive=True)
    if not 1 <= i.count <= MOST_COUNTED:
        site.error("V406", f"count={i.count} has to be in 1..{MOST_COUNTED}", f"count={i.count}")
    _held_moments(site, "moments")
    for name in (i.gain, i.offset):
        broadcasts(site, name, site.table(name, "f32"))
    if into is not None and source is not None:
        same_shape(site, into, source)


def _held_moments(site: Site, name: str) -> None:
    """The region with the sums of groups of the source's channels."""
    held, source = site.region(name), site.region("source")
    typed(site, held, ("s32",))
    if held is None or source is None:
        return
    rows, columns, groups = held.shape
    if (rows, columns) != (1, 3) or source.shape[2] % groups:
        message = f"`{held.text}` {list(held.shape)} does not hold moments of `{source.text}` "
        hint = "it is [1, 3, groups], and the channels are groups of equal size"
        site.error("V404", f"{message}{list(source.shape)}", held.text, hint)
