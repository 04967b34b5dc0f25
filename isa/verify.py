"""Verifier: everything that must hold before a program may run, found in one pass.

First what can be seen in the text: names, types, sizes, bounds, values, places in crossbars and
memories. When all of that is sound, an abstract run of one image over all cores: deadlock,
messages, rows of ring buffers, everything defined before it is read, outputs stored once.
"""

from __future__ import annotations

from collections.abc import Sequence

from isa import verify_float, verify_normalize
from isa.diagnostics import Diagnostic, PimError
from isa.phases import Phases
from isa.program import Program
from isa.source import Source
from isa.target import Target
from isa.verify_declarations import check_declarations
from isa.verify_instructions import check_instructions
from isa.verify_matrices import check_matrices, clipping_columns
from isa.verify_partitions import check_partitions
from isa.verify_run import MAX_STEPS, AbstractRun, executed_instructions
from isa.verify_scope import Scope

CHECK_MODULES = (verify_float, verify_normalize)  # importing them fills CHECKS

__all__ = ["check", "check_phases", "clipping_columns", "verify"]


def verify(program: Program, target: Target, source: Source | None = None) -> list[Diagnostic]:
    """All that is wrong with a program; an empty list is the permission to run it.

    source: where the program stands in its text (`isa.assembly.parse_with_source`), so that
    findings point at lines; without it they name core and instruction. An ADC that can clip is
    no error; see `clipping_columns`.
    """
    scope = Scope(program, target, source)
    check_declarations(scope)
    check_matrices(scope)
    check_instructions(scope)
    check_partitions(scope)
    if not scope.findings:
        steps = sum(executed_instructions(core.body) for core in program.cores)
        if steps > MAX_STEPS:
            message = f"the program executes {steps} instructions, at most {MAX_STEPS} are verified"
            scope.findings.error("V426", message)
        else:
            AbstractRun(scope).run()
    return list(scope.findings)


def check_phases(phases: Phases, target: Target, sources: Sequence[Source]) -> None:
    """Raise PimError V4xx with all findings unless every phase is sound."""
    findings: list[Diagnostic] = []
    for program, source in zip(phases.programs, sources, strict=True):
        findings += verify(program, target, source)
    if findings:
        raise PimError(findings)


def check(program: Program, target: Target, source: Source | None = None) -> None:
    """Raise PimError V4xx with all findings unless the program is sound."""
    findings = verify(program, target, source)
    if findings:
        raise PimError(findings)
