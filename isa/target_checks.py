"""What must hold beyond the shape of a target file: every number has a source, no contradictions.

Both checks look at the raw document rather than at the built model, so that they also speak up
when other keys are wrong and one run reports everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from isa.diagnostics import Findings
from isa.validate import Locate, did_you_mean

MAX_CORES: Final = 1 << 16
_NOT_A_QUANTITY: Final = frozenset({"schema"})


def numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every number in a nested table."""
    for key, value in table.items():
        path = prefix + key
        if isinstance(value, Mapping):
            yield from numbers(value, path + ".")
        elif is_number(value) and path not in _NOT_A_QUANTITY:
            yield path


def is_number(value: object) -> bool:
    """Tell whether a TOML value is a number; a boolean is none, though Python says so."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def lift_sources(
    table: Mapping[str, Any], sources: dict[str, str], prefix: str = ""
) -> dict[str, Any]:
    """Return `table` without its `source` and `sources` keys, adding them to the flat `sources`.

    `source = "..."` speaks for every number below its table that has no nearer source;
    `sources.key = "..."` for one number, or for a table of numbers.
    """
    own = table.get("sources")
    blanket = table.get("source")
    lifted: dict[str, Any] = {}
    for key, value in table.items():
        if key == "sources" and isinstance(own, Mapping):
            continue
        if key == "source" and isinstance(blanket, str):
            continue
        is_table = isinstance(value, Mapping)
        lifted[key] = lift_sources(value, sources, f"{prefix}{key}.") if is_table else value
    inside = list(numbers(lifted, prefix))
    for key, text in (own if isinstance(own, Mapping) else {}).items():
        path = prefix + key
        covered = [leaf for leaf in inside if leaf == path or leaf.startswith(path + ".")]
        for leaf in covered or [path]:
            sources.setdefault(leaf, text)
    if isinstance(blanket, str):
        for leaf in inside:
            sources.setdefault(leaf, blanket)
    return lifted


def check_sources(
    data: Mapping[str, Any], sources: Mapping[str, str], locate: Locate, findings: Findings
) -> None:
    """Note T108 for every number without a source and every source without its number."""
    paths = list(numbers(data))
    for path in paths:
        if not sources.get(path):
            table, _, key = path.rpartition(".")
            where = f"to `[{table}]`" if table else "at the top"
            inner = f"{table}.sources" if table else "sources"
            hint = f'add `source = "..."` {where}, or `{key} = "..."` to `[{inner}]`'
            findings.error("T108", f"`{path}` has no source", locate(path), hint)
    known = set(paths)
    for path in sources:
        if path not in known:
            findings.error(
                "T108",
                f"there is a source for `{path}`, but no such number",
                locate(path),
                did_you_mean(path, paths),
            )


def check_contradictions(data: Mapping[str, Any], locate: Locate, findings: Findings) -> None:
    """Note T107 for every pair of numbers that do not go together."""
    check = _Pairs(data, locate, findings)
    check.at_most("ou.rows", "crossbar.rows", "an OU cannot be taller than its crossbar")
    check.at_most("ou.columns", "crossbar.columns", "an OU cannot be wider than its crossbar")
    check.at_most("crossbar.cell_bits", "weights.bits", "a cell cannot hold more than a weight")
    check.at_most("device.lrs_ohm", "device.hrs_ohm", "the low-resistance state is the lower one")
    check.at_most(
        "memory.instruction_size_bytes", "memory.instruction_bytes", "not one instruction fits"
    )
    check.has_price("adc.energy_pj")
    check.has_price("adc.area_um2")
    check.accumulator()
    check.mesh()
    check.faults()


class _Pairs:
    """The document under check, with typed access to numbers that may be absent or wrong."""

    def __init__(self, data: Mapping[str, Any], locate: Locate, findings: Findings) -> None:
        self.data, self.locate, self.findings = data, locate, findings

    def value(self, path: str) -> Any:
        """Return what stands at `path`, or None."""
        found: Any = self.data
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def integers(self, *paths: str) -> list[int] | None:
        """Return the small non-negative integers at `paths`, or None when one is not like that."""
        found = [self.value(path) for path in paths]
        fine = all(type(value) is int and 0 <= value < 1 << 32 for value in found)
        return found if fine else None

    def at_most(self, low: str, high: str, reason: str) -> None:
        """Note a finding unless `low` <= `high`."""
        small, large = self.value(low), self.value(high)
        if is_number(small) and is_number(large) and small > large:
            message = f"`{low}` is {small}, but `{high}` is {large}"
            self.findings.error("T107", message, self.locate(low), reason)

    def has_price(self, table: str) -> None:
        """Note a finding unless `table` has an entry for the ADC's bits."""
        bits, prices = self.value("adc.bits"), self.value(table)
        if type(bits) is int and isinstance(prices, Mapping) and str(bits) not in prices:
            known = ", ".join(sorted(map(str, prices))) or "none"
            message = f"`adc.bits` is {bits}, but `{table}` has no entry for {bits} bits"
            hint = f"add `{bits} = ...` to `[{table}]`; there are entries for {known}"
            self.findings.error("T107", message, self.locate("adc.bits"), hint)

    def accumulator(self) -> None:
        """Note a finding when the sum of one OU over all input bits overflows its register."""
        found = self.integers("ou.rows", "crossbar.cell_bits", "inputs.bits", "accumulation.bits")
        if found is None or found[1] > 64 or found[2] > 64:
            return
        rows, cell_bits, input_bits, have = found
        largest = rows * (2**cell_bits - 1) * (2**input_bits - 1)
        if (need := largest.bit_length()) > have:
            message = f"`accumulation.bits` is {have}, but one OU can sum up to {largest}"
            hint = f"{need} bits hold that sum"
            self.findings.error("T107", message, self.locate("accumulation.bits"), hint)

    def mesh(self) -> None:
        """Note a finding when the mesh holds more cores than pimc numbers."""
        keys = ("mesh_width", "mesh_height", "concentration")
        found = self.integers(*(f"hierarchy.{key}" for key in keys))
        if found is not None and (cores := found[0] * found[1] * found[2]) > MAX_CORES:
            message = f"the mesh has {cores} cores; at most {MAX_CORES} are possible"
            self.findings.error("T107", message, self.locate("hierarchy.mesh_width"))

    def faults(self) -> None:
        """Note a finding when more than all cells are stuck."""
        shares = [self.value(f"nonideal.faults.stuck_at_{state}") or 0 for state in (0, 1)]
        if all(map(is_number, shares)) and sum(shares) > 1:
            message = f"{shares[0]} and {shares[1]} of all cells are stuck, more than all cells"
            self.findings.error("T107", message, self.locate("nonideal.faults.stuck_at_0"))
