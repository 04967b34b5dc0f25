"""Load: read an ONNX file into memory and refuse, in one clear message, what is not a model."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from isa.diagnostics import Diagnostic, Findings, Location, PimError

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto

MAX_FILE_BYTES = 2**31 - 1  # the limit of the protobuf wire format
OLDEST_OPSET = 5  # the C++ converter of onnx starts there
OLDEST_RUNNABLE = 7  # onnxruntime promises no more
NEWEST_OPSET = 26  # onnxruntime 1.31.1, the newest that was tried, runs no newer one
OLDEST_IR = 3
AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
LARGEST_DENSE = 2**28  # elements of a sparse initializer


def load_model(source: ModelSource) -> onnx.ModelProto:
    """Return a checked model with every tensor in memory; the source itself is never changed.

    source: a path, the bytes of a file, or a model (which is copied).
    Raises PimError F201 (not a readable model), F202 (external data), F203 (versions) and
    F204 (the onnx checker refuses the model).
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return _checked(model, None, None)
    if isinstance(source, bytes):
        return _checked(_parse(source, None), None, None)
    path = Path(source)
    return _checked(_parse(_read(path), path), path, path.parent)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise PimError(
            Diagnostic("F201", f"no file `{path}`", _at(path), "give the path of an .onnx file")
        )
    if path.is_dir():
        raise PimError(Diagnostic("F201", f"`{path}` is a directory, not a model", _at(path)))
    if not path.is_file():  # a pipe would be waited for, a device might never end
        hint = "save the model to a file first"
        raise PimError(Diagnostic("F201", f"`{path}` is no plain file", _at(path), hint))
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise PimError(
                Diagnostic(
                    "F201",
                    f"`{path.name}` has {size:,} bytes; a protobuf message has at most 2 GiB",
                    _at(path),
                    "save the model with its weights in an external data file",
                )
            )
        return path.read_bytes()
    except OSError as error:
        raise PimError(
            Diagnostic("F201", f"cannot read `{path}`: {error.strerror}", _at(path))
        ) from error


def _parse(data: bytes, path: Path | None) -> onnx.ModelProto:
    """Parse the bytes; a text file, another protobuf and a cut-off file get their own message."""
    if not data:
        raise PimError(Diagnostic("F201", "the file is empty", _at(path)))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        # an ONNX file starts with field 1, the IR version, a small number
        looks_cut = data[0] == 0x08 and data[1:2] < b"\x20"
        message = (
            f"the file ends in the middle of the model (it has {len(data):,} bytes)"
            if looks_cut
            else f"this is not an ONNX file (its first bytes are {data[:8].hex(' ')})"
        )
        hint = "download or export it again" if looks_cut else "export the network as .onnx"
        raise PimError(Diagnostic("F201", message, _at(path), hint)) from error
    if not model.graph.node and not model.graph.output:
        raise PimError(
            Diagnostic(
                "F201",
                "the file parses as a protobuf message, but there is no ONNX graph in it",
                _at(path),
                "a TensorProto (.pb) or another framework's file is not a model",
            )
        )
    return model


def _checked(model: onnx.ModelProto, path: Path | None, folder: Path | None) -> onnx.ModelProto:
    _check_versions(model, path)
    _load_external(model, path, folder)
    try:
        _check_sorted(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        said = " ".join(str(error).split("==>")[0].split())
        raise PimError(
            Diagnostic("F204", f"the onnx checker refuses the model: {said}", _at(path))
        ) from error
    _check_more(model, path)
    _densify(model)
    return model


def _check_sorted(model: onnx.ModelProto) -> None:
    """The checker of onnx, on nodes in the order in which they run.

    onnxruntime sorts them itself, and its float16 converter leaves its casts at the end.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        if "topologically sorted" not in str(error):
            raise
        try:
            graph = ir.from_proto(model)
            graph.graph.sort()
            ordered = ir.to_proto(graph)
        except (RuntimeError, ValueError):  # a cycle, or what onnx_ir does not read
            raise error from None
        model.CopyFrom(ordered)
        onnx.checker.check_model(model)


def _check_more(model: onnx.ModelProto, path: Path | None) -> None:
    """What the checker of onnx lets through and its readers stumble over."""
    findings = Findings()
    for tensor in model.graph.initializer:
        try:
            numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:  # a KeyError for an unknown type
            message = f"initializer `{tensor.name}` cannot be read: {error}"
            place = Location(str(path or "") or None, node=f"initializer `{tensor.name}`")
            findings.error("F204", message, place)
    for node in model.graph.node:
        for attribute in node.attribute:
            mode = attribute.s.decode(errors="replace")
            if attribute.name == "auto_pad" and mode not in AUTO_PADS:
                label = f"{node.op_type} `{node.name or node.output[0]}`"
                message = f"{label}: auto_pad={mode} is none of {', '.join(AUTO_PADS)}"
                findings.error("F204", message, Location(str(path or "") or None, node=label))
    inputs = {value.name for value in model.graph.input}
    for output in model.graph.output:
        if output.name in inputs:
            message = f"output `{output.name}` is the input of that name: nothing computes it"
            findings.error("F211", message, Location(node=f"output `{output.name}`"))
    findings.raise_if_any()


def _densify(model: onnx.ModelProto) -> None:
    """Turn sparse initializers into plain ones."""
    for sparse in model.graph.sparse_initializer:
        shape = tuple(sparse.dims)
        if math.prod(shape) > LARGEST_DENSE:
            text = f"sparse initializer `{sparse.values.name}` has {math.prod(shape):,} elements"
            hint = f"at most {LARGEST_DENSE:,} are written out"
            raise PimError(Diagnostic("F204", text, hint=hint))
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        dense = np.zeros(shape, values.dtype)
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), shape)
        dense.reshape(-1)[places] = values
        model.graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del model.graph.sparse_initializer[:]


def _check_versions(model: onnx.ModelProto, path: Path | None) -> None:
    newest_ir = int(onnx.IR_VERSION)
    if not OLDEST_IR <= model.ir_version <= newest_ir:
        raise PimError(
            Diagnostic(
                "F203",
                f"IR version {model.ir_version} is outside {OLDEST_IR}..{newest_ir}",
                _at(path),
                "export the model with a current exporter, or upgrade the onnx package",
            )
        )
    opset = opset_of(model)
    if opset is not None and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise PimError(
            Diagnostic(
                "F203",
                f"opset {opset} is outside {OLDEST_OPSET}..{NEWEST_OPSET}",
                _at(path),
                "export the model with opset_version=17 or another one in that range",
            )
        )


def opset_of(model: onnx.ModelProto) -> int | None:
    """The version of the standard operator set that a model imports, None without one."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    return None


def _load_external(model: onnx.ModelProto, path: Path | None, folder: Path | None) -> None:
    outside = [t.name for t in model.graph.initializer if uses_external_data(t)]
    if not outside:
        return
    if folder is None:
        raise PimError(
            Diagnostic(
                "F202",
                f"weights such as `{outside[0]}` stand in an external data file",
                hint="give the path of the model instead of its bytes, so that the file is found",
            )
        )
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        first = str(error).strip().splitlines()[0]
        raise PimError(
            Diagnostic(
                "F202",
                f"cannot load the external data of `{outside[0]}`: {first}",
                _at(path),
                "the data file must lie beside the model, or in a folder below it",
            )
        ) from error


def _at(path: Path | None) -> Location | None:
    return None if path is None else Location(file=str(path))
