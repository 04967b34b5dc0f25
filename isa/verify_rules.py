"""Rules about operands that the checks of instructions are made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from isa.printer import float_text, quoted
from isa.program import DTYPES
from isa.verify_site import Operand, Site

BYTES = ("s8", "u8")
INTEGERS = ("s8", "u8", "s32")


def typed(site: Site, operand: Operand | None, allowed: tuple[str, ...]) -> None:
    """The type of a region is one of ``allowed``."""
    if operand is not None and operand.dtype not in allowed:
        message = f"{quoted(operand.region.name)} is {operand.dtype}, expected "
        site.error("V403", message + " or ".join(allowed), operand.text)


def same_type(site: Site, a: Operand, b: Operand) -> None:
    """Two regions have one type."""
    if a.dtype != b.dtype:
        message = f"{quoted(a.region.name)} is {a.dtype}, {quoted(b.region.name)} is {b.dtype}"
        site.error("V403", message, b.text, "the types have to be equal")


def same_size(site: Site, a: Operand, b: Operand) -> None:
    """Two regions have as many elements."""
    if a.elements != b.elements:
        message = f"`{a.text}` has {a.elements} elements, `{b.text}` has {b.elements}"
        site.error("V404", message, b.text, f"{a.sizes()} and {b.sizes()} have to be as large")


def same_shape(site: Site, a: Operand, b: Operand) -> None:
    """Two regions have one shape."""
    if a.shape != b.shape:
        message = f"`{a.text}` is {list(a.shape)}, `{b.text}` is {list(b.shape)}"
        site.error("V404", message, b.text, "the shapes have to be equal")


def value_of(site: Site, name: str, operand: Operand | None) -> None:
    """The integer operand ``name`` is a value of the type of a region."""
    value = getattr(site.instruction, name)
    if operand is None or operand.dtype not in INTEGERS:
        return
    info = np.iinfo(DTYPES[operand.dtype])
    if not info.min <= value <= info.max:
        message = f"{name}={value} is no {operand.dtype}, which {quoted(operand.region.name)} holds"
        site.error("V406", message, f"{name}={value}")


def real(site: Site, *names: str, positive: bool = False) -> None:
    """The real operands ``names`` are finite in single precision, and above 0 where asked."""
    for name in names:
        value = getattr(site.instruction, name)
        with np.errstate(over="ignore"):
            held = float(np.float32(value))  # what the machine computes with
        if not math.isfinite(held) or (positive and held <= 0):
            what = "positive and finite" if positive else "finite"
            message = f"{name}={float_text(value)} is not {what} in single precision"
            site.error("V406", message, f"{name}=")


def quantized(site: Site, operand: Operand | None, scale: str, zero: str) -> None:
    """Scale and zero point of an operand of any type; an f32 one is its own real value."""
    if operand is None or operand.dtype != "f32":
        value_of(site, zero, operand)
        return
    for name, neutral in ((scale, 1), (zero, 0)):
        value = getattr(site.instruction, name)
        if value != neutral:
            message = f"{name}={value} has no meaning: {quoted(operand.region.name)} holds f32"
            site.error("V406", message, f"{name}=", f"leave {name} out")


def windows(site: Site, into: Operand, source: Operand) -> bool:
    """The geometry of windows: kernel, stride and dilation fit the source; False if senseless."""
    i: Any = site.instruction
    if min(*i.kernel, *i.dilation, i.stride) < 1:
        message = f"kernel {i.kernel}, stride {i.stride} and dilation {i.dilation} have to be >= 1"
        site.error("V406", message)
        return False
    rows = (i.kernel[0] - 1) * i.dilation[0] + 1
    columns = (into.shape[1] - 1) * i.stride + (i.kernel[1] - 1) * i.dilation[1] + 1
    if into.shape[0] != 1:
        message = f"`{into.text}` has {into.shape[0]} rows; windows give one"
        site.error("V404", message, into.text)
    if source.shape[0] != rows:
        message = f"windows of {rows} rows cannot take `{source.text}`, {source.shape[0]} rows"
        site.error("V404", message, source.text, _kernel_hint(i))
    if source.shape[1] < columns:
        message = (
            f"{into.shape[1]} windows need {columns} columns, `{source.text}` has {source.shape[1]}"
        )
        site.error("V404", message, source.text, _kernel_hint(i))
    return True


def _kernel_hint(i: Any) -> str:
    return (
        f"kernel {i.kernel[0]}x{i.kernel[1]}, stride {i.stride}, dilation "
        f"{i.dilation[0]}x{i.dilation[1]}"
    )
