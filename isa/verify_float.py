"""Checks of the instructions on float32 rows."""

from __future__ import annotations

from isa.catalog_float import FUNCTIONS, REDUCTIONS, FloatLayerNorm, FloatSoftmax, Real
from isa.printer import name_text
from isa.verify_instructions import checks
from isa.verify_normalize import table_of_shape
from isa.verify_rules import quantized, real, same_shape
from isa.verify_site import Site


def _operands(site: Site) -> None:
    """Any types on both sides; their scales and zero points."""
    quantized(site, site.region("source"), "scale_a", "zero_a")
    quantized(site, site.region("into"), "scale", "zero")
    real(site, "scale_a")
    real(site, "scale", positive=True)


@checks(*FUNCTIONS, FloatSoftmax)
def _element_by_element(site: Site, i: Real) -> None:
    _operands(site)
    if (found := site.regions("into", "source")) is not None:
        same_shape(site, *found)


@checks(*REDUCTIONS)
def _reduction(site: Site, i: Real) -> None:
    _operands(site)
    if (found := site.regions("into", "source")) is None:
        return
    into, source = found
    wanted = (*source.shape[:2], 1)
    if into.shape != wanted:
        message = f"`{into.text}` is {list(into.shape)}, expected {list(wanted)}"
        site.error("V404", message, name_text(into.region.name), "all channels become one")


@checks(FloatLayerNorm)
def _layer_norm(site: Site, i: FloatLayerNorm) -> None:
    _operands(site)
    real(site, "epsilon")
    if (found := site.regions("into", "source")) is None:
        return
    same_shape(site, *found)
    for name in (i.gain, i.offset):
        table_of_shape(site, name, "f32", (found[1].shape[2],))
