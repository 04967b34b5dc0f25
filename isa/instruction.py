"""What an instruction is: typed operands and effects, from which everything else derives.

An instruction is one frozen dataclass. The type of a field says what may stand there and how it
is written; fields without a default are positional, fields with one are ``name=value`` and are
left out of the text when they hold it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, get_type_hints

from isa.operands import Region

# Names of other declarations. NewType would lose the kind at run time; Annotated keeps it.
MatrixRef = Annotated[str, "matrix"]
ChannelRef = Annotated[str, "channel"]
TableRef = Annotated[str, "table"]
PartitionRef = Annotated[str, "partition"]
Pair = tuple[int, int]  # written [a b]: rows first, then columns

ONE_BY_ONE: Pair = (1, 1)


@dataclass(frozen=True)
class Instruction:
    """Base of all instructions; the subclasses stand in ``isa/catalog.py``.

    reads, writes: names of the Region fields whose elements are read and written.
    unit: the unit of a core that executes it ("matrix", "vector", "memory", "network").
    """

    mnemonic: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()

    def read_regions(self) -> tuple[Region, ...]:
        return tuple(getattr(self, name) for name in self.reads)

    def written_regions(self) -> tuple[Region, ...]:
        return tuple(getattr(self, name) for name in self.writes)


@dataclass(frozen=True)
class OperandField:
    """One operand of an instruction class.

    kind: "region", "matrix", "channel", "table", "partition", "int", "float" or "pair".
    """

    name: str
    kind: str
    positional: bool
    default: object


_KINDS = {Region: "region", int: "int", float: "float", Pair: "pair"}


def operand_fields(cls: type[Instruction]) -> tuple[OperandField, ...]:
    """The operands of ``cls`` in the order in which the text gives them."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind = hint.__metadata__[0] if hasattr(hint, "__metadata__") else _KINDS[hint]
        positional = field.default is dataclasses.MISSING
        found.append(OperandField(field.name, kind, positional, field.default))
    return tuple(found)
