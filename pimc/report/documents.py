"""Documents: what commands print with ``--json``; they always say what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimc.version import VERSION

if TYPE_CHECKING:
    from isa.program import Program
    from isa.target import Target

SCHEMA = 1  # of all documents; changes when a name in them changes its meaning


def document(
    command: str,
    figures: Mapping[str, Any],
    target: Target | None = None,
    inputs: Iterable[str | Path | None] = (),
) -> dict[str, Any]:
    """A document: schema, version, command, target and hashes of the inputs, then the figures.

    inputs: files and program folders that were read; None for one that was not given.
    """
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "pimc_version": VERSION,
        "command": command,
    }
    if target is not None:
        head |= {"target": target.name, "target_sha256": target.sha256}
    hashes = input_hashes(inputs)
    if hashes:
        head["inputs"] = hashes
    return head | dict(figures)


def input_hashes(inputs: Iterable[str | Path | None]) -> dict[str, str]:
    """SHA-256 by path; of a program folder, its text and its data files."""
    from isa.folder import shapes_folder

    found: dict[str, str] = {}
    for given in inputs:
        if given is None:
            continue
        path = Path(given)
        files = [path]
        if path.is_dir():
            whole = shapes_folder(path)
            files = [path / "program.pim", path / "arrays.npz"]
            files += [] if whole is None else [whole / "arrays.npz"]
        found |= {str(file): file_sha256(file) for file in files if file.is_file()}
    return found


def file_sha256(path: str | Path) -> str:
    """Hash of a file. Raises OSError."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def program_figures(program: Program, target: Target) -> dict[str, int]:
    """What a program takes of the chip.

    crossbars: with something in them. ou_blocks: operation units. byte_hops: of the messages of
    an image, bytes times the hops between their cores.
    """
    from isa.program import walk
    from passes.traffic import core_numbers, traffic

    matrices = list(program.matrices())
    return {
        "layers": len({matrix.layer for matrix in matrices}),
        "cores": len(program.cores),
        "cores_available": target.cores,
        "crossbars": sum(matrix.blocks.crossbars for matrix in matrices),
        "stored_columns": sum(matrix.blocks.columns for matrix in matrices),
        "ou_blocks": sum(matrix.blocks.blocks(target.ou.columns) for matrix in matrices),
        "routes": sum(matrix.blocks.route_count() for matrix in matrices),
        "instructions": sum(1 for core in program.cores for _ in walk(core.body)),
        "byte_hops": traffic(program).byte_hops(core_numbers(program), target),
    }


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase, to the millisecond."""
    return {phase: round(value, 3) for phase, value in seconds.items()}
