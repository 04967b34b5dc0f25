"""Data files: npz archives with one array per model input, and ``labels`` where there are any."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.numerics import limits
from isa.program import DTYPES, Program, Tensor

Array = NDArray[Any]
Feeds = dict[str, Array]
LABELS = "labels"
MAX_BYTES = 1 << 34  # of one file, unpacked


def read_data(path: str | Path) -> Feeds:
    """All arrays of an npz file by name.

    Nothing is allocated before the header of each array agrees with the size of its member;
    object arrays (pickles) are refused. Raises PimError R702.
    """
    file, findings = Path(path), Findings()
    at = Location(str(file))
    if not file.is_file():
        raise PimError(Diagnostic("R702", f"no file `{file}`", at, "give an .npz file"))
    arrays: Feeds = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    arrays[name] = _read_array(stream, member.file_size)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        findings.error("R702", f"`{file.name}` is no readable npz file: {error}", at)
    findings.raise_if_any()
    return arrays


def _read_array(stream: Any, size: int) -> Array:
    """One .npy member. Raises ValueError when it lies about its size or holds objects."""
    version = npy.read_magic(stream)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"unknown npy version {version}")
    shape, is_fortran, dtype = read_header[version](stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"an array of type {dtype} is refused; numbers only")
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if claimed != size - stream.tell() or claimed > MAX_BYTES:
        raise ValueError(f"an array claims {claimed} bytes and has {size - stream.tell()}")
    flat = np.frombuffer(stream.read(claimed), dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def ports(program: Program, role: str) -> list[Tensor]:
    """The program's input or output tensors."""
    return [tensor for tensor in program.tensors if tensor.role == role]


def check_feeds(program: Program, feeds: Mapping[str, Array]) -> int:
    """Number of images in ``feeds``, by ONNX input name. Raises PimError R703, all findings."""
    findings, counts = Findings(), set[int]()
    wanted = {tensor.onnx_name: tensor for tensor in ports(program, "input")}
    for name in feeds.keys() - wanted.keys() - {LABELS}:
        hint = f"the model's inputs are {', '.join(f'`{known}`' for known in wanted)}"
        findings.error("R703", f"the model has no input `{name}`", hint=hint)
    for name, tensor in wanted.items():
        if name not in feeds:
            findings.error("R703", f"input `{name}` is missing", hint=_expected(tensor))
            continue
        values = feeds[name]
        if values.shape[1:] != tensor.onnx_shape or not len(values):
            message = f"input `{name}` has shape {list(values.shape)}"
            findings.error("R703", message, hint=_expected(tensor))
        elif tensor.scale is not None and values.dtype.kind != "f":
            message = f"input `{name}` has type {values.dtype}"
            findings.error("R703", message, hint=_expected(tensor))
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            findings.error("R703", f"input `{name}` holds NaN or infinity")
        counts.add(len(values) if values.ndim else 0)
    if len(counts) > 1 and not findings:
        findings.error("R703", f"the inputs differ in their number of samples: {sorted(counts)}")
    findings.raise_if_any()
    return counts.pop() if counts else 1


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
    ordered = values.astype(dtype).transpose(0, *[axis + 1 for axis in tensor.order])
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
    for tensor in ports(program, "input"):
        low, high = limits(DTYPES[tensor.dtype])
        shape = (samples, *tensor.onnx_shape)
        steps = generator.integers(low, high, shape, endpoint=True)
        if tensor.scale is None:
            feeds[tensor.onnx_name] = steps.astype(DTYPES[tensor.dtype])
        else:
            feeds[tensor.onnx_name] = to_real(tensor, steps)
    return feeds


def first_samples(feeds: Mapping[str, Array], samples: int | None) -> Feeds:
    """The first ``samples`` of every array; all of them for None."""
    return {name: values[:samples] for name, values in feeds.items()}


def input_names(program: Program) -> Sequence[str]:
    return [tensor.onnx_name for tensor in ports(program, "input")]


def write_data(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """Write an npz file beside its place and rename it. Raises PimError C509."""
    file = Path(path)
    draft = file.with_name(f".{file.name}.draft.npz")
    try:
        with draft.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        message = f"cannot write `{file}`: {error.strerror or error}"
        raise PimError(Diagnostic("C509", message, Location(str(file)))) from error
