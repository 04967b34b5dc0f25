"""What lies where in a program folder, and how its files are read: none is trusted to be one.

`isa.container` has the picture of such a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.npz import Array, read_npz
from isa.printer import DATA_FILE
from isa.shapes import Manifest, read_manifest

TEXT_FILE: Final = "program.pim"
TARGET_FILE: Final = "target.json"
PHASES_FILE: Final = "phases.json"
SHAPES_FILE: Final = "shapes.json"
HOST_FOLDER: Final = "host"
MAX_TEXT_BYTES: Final = 1 << 28
_OWN: Final = (TEXT_FILE, TARGET_FILE, DATA_FILE, PHASES_FILE, SHAPES_FILE, HOST_FOLDER)
_SHAPE_FOLDER: Final = re.compile(r"shape-[0-9]{1,6}")
Arrays = Mapping[str, Array]
Extras = Mapping[str, bytes | Path]


def is_container(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a program, phases or several shapes in it."""
    folder, names = Path(path), (TEXT_FILE, PHASES_FILE, SHAPES_FILE)
    return folder.is_dir() and any((folder / name).is_file() for name in names)


def phase_folder(number: int) -> str:
    """Name of the folder of a phase."""
    return f"phase-{number}"


def shape_folder(number: int) -> str:
    """Name of the folder of a shape."""
    return f"shape-{number}"


def shapes_folder(folder: Path) -> Path | None:
    """The folder of several shapes that the folder of a shape, or of a phase of one, lies in."""
    here = folder.absolute()
    for child in (here, here.parent):
        if _SHAPE_FOLDER.fullmatch(child.name) and (child.parent / SHAPES_FILE).is_file():
            return child.parent
    return None


def shape_number(folder: Path) -> int:
    """The number of the shape that a folder is for."""
    return int(folder.absolute().name.removeprefix("shape-"))


def phases_of(file: Path) -> tuple[int, tuple[str, ...]]:
    """Number of phases and names of the outputs. Raises PimError C502, C511."""
    findings = Findings()
    text = read_text(file, findings)
    findings.raise_if_any()
    try:
        manifest = json.loads(text or "")
        count, outputs = manifest["phases"], manifest["outputs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        count, outputs = 0, []
    names = tuple(outputs) if isinstance(outputs, list) else ()
    if type(count) is int and count > 0 and names and all(isinstance(n, str) for n in names):
        return count, names
    hint = '{"phases": 2, "outputs": ["logits"]} is what such a file looks like'
    message = f"`{file.name}` names no phases and outputs"
    raise PimError(Diagnostic("C511", message, Location(str(file)), hint))


def manifest_of(folder: Path) -> Manifest:
    """Which shapes a folder of several has programs for. Raises PimError C502, C513."""
    findings = Findings()
    text = read_text(folder / SHAPES_FILE, findings)
    findings.raise_if_any()
    return read_manifest(text or "", str(folder / SHAPES_FILE))


def shared_arrays(folder: Path | None, findings: Findings) -> Arrays:
    """The arrays that the programs of a folder of several shapes share; notes what is wrong."""
    if folder is None or not os.path.lexists(folder / DATA_FILE):
        return {}
    file = folder / DATA_FILE
    try:
        wanted = manifest_of(folder).arrays_sha256
    except PimError as error:
        findings.diagnostics += error.diagnostics
        return {}
    if not is_plain(file, findings):
        return {}
    if file_sha256(file) != wanted:
        message = f"`{file.name}` has another sha256 than `{SHAPES_FILE}` says"
        findings.error("C513", message, Location(str(file)), "compile the model again")
        return {}
    return read_npz(file, findings)


def checked_files(files: Extras | None) -> dict[PurePosixPath, bytes | Path]:
    """Files by their path within a folder. Raises ValueError for a path that leaves it."""
    return {_inside(name): contents for name, contents in (files or {}).items()}


def _inside(name: str) -> PurePosixPath:
    """A relative path that stays within the folder. Raises ValueError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError(f"{name!r} is no path within a program folder")
    if path.parts[0] in _OWN or path.parts[0].startswith(("phase-", "shape-")):
        raise ValueError(f"{name!r} is a file of the program folder itself")
    return path


def file_sha256(file: Path) -> str:
    """Hash of a file. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_plain(file: Path, findings: Findings) -> bool:
    """Whether a file is there and is a file: no link out of the folder, no pipe, no device."""
    try:
        if stat.S_ISREG(file.lstat().st_mode):
            return True
        message = f"`{file.name}` is no plain file"
    except OSError as error:
        message = f"`{file.name}` cannot be read: {error.strerror}"
    findings.error("C502", message, Location(str(file)))
    return False


def read_text(file: Path, findings: Findings) -> str | None:
    if not is_plain(file, findings):
        return None
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            message = f"`{file.name}` is longer than {MAX_TEXT_BYTES} bytes"
        else:
            return file.read_bytes().decode("utf-8")
    except OSError as error:
        message = f"`{file.name}` cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"`{file.name}` is not UTF-8 text: byte {error.start} is wrong"
    findings.error("C502", message, Location(str(file)))
    return None
