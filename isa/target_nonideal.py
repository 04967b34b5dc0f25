"""The non-ideal device: what separates a real array and converter from the integers, all off.

Every default is the ideal device, so a target file states only what it wants to model, and a
description without this section is the same document as before there was one. `docs/device.md`
has the formula of each number; only a run that asks for noise looks at them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isa.target_model import BitsKey, OptionalSection, Quantity, Text

Share = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(ge=0, le=10)]
Coefficient = Annotated[float, Field(ge=-10, le=10)]
Seconds = Annotated[float, Field(gt=0, le=1e12)]


class Programming(OptionalSection):
    """Error of the conductance that writing a cell leaves; drawn once per cell."""

    distribution: Literal["gaussian", "proportional", "lognormal", "state-dependent"] = "gaussian"
    """`gaussian`: deviation relative to the conductance range; `proportional`: to the cell's own
    conductance; `lognormal`: deviation of its logarithm; `state-dependent`: relative to the range,
    |sigma + sigma_1 x + sigma_2 x^2| at level x = value / largest value."""
    sigma: Deviation = 0.0
    sigma_1: Coefficient = 0.0
    """Linear term of `state-dependent`."""
    sigma_2: Coefficient = 0.0
    """Quadratic term of `state-dependent`."""

    @property
    def is_ideal(self) -> bool:
        return not (self.sigma or self.sigma_1 or self.sigma_2)


class Read(OptionalSection):
    """Noise of each driven cell at each conversion, summed at the ADC's input."""

    distribution: Literal["gaussian", "proportional"] = "gaussian"
    """Deviation relative to the conductance range, or to the cell's own conductance."""
    sigma: Deviation = 0.0


class Faults(OptionalSection):
    """Cells that keep one state whatever is written: 0 is high resistance, 1 is low."""

    stuck_at_0: Share = 0.0
    """Share of all cells."""
    stuck_at_1: Share = 0.0
    """Share of all cells."""
    map: Text | None = None
    """npz file with the integer arrays core, crossbar, row, column and stuck (0 or 1)."""


class Drift(OptionalSection):
    """Loss of conductance with time: g(t) = g(reference) (t / reference)^-exponent."""

    time_s: Seconds = 1.0
    """From writing to reading."""
    reference_s: Seconds = 1.0
    """Where the programmed conductance was measured."""
    exponent: Coefficient = 0.0
    exponent_sigma: Deviation = 0.0
    """Deviation of the exponent from cell to cell."""

    @property
    def is_ideal(self) -> bool:
        same_time = self.time_s == self.reference_s
        return same_time or not (self.exponent or self.exponent_sigma)


class Wires(OptionalSection):
    """Resistance of the array's metal, ohm."""

    row_ohm: Quantity = 0.0
    """A word line, from one cell to the next."""
    column_ohm: Quantity = 0.0
    """A bit line, from one cell to the next."""
    driver_ohm: Quantity = 0.0
    """Between a driver and the first cell of its word line."""
    sense_ohm: Quantity = 0.0
    """Between the last cell of a bit line and the ADC."""

    @property
    def is_ideal(self) -> bool:
        return not (self.row_ohm or self.column_ohm or self.driver_ohm or self.sense_ohm)


class Transfer(OptionalSection):
    """From the sum on a bit line to the ADC's code."""

    range: Literal["unit", "proof", "calibration", "percentile"] = "unit"
    """What the top code stands for: `unit`: 2^bits - 1 counts, one count a code; `proof`: the
    largest sum that a column of the matrix can give; `calibration`: the largest sum seen on
    samples; `percentile`: a percentile of the sums seen. A code never stands for less than one
    count."""
    percentile: Annotated[float, Field(gt=0, le=100)] = 100.0
    """Of `range = "percentile"`."""
    offset_lsb: Annotated[float, Field(ge=-1e4, le=1e4)] = 0.0
    gain: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    inl_lsb: dict[BitsKey, Annotated[float, Field(ge=-1e4, le=1e4)]] = Field(default={})
    """Integral non-linearity: code -> how much later than ideal the transition to it comes, LSB;
    codes up to 99, and 0 for those that are absent."""


class NonIdeal(OptionalSection):
    """Everything that the exact machine leaves out."""

    off_current: bool = False
    """Whether driven cells in the high-resistance state add their current; if not, a reference
    column takes off its nominal value."""
    programming: Programming = Programming()
    read: Read = Read()
    faults: Faults = Faults()
    drift: Drift = Drift()
    wires: Wires = Wires()
    adc: Transfer = Transfer()

    @property
    def is_ideal(self) -> bool:
        """Whether a machine with this device is the exact machine."""
        return self == NonIdeal()
