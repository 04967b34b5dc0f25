"""Capacity: whether tables and instructions fit the memories that the cores of a target have."""

from __future__ import annotations

from dataclasses import replace

from isa.diagnostics import Diagnostic, Location
from isa.program import Core, Loop, Program, Statement
from isa.target import Target
from passes.estimate import table_bits
from passes.graph import Graph, MatrixNode


def fit_tables(
    program: Program, graph: Graph, target: Target
) -> tuple[Program, Target, list[Diagnostic]]:
    """The program for a target whose index memories hold its tables, and what had to grow.

    A warning M606 names the fullest core, what it needs and what it has; never silent, because
    the chip that is priced from here on is a larger one.
    """
    kernels = {
        node.name: node.weights.shape[1] * node.weights.shape[2]
        for node in graph.nodes
        if isinstance(node, MatrixNode)
    }
    bits = {core.index: _table_bits(core, kernels, target) for core in program.cores}
    fullest = max(program.cores, key=lambda core: bits[core.index])
    room, needed = 8 * target.memory.index_bytes, bits[fullest.index]
    if needed <= room:
        return program, target, []
    grown = target.with_index_bytes(-(-needed // 8))
    count = sum(found > room for found in bits.values())
    warning = Diagnostic(
        "M606",
        f"the tables of {count} of {len(bits)} cores exceed their index memories: core "
        f"{fullest.index} needs {needed:,} bits and has {room:,}; the program is made for index "
        f"memories of {grown.memory.index_bytes:,} bytes, and their area is counted",
        Location(node=fullest.layer),
        f"`--set memory.index_bytes={grown.memory.index_bytes}` asks for that chip; another "
        "`--mapping` needs smaller tables, `ou-tile` none",
        severity="warning",
    )
    return replace(program, target_sha256=grown.sha256), grown, [warning]


def _table_bits(core: Core, kernels: dict[str, int], target: Target) -> int:
    return sum(
        table_bits(matrix.blocks, target, kernels.get(matrix.layer, 1)) for matrix in core.matrices
    )


def instruction_warnings(program: Program, target: Target) -> list[Diagnostic]:
    """A warning M607 for the longest stream, where it exceeds the instruction memory."""
    memory = target.memory
    room = memory.instruction_bytes // memory.instruction_size_bytes
    longest = max(program.cores, key=lambda core: instruction_count(core.body))
    count = instruction_count(longest.body)
    if count <= room:
        return []
    return [
        Diagnostic(
            "M607",
            f"core {longest.index} has {count:,} instructions; its memory holds {room:,}",
            Location(node=longest.layer),
            f"`--set memory.instruction_bytes={count * memory.instruction_size_bytes}`",
            severity="warning",
        )
    ]


def memory_warnings(program: Program, target: Target) -> list[Diagnostic]:
    """A warning M609 for buffers that no core could hold, and stand in global memory."""
    outside = {
        core.layer or f"core {core.index}": sum(b.bytes for b in core.buffers if b.address is None)
        for core in program.cores
        if any(buffer.address is None for buffer in core.buffers)
    }
    if not outside:
        return []
    largest = max(outside, key=lambda layer: outside[layer])
    return [
        Diagnostic(
            "M609",
            f"rows of {len(outside)} stages do not fit the {target.memory.core_bytes:,} bytes of a "
            f"core and stand in global memory, {sum(outside.values()):,} bytes in all, most of "
            f"them those of `{largest}`; the time and energy of every access are counted",
            Location(node=largest),
            f"`--set memory.core_bytes={1 << (outside[largest] - 1).bit_length()}` asks for cores "
            "that hold them",
            severity="warning",
        )
    ]


def instruction_count(body: tuple[Statement, ...]) -> int:
    """Instructions that a stream takes in memory; a loop is one and its body."""
    return sum(
        1 + instruction_count(statement.body) if isinstance(statement, Loop) else 1
        for statement in body
    )
