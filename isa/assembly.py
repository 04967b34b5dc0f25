"""The text form of programs: print, parse, compare.

``parse_program(print_program(p))`` is equal to ``p`` in the sense of `same_program`. Real
operands are single-precision numbers: a Python float of a program should be one exactly, and what
is read always is. The grammar of a line stands in ``isa/pim.lark``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isa.data_arrays import data_arrays
from isa.diagnostics import PimError
from isa.printer import instruction_text, print_program
from isa.program import Program
from isa.reader import Reader
from isa.same_program import first_difference, same_program
from isa.source import Source

__all__ = [
    "data_arrays",
    "first_difference",
    "instruction_text",
    "parse_program",
    "parse_with_source",
    "print_program",
    "same_program",
]

Arrays = Mapping[str, NDArray[np.generic]]


def parse_program(text: str, arrays: Arrays | None = None, file: str = "<text>") -> Program:
    """The program of a text.

    arrays: the data file's arrays by key (see ``isa.data_arrays``), None when there is none.
    file: name to show in messages. Raises PimError E3xx, C505, C506 with all that is wrong.
    """
    return parse_with_source(text, arrays, file)[0]


def parse_with_source(
    text: str, arrays: Arrays | None = None, file: str = "<text>"
) -> tuple[Program, Source]:
    """The program of a text and where its parts stand in it, for the verifier's findings."""
    reader = Reader(text, arrays, file)
    program = reader.read()
    if reader.findings:
        # as a reader reads: a loop without its end is found last, but stands first
        places = ((d.at.line or 0, d.at.column or 0) if d.at else (0, 0) for d in reader.findings)
        ordered = sorted(zip(places, reader.findings, strict=True), key=lambda pair: pair[0])
        raise PimError(diagnostic for _, diagnostic in ordered)
    return program, reader.source
