"""What a pass is: a frozen dataclass that turns one unit into another and keeps a promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

Before = TypeVar("Before")
After = TypeVar("After")


@dataclass(frozen=True)
class Pass(Generic[Before, After]):
    """One step of the compiler. The fields of a subclass are its options.

    name: as it stands in pipelines, file and test names. exact: the weights W* and the values of
    the network stay the same integers; a pass with ``exact = False`` must be asked for.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]

    def run(self, unit: Before) -> After:
        """The transformed unit; the argument is left as it is."""
        raise TypeError(f"{type(self).__name__} does not define run()")
