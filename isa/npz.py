"""Data files: named arrays in an uncompressed zip of ``.npy`` members, read without any trust.

NumPy's own reader would follow pickles and allocate whatever a header asks for. Here a member is
read only after its header has been compared with its real size, and the sizes of all members
with the size of the file.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from isa.diagnostics import Findings, Location

Array = NDArray[np.generic]

MAX_DATA_BYTES: Final = 1 << 33
MAX_MEMBERS: Final = 1 << 17
MEMBER_DTYPES: Final = tuple(
    np.dtype(kind).newbyteorder("<") for kind in ("i1", "u1", "i4", "i8", "f4")
)
_CHUNK: Final = 1 << 24
_MAGIC: Final = b"\x93NUMPY\x01\x00"
# the header as NumPy writes it; its own reader would evaluate any Python literal
_HEADER: Final = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, 'shape': \(([0-9, ]{0,400})\), \} *\n"
)
_SUFFIX: Final = ".npy"
# what zipfile and numpy.lib.format raise for damaged files
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    struct.error,
    UnicodeError,
    ValueError,
)


def member_name(key: str) -> str:
    """The name of an array's member: what could be read as a path is percent-encoded."""
    return quote(key, safe="", errors="surrogatepass") + _SUFFIX


def key_of_member(name: str) -> str | None:
    """The key of a member, None for a name that `member_name` never gives."""
    if not name.endswith(_SUFFIX):
        return None
    try:
        key = unquote(name[: -len(_SUFFIX)], errors="surrogatepass")
        return key if member_name(key) == name else None
    except UnicodeError:
        return None


def write_npz(file: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as they are, in C order, without holding a copy. Raises OSError.

    Raises ValueError for an element type that `read_npz` would refuse. Equal arrays give equal
    bytes: members carry no time.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            if array.dtype not in MEMBER_DTYPES:
                raise ValueError(f"array {key!r}: {array.dtype} is no type of a data file")
            whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)
            info = zipfile.ZipInfo(member_name(key))
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, whole, version=(1, 0), allow_pickle=False)


def read_npz(file: Path, findings: Findings) -> dict[str, Array]:
    """All arrays of a data file by key; notes C503 for everything that is wrong with it."""
    at = Location(str(file))
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not _check_directory(members, file.stat().st_size, at, findings):
                return {}
            for info in members:
                key = key_of_member(info.filename)
                assert key is not None, "the directory has been checked"
                arrays[key] = _read_member(archive, info)
    except _DAMAGE as error:
        findings.error("C503", f"the data file cannot be read: {error}", at)
        return {}
    return arrays


def _check_directory(
    members: list[zipfile.ZipInfo], file_bytes: int, at: Location, findings: Findings
) -> bool:
    """Note what is wrong with the list of members; False when there is anything."""
    before = len(findings)
    if len(members) > MAX_MEMBERS:
        findings.error("C503", f"{len(members)} arrays; a program has at most {MAX_MEMBERS}", at)
        return False
    seen: set[str] = set()
    for info in members:
        if (problem := _member_problem(info, seen)) is not None:
            findings.error("C503", f"member {info.filename!r}: {problem}", at)
        seen.add(info.filename)
    total = sum(info.file_size for info in members)
    if total > min(file_bytes, MAX_DATA_BYTES):
        # also catches members that share their bytes, a small file that unpacks to a large one
        limit = f"the file has {file_bytes}, at most {MAX_DATA_BYTES} are read"
        findings.error("C503", f"the members claim {total} bytes; {limit}", at)
    return len(findings) == before


def _member_problem(info: zipfile.ZipInfo, seen: set[str]) -> str | None:
    if key_of_member(info.filename) is None:
        return "no name of an array, those are percent-encoded and end in .npy"
    if info.filename in seen:
        return "stands in the file twice"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return "is compressed or encrypted"
    if info.compress_size != info.file_size:
        return f"lies about its size ({info.compress_size} and {info.file_size} bytes)"
    return None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array. Raises one of `_DAMAGE` when header and size do not agree."""
    with archive.open(info) as member:
        shape, dtype = _read_header(member)
        size = math.prod(shape) * dtype.itemsize  # Python integers: cannot overflow
        if size != info.file_size - member.tell():
            raise ValueError(f"member {info.filename!r}: header and size do not agree")
        array: NDArray[Any] = np.empty(shape, dtype)
        _fill(array, member)
        return array


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array. Raises ValueError for a header that `write_npz` never writes."""
    magic = member.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ValueError("a member is no .npy array of version 1.0")
    (length,) = struct.unpack("<H", member.read(2))
    header = _HEADER.fullmatch(member.read(length))
    if header is None:
        raise ValueError("an array has another type, order or header than NumPy gives integers")
    dtype = np.dtype(header[1].decode())
    if dtype not in MEMBER_DTYPES:
        raise ValueError(f"type {dtype} is not allowed")
    return tuple(int(axis) for axis in header[2].split(b",") if axis.strip()), dtype


def _fill(array: NDArray[Any], member: IO[bytes]) -> None:
    view = array.reshape(-1).view(np.uint8).data
    at = 0
    while at < len(view):
        chunk = member.read(min(_CHUNK, len(view) - at))
        if not chunk:
            raise EOFError("the file ends within an array")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    if member.read(1):  # reading to the end also compares the checksum
        raise ValueError("an array is longer than its header says")
