"""Data files: npz archives with one array per model input, and ``labels`` where there are any."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from isa.catalog import Load, Lookup
from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.drafts import drafted_file
from isa.numerics import limits
from isa.program import DTYPES, Program, Tensor, walk

Array = NDArray[Any]
Feeds = dict[str, Array]
LABELS = "labels"
HINT: Final = "give an .npz file, as numpy.savez writes it: an array for each input of the model"
MAX_BYTES: Final = 1 << 34  # of one array
_CHUNK: Final = 1 << 24
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# what zipfile and numpy.lib.format raise for damaged files
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    UnicodeError,
    ValueError,
)


def read_data(path: str | Path, samples: int | None = None) -> Feeds:
    """The arrays of an npz file by name; only the first ``samples`` rows of each when given.

    Nothing is allocated before the header of each array agrees with the size of its member;
    object arrays (pickles) are refused. Raises PimError R702 with all findings.
    """
    file, findings = Path(path), Findings()
    at = Location(str(file))
    if not file.is_file():
        what = f"`{file}` is a folder" if file.is_dir() else f"`{file}` is no plain file"
        message = what if file.exists() else f"no file `{file}`"
        raise PimError(Diagnostic("R702", message, at, HINT))
    arrays: Feeds = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                problem = _read_member(archive, member, name, samples, arrays)
                if problem:
                    findings.error("R702", f"array `{name}` of `{file.name}` {problem}", at)
    except _DAMAGE as error:
        findings.error("R702", f"`{file.name}` is no readable npz file: {error}", at, HINT)
    if not arrays and not findings:
        findings.error("R702", f"`{file.name}` holds no arrays", at)
    findings.raise_if_any()
    return arrays


def read_array(path: str | Path) -> Array:
    """The array of an npy file, read as carefully as one of an npz file. Raises PimError R702."""
    file = Path(path)
    at = Location(str(file))
    if not file.is_file():
        raise PimError(Diagnostic("R702", f"no file `{file}`", at, "give an .npy file"))
    try:
        with file.open("rb") as stream:
            return _read_array(stream, file.stat().st_size, None)
    except _DAMAGE as error:
        message = f"`{file.name}` is no readable npy file: {error}"
        raise PimError(Diagnostic("R702", message, at)) from error


def _read_member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    name: str,
    samples: int | None,
    arrays: Feeds,
) -> str | None:
    """Read one .npy member into ``arrays``, or return what is wrong with it."""
    if name in arrays:
        return "stands in the file twice"
    try:
        with archive.open(member) as stream:
            arrays[name] = _read_array(stream, member.file_size, samples)
    except _DAMAGE as error:
        return f"cannot be read: {error}"
    return None


def _read_array(stream: IO[bytes], size: int, samples: int | None) -> Array:
    """One .npy member. Raises ValueError when it lies about its size or holds objects."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"unknown npy version {version}")
    shape, is_fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"elements of type {dtype}; only plain numbers are read")
    claimed = math.prod(shape) * dtype.itemsize  # Python integers: cannot overflow
    held = size - stream.tell()
    if min(shape, default=0) < 0 or claimed != held:
        raise ValueError(f"its header says {claimed} bytes, it has {held}")
    if samples is not None and shape and not is_fortran and shape[0] > samples:
        shape = (samples, *shape[1:])
        claimed = math.prod(shape) * dtype.itemsize
    if claimed > MAX_BYTES:
        raise ValueError(f"{claimed} bytes; at most {MAX_BYTES} are read (see --samples)")
    array = np.empty(math.prod(shape), dtype)
    view, filled = array.view(np.uint8).data, 0
    while filled < claimed:
        chunk = stream.read(min(_CHUNK, claimed - filled))
        if not chunk:
            raise EOFError("the file ends within the array")
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    whole = array.reshape(shape, order="F" if is_fortran else "C")
    return first_samples({"": whole}, samples)[""] if whole.ndim else whole


def ports(program: Program, role: str) -> list[Tensor]:
    """The program's input or output tensors."""
    return [tensor for tensor in program.tensors if tensor.role == role]


def labels_of(program: Program, feeds: Mapping[str, Array]) -> Array | None:
    """The class of each sample; None without any, and where the model has an input of that name."""
    is_input = any(tensor.onnx_name == LABELS for tensor in ports(program, "input"))
    return None if is_input else feeds.get(LABELS)


def check_feeds(program: Program, feeds: Mapping[str, Array]) -> int:
    """Number of samples in ``feeds``, by ONNX input name. Raises PimError R703, all findings."""
    findings, counts = Findings(), dict[str, int]()
    wanted = {tensor.onnx_name: tensor for tensor in ports(program, "input")}
    for name in sorted(feeds.keys() - wanted.keys() - {LABELS}):
        hint = f"the model's inputs are {', '.join(f'`{known}`' for known in wanted)}"
        findings.error("R703", f"the model has no input `{name}`", hint=hint)
    for name, tensor in wanted.items():
        if name not in feeds:
            findings.error("R703", f"input `{name}` is missing", hint=_expected(tensor))
            continue
        values = feeds[name]
        if problem := _problem(tensor, values):
            findings.error("R703", f"input `{name}` {problem}", hint=_expected(tensor))
        counts[name] = len(values) if values.ndim else 0
    labels = labels_of(program, feeds)
    if labels is not None and (problem := _label_problem(labels, counts)):
        findings.error("R703", f"`{LABELS}` {problem}", hint="expected int64 [samples]")
    if len(set(counts.values())) > 1:
        text = ", ".join(f"`{name}` {count}" for name, count in counts.items())
        findings.error("R703", f"the inputs differ in their number of samples: {text}")
    findings.raise_if_any()
    return next(iter(counts.values()), 1)


def _problem(tensor: Tensor, values: Array) -> str | None:
    """What is wrong with the samples of one input, to be read behind its name."""
    if values.ndim == 0 or values.shape[1:] != tensor.onnx_shape:
        return f"has shape {list(values.shape)}"
    if not len(values):
        return "has no samples"
    if tensor.scale is not None or tensor.dtype == "f32":
        if values.dtype.kind != "f":
            return f"has type {values.dtype}"
        return None if np.isfinite(values).all() else "holds NaN or infinity"
    if values.dtype.kind not in "biu":
        return f"has type {values.dtype}"
    low, high = limits(DTYPES[tensor.dtype])
    smallest, largest = int(values.min()), int(values.max())
    return None if low <= smallest <= largest <= high else f"holds {smallest}..{largest}"


def _label_problem(labels: Array, counts: Mapping[str, int]) -> str | None:
    """What is wrong with the labels, to be read behind their name."""
    if labels.dtype.kind not in "iu":
        return f"have type {labels.dtype}"
    if labels.ndim not in (1, 2) or labels.size != len(labels):
        return f"have shape {list(labels.shape)}"
    if counts and len(labels) not in counts.values():
        return f"are {len(labels)} for {next(iter(counts.values()))} samples"
    return None


def _expected(tensor: Tensor) -> str:
    kind = "float32" if tensor.scale is not None else DTYPES[tensor.dtype].name
    return f"expected {kind} [samples, {', '.join(str(size) for size in tensor.onnx_shape)}]"


def to_machine(tensor: Tensor, values: Array) -> Array:
    """Samples of an ONNX input as the machine's integers, [images, rows, columns, channels].

    Quantized as ONNX QuantizeLinear does: ``sat(rint(x / scale) + zero)`` in float32.
    """
    dtype = DTYPES[tensor.dtype]
    if tensor.scale is not None:
        low, high = limits(dtype)
        steps = np.rint(values.astype(np.float32) / np.float32(tensor.scale))
        values = np.clip(steps + np.float32(tensor.zero), low, high)
    return to_machine_layout(tensor, values.astype(dtype))


def to_machine_layout(tensor: Tensor, values: Array) -> Array:
    """Elements [images, *onnx_shape] as [images, rows, columns, channels]."""
    ordered = values.transpose(0, *[axis + 1 for axis in tensor.order])
    return np.ascontiguousarray(ordered).reshape(len(values), *tensor.shape)


def to_onnx(tensor: Tensor, values: Array) -> Array:
    """The machine's integers in the shape of the ONNX tensor, [images, *onnx_shape]."""
    permuted = [tensor.onnx_shape[axis] for axis in tensor.order]
    back = np.argsort(tensor.order) + 1
    return values.reshape(len(values), *permuted).transpose(0, *back)


def to_real(tensor: Tensor, values: Array) -> Array:
    """Integers as the float32 values they stand for; integers where the tensor has no scale."""
    if tensor.scale is None:
        return values
    centred = values.astype(np.int32) - np.int32(tensor.zero)
    return centred.astype(np.float32) * np.float32(tensor.scale)


def random_feeds(program: Program, samples: int, seed: int) -> Feeds:
    """Seeded random samples: floats uniform over what the input can represent, or integers."""
    generator, feeds = np.random.default_rng(seed), Feeds()
    rows = _looked_up_rows(program)
    for tensor in ports(program, "input"):
        if tensor.dtype == "f32":
            shape = (samples, *tensor.onnx_shape)
            feeds[tensor.onnx_name] = generator.standard_normal(shape, np.float32)
            continue
        low, high = limits(DTYPES[tensor.dtype])
        if tensor.dtype == "s32":  # numbers for the host: 0 and 1 are valid almost everywhere
            low, high = 0, 1
        if tensor.name in rows:
            low, high = 0, rows[tensor.name] - 1
        shape = (samples, *tensor.onnx_shape)
        steps = generator.integers(low, high, shape, endpoint=True)
        if tensor.scale is None:
            feeds[tensor.onnx_name] = steps.astype(DTYPES[tensor.dtype])
        else:
            feeds[tensor.onnx_name] = to_real(tensor, steps)
    return feeds


def _looked_up_rows(program: Program) -> dict[str, int]:
    """By input tensor, the rows of the smallest table that its numbers pick from."""
    tables = {table.name: len(table.values) for table in program.tables}
    rows: dict[str, int] = {}
    for core in program.cores:
        steps = list(walk(core.body))
        loaded = {i.into.name: i.source.name for i in steps if isinstance(i, Load)}
        for i in steps:
            if isinstance(i, Lookup) and i.source.name in loaded:
                name = loaded[i.source.name]
                rows[name] = min(tables[i.table], rows.get(name, tables[i.table]))
    return rows


def random_warning() -> Diagnostic:
    """The warning that a check on random samples owes to its reader."""
    return Diagnostic(
        "R704",
        "no data was given, so the samples are random noise",
        hint="integers are compared all the same; agreement with the float model means nothing. "
        "Give real samples with --data FILE.npz",
        severity="warning",
    )


def first_samples(feeds: Mapping[str, Array], samples: int | None) -> Feeds:
    """The first ``samples`` of every array; all of them for None."""
    return {name: values[:samples] for name, values in feeds.items()}


def write_data(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """Write an npz file, all of it or nothing. Raises PimError C508, C509."""
    with drafted_file(Path(path)) as draft, draft.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
