"""The sections of a target description: every number a chip is made of, typed and bounded.

Units stand in the names: `_nm`, `_ghz`, `_pj` (one event), `_cycles` (of the one clock), `_um2`,
`_mw`, `_ohm`, `_v`, `_ns`. Where a number comes from stands in the target's `sources`.
The models hold shapes and ranges; what must hold *between* numbers is in `isa.target_checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Count = Annotated[int, Field(ge=1, le=1 << 16)]
Bytes = Annotated[int, Field(ge=0, le=1 << 32)]
Cycles = Annotated[int, Field(ge=0, le=1 << 20)]
Quantity = Annotated[float, Field(ge=0, le=1e12)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
BitsKey = Annotated[str, Field(pattern=r"^[1-9][0-9]?$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

Encoding = Literal["twos-complement", "sign-magnitude", "offset"]
Routing = Literal["after-bits", "per-bit"]
Skip = Literal["none", "group", "group-bit"]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversion, no nan or inf."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class OptionalSection(Section):
    """A section that is written without the values that are its defaults."""

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        fields = type(self).model_fields.items()
        defaults = {name for name, field in fields if getattr(self, name) == field.get_default()}
        return {name: value for name, value in written.items() if name not in defaults}


class Crossbar(Section):
    """One array of memory cells."""

    rows: Annotated[int, Field(ge=1, le=4096)]
    """Word lines."""
    columns: Annotated[int, Field(ge=1, le=4096)]
    """Bit lines."""
    cell_bits: Annotated[int, Field(ge=1, le=8)]
    """Bits a cell holds; its values are 0 .. 2**cell_bits - 1."""


class OperationUnit(Section):
    """The part of a crossbar that fires at once."""

    rows: Annotated[int, Field(ge=1, le=4096)]
    """Word lines driven in one fire."""
    columns: Annotated[int, Field(ge=1, le=4096)]
    """Bit lines read in one fire."""
    min_issue_cycles: Cycles
    """A crossbar fires again no sooner than this, however few columns it converts."""
    fixed_latency_cycles: Cycles
    """Cycles of one fire besides the conversions: fetch, drive, read, shift-add, write back."""
    pipelined: bool
    """Whether the stages of successive fires of one crossbar overlap."""


class Adc(Section):
    """The converter of a crossbar; prices are tables over the bits, so that `bits` can vary."""

    bits: Annotated[int, Field(ge=1, le=16)]
    """Resolution: a conversion saturates at 2**bits - 1."""
    per_crossbar: Count
    """Converters that work side by side on one crossbar."""
    conversion_cycles: Annotated[int, Field(ge=1, le=1 << 20)]
    """Cycles of one conversion."""
    static_share: Annotated[float, Field(ge=0, le=1)]
    """Static power as a share of the power of a converter that converts all the time."""
    energy_pj: dict[BitsKey, Quantity]
    """Bits -> energy of one conversion, pJ."""
    area_um2: dict[BitsKey, Quantity]
    """Bits -> area of one converter, um2."""


class Dac(Section):
    """The word-line drivers."""

    bits: Literal[1]
    """Input bits a driver turns into a voltage at once; the executor knows single bits only."""


class Weights(Section):
    """How integers become cells."""

    bits: Literal[8]
    """Bits of a stored weight."""
    encoding: Encoding
    """Default encoding; a mapping pass may choose another one per layer."""
    flip_columns: bool
    """ISAAC's trick: store a column inverted when its sum is large, which saves one ADC bit."""


class Inputs(OptionalSection):
    """How activations reach the word lines."""

    bits: Literal[8]
    """Bits of an activation, streamed one by one."""
    skip: Skip = "none"
    """Operation units that do not fire: `group` where all inputs of the row group are zero (SRE,
    ISCA 2019), `group-bit` where they are in the input bit at hand (as DyPIM, DATE 2024, activates
    the lines of ones only). One bit a group, or a group and input bit, is read from the index
    memory per window; a skipped fire costs nothing else."""


class Accumulation(Section):
    """What happens to a partial sum after its conversion."""

    bits: Annotated[int, Field(ge=1, le=64)]
    """Width of the shift-and-add register behind the ADC."""
    routing: Routing
    """When partial sums are routed to their outputs: `after-bits` once per window, after the
    shift-add over the input bits; `per-bit` once per input bit."""


class Hierarchy(Section):
    """How many of each, from crossbar to chip. A core is what the papers call a tile."""

    crossbars_per_pe: Count
    pes_per_core: Count
    mesh_width: Count
    """Routers in a row of the mesh."""
    mesh_height: Count
    """Routers in a column of the mesh."""
    concentration: Count
    """Cores that share one router."""


class Memory(Section):
    """The memories of a core, in bytes."""

    core_bytes: Bytes
    """Data memory: row buffers, accumulators, outputs."""
    index_bytes: Bytes
    """Tables of selectors and routes."""
    instruction_bytes: Bytes
    instruction_size_bytes: Count
    """Size of one encoded instruction."""
    input_register_bytes: Bytes
    """Per PE."""
    output_register_bytes: Bytes
    """Per PE."""
    side_buffer_bytes: Bytes
    """Partial sums kept for reuse, per crossbar."""


class Vector(Section):
    """The vector unit of a core."""

    lanes: Count
    """Elements per cycle."""


class Network(Section):
    """The mesh between the cores: XY routing, hops counted between routers."""

    flit_bits: Count
    """Bits that a link moves in a cycle."""
    router_cycles: Cycles
    """Cycles in a router, for the first flit of a message."""
    link_cycles: Cycles
    """Cycles on a link, for the first flit of a message."""


class GlobalMemory(Section):
    """The memory off the mesh that holds graph inputs and outputs."""

    links: Count
    bandwidth_gb_s: Positive
    """Of one link, 1e9 bytes per second."""
    latency_ns: Quantity
    """From request to first byte."""
    energy_pj_per_bit: Quantity


class Device(Section):
    """The memory cell."""

    lrs_ohm: Positive
    """Low-resistance state."""
    hrs_ohm: Positive
    """High-resistance state."""
    read_voltage_v: Positive
    read_ns: Positive
    write_voltage_v: Positive
    write_ns: Positive
    """One write pulse; a row is written at once."""
    write_repeats: Count
    """Pulses per write: above 1 where a program-and-verify loop is charged."""


class Event(Section):
    """What one event costs."""

    energy_pj: Quantity
    cycles: Cycles
    per: Text
    """What is counted, such as `active row` or `32 bytes`."""


class Events(Section):
    """The events that a run counts, each with its price."""

    word_line_drive: Event
    row_select: Event
    cell_read_lrs: Event
    cell_read_hrs: Event
    sample_hold: Event
    shift_add: Event
    input_fetch: Event
    input_write: Event
    output_read: Event
    output_write: Event
    side_buffer_read: Event
    side_buffer_write: Event
    index_read: Event
    index_write: Event
    memory_access: Event
    bus_transfer: Event
    flit_hop: Event
    vector_add: Event
    vector_multiply: Event
    vector_divide: Event
    vector_table: Event
    pool_compare: Event
    instruction_fetch: Event
    instruction_decode: Event
    cell_set: Event
    cell_reset: Event


class Component(Section):
    """Area and static power of one kind of part, the ADC aside (see `Adc`)."""

    per: Literal["cell", "row", "column", "crossbar", "pe", "core", "router", "chip"]
    """There is one such part for every one of these."""
    area_um2: Quantity
    static_mw: Quantity
