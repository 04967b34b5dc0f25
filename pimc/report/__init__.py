"""Reports: the documents behind ``--json``, and the page that ``pimc report`` writes."""

from __future__ import annotations

from pimc.report.documents import (
    SCHEMA,
    document,
    file_sha256,
    input_hashes,
    program_figures,
    rounded,
)

__all__ = [
    "SCHEMA",
    "document",
    "file_sha256",
    "input_hashes",
    "program_figures",
    "rounded",
]
