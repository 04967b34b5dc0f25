"""The C files of each extension and their hash; setup.py stamps what runtime/kernel.py compares."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

EXTENSIONS: Final = ("_crossbar", "_device")
# math functions set no errno; every float32 operation rounds on its own, as in NumPy
FLAGS: Final = ("-fno-math-errno", "-ffp-contract=off")
FOLDER: Final = Path(__file__).parent


def source_files(extension: str) -> list[Path]:
    """C files and headers of an extension: all whose names begin with its name."""
    return sorted(FOLDER.glob(f"{extension}*.[ch]"))


def source_hash(extension: str) -> str | None:
    """sha256 over names and contents of the files; None where they are not installed."""
    files = source_files(extension)
    digest = sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest() if files else None
