"""Target description: load, check and derive from the chip that a program is compiled for.

A description is a TOML file (shipped ones in `isa/targets/`), checked completely on load. It may
say `extends = "ou9x8"` and then state only what differs. The built `Target` is immutable, knows
the source of each of its numbers, and turns into JSON or TOML and back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.target_checks import MAX_CORES, check_contradictions, check_sources
from isa.target_files import Document, apply_overrides, read_document, shipped_targets
from isa.target_model import (
    Accumulation,
    Adc,
    Component,
    Crossbar,
    Dac,
    Device,
    Events,
    GlobalMemory,
    Hierarchy,
    Inputs,
    Memory,
    Name,
    Network,
    OperationUnit,
    Positive,
    Section,
    Text,
    Vector,
    Weights,
)
from isa.target_nonideal import NonIdeal
from isa.target_text import toml_text
from isa.toml_source import MAX_FILE_BYTES
from isa.validate import validate

DEFAULT_TARGET: Final = "ou9x8"


class Target(Section):
    """A processing-in-memory chip: sizes, prices and times, each with unit and source."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    """Version of this format."""
    name: Name
    description: Text
    technology_nm: Positive
    clock_ghz: Positive
    """The one clock; a cycle of every unit."""
    crossbar: Crossbar
    ou: OperationUnit
    adc: Adc
    dac: Dac
    weights: Weights
    inputs: Inputs
    accumulation: Accumulation
    hierarchy: Hierarchy
    memory: Memory
    vector: Vector
    network: Network
    global_memory: GlobalMemory
    device: Device
    events: Events
    components: dict[Name, Component]
    """Parts that take area and leak, by name."""
    nonideal: NonIdeal = NonIdeal()
    """What a run with noise adds; not there unless something is on."""
    sources: dict[str, Text]
    """Dotted path of a number -> where it comes from. Every number has an entry."""

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.nonideal.is_ideal:
            del written["nonideal"]
        return written

    @property
    def cycle_ns(self) -> float:
        """Duration of one clock cycle, ns."""
        return 1.0 / self.clock_ghz

    @property
    def row_slots(self) -> int:
        """OUs on top of each other in a crossbar."""
        return self.crossbar.rows // self.ou.rows

    @property
    def column_slots(self) -> int:
        """OUs side by side in a crossbar."""
        return self.crossbar.columns // self.ou.columns

    @property
    def cell_max(self) -> int:
        """The largest value of a cell."""
        return (1 << self.crossbar.cell_bits) - 1

    @property
    def adc_max(self) -> int:
        """The largest sum that a conversion can tell; larger ones saturate here."""
        return (1 << self.adc.bits) - 1

    @property
    def exact_adc_bits(self) -> int:
        """ADC bits that hold the sum of a full OU, so that no conversion can ever saturate.

        With flipped columns a stored column holds at most half of the largest sum (ISAAC, 5.2).
        """
        largest = self.ou.rows * self.cell_max
        return (largest // 2 if self.weights.flip_columns else largest).bit_length()

    @property
    def adc_is_exact(self) -> bool:
        """Whether the ADC is wide enough for every possible OU; if not, mapping decides."""
        return self.adc.bits >= self.exact_adc_bits

    @property
    def adc_energy_pj(self) -> float:
        """Energy of one conversion at the ADC's bits, pJ."""
        return self.adc.energy_pj[str(self.adc.bits)]

    @property
    def adc_area_um2(self) -> float:
        """Area of one converter at the ADC's bits, um2."""
        return self.adc.area_um2[str(self.adc.bits)]

    @property
    def adc_static_mw(self) -> float:
        """Static power of one converter, mW: its share of converting without a pause."""
        conversions_per_ns = self.clock_ghz / self.adc.conversion_cycles
        return self.adc.static_share * self.adc_energy_pj * conversions_per_ns

    @property
    def crossbars_per_core(self) -> int:
        """Crossbars in all PEs of a core."""
        return self.hierarchy.crossbars_per_pe * self.hierarchy.pes_per_core

    @property
    def cores(self) -> int:
        """Cores on the chip."""
        h = self.hierarchy
        return h.mesh_width * h.mesh_height * h.concentration

    @property
    def crossbars(self) -> int:
        """Crossbars on the chip."""
        return self.cores * self.crossbars_per_core

    def router_of(self, core: int) -> tuple[int, int]:
        """Return (x, y) of the router of a core; cores fill routers, and those rows, in order."""
        y, x = divmod(core // self.hierarchy.concentration, self.hierarchy.mesh_width)
        return x, y

    def hops(self, source: int, sink: int) -> int:
        """Return the router hops between two cores: Manhattan distance, 1 at a shared router."""
        (x0, y0), (x1, y1) = self.router_of(source), self.router_of(sink)
        return max(1, abs(x0 - x1) + abs(y0 - y1))

    def with_cores(self, cores: int) -> Target:
        """Return this target with the smallest near-square mesh that holds `cores` cores.

        Raises PimError T107 when `cores` is below 1 or above `MAX_CORES`.
        """
        if not 1 <= cores <= MAX_CORES:
            message = f"a chip has 1 to {MAX_CORES} cores, not {cores}"
            raise PimError(Diagnostic("T107", message, Location(node=f"target `{self.name}`")))
        routers = math.ceil(cores / self.hierarchy.concentration)
        width = math.isqrt(routers - 1) + 1
        mesh = {"mesh_width": width, "mesh_height": math.ceil(routers / width)}
        note = f"mesh resized to hold {cores} cores"
        sources = self.sources | {f"hierarchy.{key}": note for key in mesh}
        hierarchy = self.hierarchy.model_copy(update=mesh)
        return self.model_copy(update={"hierarchy": hierarchy, "sources": sources})

    def with_mesh(self, cores_needed: int) -> Target:
        """Return this target, with the mesh grown where it holds fewer cores than needed."""
        return self if cores_needed <= self.cores else self.with_cores(cores_needed)

    def with_overrides(self, overrides: Mapping[str, str]) -> Target:
        """Return this target with some values set: dotted key -> TOML value.

        Raises PimError T104..T109 with everything that is wrong, each at its override.
        """
        document = Document.from_data(self.model_dump(by_alias=True), self.name)
        return _build(apply_overrides(document, overrides))

    def with_nonideal(self, overrides: Mapping[str, str]) -> Target:
        """As ``with_overrides``, for numbers of the `nonideal` section: its key -> TOML value."""
        return self.with_overrides({f"nonideal.{key}": v for key, v in overrides.items()})

    def with_index_bytes(self, needed: int) -> Target:
        """Return this target, with index memories that hold ``needed`` bytes; area as their size.

        Sizes double, as memories do. The price of reading a bit is left as it is.
        """
        size = self.memory.index_bytes
        if needed <= size:
            return self
        factor = 2 ** math.ceil(math.log2(needed / max(1, size)))
        grown = max(1, size) * factor
        note = f"index memories enlarged from {size} to {grown} bytes"
        components, paths = dict(self.components), ["memory.index_bytes"]
        if "index_memory" in components and size:
            part = components["index_memory"]
            scaled = {key: factor * getattr(part, key) for key in ("area_um2", "static_mw")}
            components["index_memory"] = part.model_copy(update=scaled)
            paths += [f"components.index_memory.{key}" for key in scaled]
        memory = self.memory.model_copy(update={"index_bytes": grown})
        sources = self.sources | dict.fromkeys(paths, note)
        update = {"memory": memory, "components": components, "sources": sources}
        return self.model_copy(update=update)

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of this description: what a program is compiled for."""
        document = self.model_dump(by_alias=True)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """Return the whole description as JSON; `from_json` gives an equal target back."""
        return json.dumps(self.model_dump(by_alias=True), indent=1) + "\n"

    def to_toml(self) -> str:
        """Return the whole description as TOML that `load_target` reads back."""
        return toml_text(self.model_dump(by_alias=True))

    @classmethod
    def from_json(cls, text: str, file: str = "<json>") -> Target:
        """Build a target from `to_json`'s text; `file` is the name to show in messages.

        Raises PimError T102..T108 with all that is wrong.
        """
        if len(text) > MAX_FILE_BYTES:
            message = f"the target description is longer than {MAX_FILE_BYTES} characters"
            raise PimError(Diagnostic("T102", message, Location(file)))
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"not valid JSON: {error}"
            raise PimError(Diagnostic("T103", message, Location(file))) from error
        if not isinstance(data, dict):
            raise PimError(Diagnostic("T103", "expected a JSON object", Location(file)))
        return _build(Document.from_data(data, file))


def load_target(name_or_path: str | Path, overrides: Mapping[str, str] | None = None) -> Target:
    """Load a shipped target by name, or a target file by path.

    overrides: dotted key -> TOML value, as from `--set crossbar.rows=64`.
    Raises PimError T101..T109 with everything that is wrong, each with its line.
    """
    document = read_document(name_or_path)
    return _build(apply_overrides(document, overrides or {}))


def list_targets() -> tuple[str, ...]:
    """Return the names of the shipped targets, the default one first."""
    return tuple(sorted(shipped_targets(), key=lambda name: (name != DEFAULT_TARGET, name)))


@lru_cache(maxsize=1)
def _schema_text() -> str:
    return json.dumps(Target.model_json_schema(by_alias=True))


def target_schema() -> dict[str, Any]:
    """Return the JSON Schema of a complete description, for editors."""
    schema: dict[str, Any] = json.loads(_schema_text())
    return schema


def _build(document: Document) -> Target:
    """Validate a document completely and build the target, or raise all findings."""
    findings = Findings()
    findings.diagnostics += document.findings
    complete = {**document.data, "sources": document.sources}
    target = validate(Target, complete, document.locate, findings)
    # numbers at keys that do not exist are already reported; do not ask for their sources too
    unknown = {d.at for d in findings if d.code == "T104"}
    missing = Findings()
    check_sources(document.data, document.sources, document.locate, missing)
    findings.diagnostics += [d for d in missing if d.at is None or d.at not in unknown]
    check_contradictions(document.data, document.locate, findings)
    findings.diagnostics.sort(key=lambda d: d.at.line or 0 if d.at else 0)  # as a reader reads
    findings.raise_if_any()
    assert target is not None
    return target
