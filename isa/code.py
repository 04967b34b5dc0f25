"""What a diagnostic code is; the registry of all codes stands in ``isa.codes``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What a diagnostic code means: `title` in a few words, `explanation` for `pimc explain`.

    `exit_code` is set by the family (see `FAMILIES`), unless an entry gives its own.
    """

    title: str
    explanation: str
    exit_code: int | None = None
