"""Model files: what stands in a program folder beside the programs.

::

    reference.onnx      the integer model that the program equals
    float.onnx          the model as it was given
    report.json         what `pimc compile --json` prints

Of several input shapes ``float.onnx`` and ``report.json`` belong to all, and there are::

    reference-0.onnx    the integer model of each shape
    reference.weights   the weights of all of them
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_model, set_external_data

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.folder import shape_number, shapes_folder
from pimc.data import Array

REFERENCE_FILE: Final = "reference.onnx"
FLOAT_FILE: Final = "float.onnx"
REPORT_FILE: Final = "report.json"
WEIGHTS_FILE: Final = "reference.weights"
_KEPT_BYTES: Final = 1024  # a smaller tensor stays in its model


def model_files(
    reference: onnx.ModelProto | None,
    float_model: onnx.ModelProto | None,
    report: Mapping[str, Any],
) -> dict[str, bytes | Path]:
    """What stands in a program folder beside the program, by file name."""
    models = {REFERENCE_FILE: reference, FLOAT_FILE: float_model}
    files: dict[str, bytes | Path] = {
        name: model.SerializeToString() for name, model in models.items() if model is not None
    }
    if report:
        files[REPORT_FILE] = (json.dumps(report, indent=2) + "\n").encode()
    return files


def shared_model_files(
    references: Sequence[onnx.ModelProto],
    float_model: onnx.ModelProto | None,
    report: Mapping[str, Any],
) -> dict[str, bytes | Path]:
    """What stands in a folder of several shapes beside the folders of each.

    A weight that several reference models have is stored once, as ONNX external data.
    """
    files = model_files(None, float_model, report)
    weights, places = bytearray(), dict[bytes, int]()
    for number, reference in enumerate(references):
        model = onnx.ModelProto()
        model.CopyFrom(reference)
        for tensor in model.graph.initializer:
            data = tensor.raw_data
            if len(data) >= _KEPT_BYTES:
                if data not in places:
                    places[data] = len(weights)
                    weights += data
                set_external_data(tensor, WEIGHTS_FILE, places[data], len(data))
                tensor.ClearField("raw_data")
        files[_reference_of(number)] = model.SerializeToString()
    if weights:
        files[WEIGHTS_FILE] = bytes(weights)
    return files


def reference_file(folder: Path) -> Path:
    """Where the reference model of a program folder is, or would be."""
    whole = folder.absolute().parent
    if shapes_folder(folder) != whole:  # a phase of a shape has none, like any other phase
        return folder / REFERENCE_FILE
    return whole / _reference_of(shape_number(folder))


def load_models(path: str | Path) -> tuple[onnx.ModelProto, onnx.ModelProto | None]:
    """Reference and float model of a program folder. Raises PimError R705 for a damaged one."""
    file = reference_file(Path(path))
    reference = _load_model(file)
    if reference is None:
        raise PimError(
            Diagnostic(
                "R705",
                f"`{path}` has no reference.onnx, so there is nothing to verify it against",
                hint="programs made by `pimc asm` and single phases can be run, not verified",
            )
        )
    return reference, _load_model(file.parent / FLOAT_FILE)


def load_report(folder: Path) -> dict[str, Any]:
    """report.json of a program folder, empty where there is none. Raises PimError C502.

    A folder of several shapes has one report with a part for each shape.
    """
    whole = folder.absolute().parent
    if shapes_folder(folder) == whole:
        report = load_report(whole)
        programs, number = report.pop("shapes", []), shape_number(folder)
        known = isinstance(programs, list) and number < len(programs)
        return report | programs[number] if known and isinstance(programs[number], dict) else {}
    file = folder / REPORT_FILE
    if not file.is_file():
        return {}
    try:
        report = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(report, dict):
        raise _damaged(file, "expected a JSON object")
    return report


def bound_report(values: Mapping[str, Array]) -> dict[str, Any]:
    """What the report says about inputs that were bound to values."""
    return {
        name: {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        }
        for name, array in values.items()
    }


def refuse_bound(report: Mapping[str, Any], feeds: Iterable[str]) -> None:
    """Raise PimError R707 for samples of inputs that were bound when the program was compiled."""
    bound, findings = report.get("bound", {}), Findings()
    for name in feeds:
        if isinstance(bound, dict) and name in bound:
            findings.error(
                "R707",
                f"weight input `{name}` was bound at compile; the crossbars hold its values",
                hint="leave it out of the samples, or compile again with other values for `--bind`",
            )
    findings.raise_if_any()


def _damaged(file: Path, why: str) -> PimError:
    hint = "compile again, or remove the file: the report then says nothing about verification"
    return PimError(Diagnostic("C502", f"cannot read `{file}`: {why}", Location(str(file)), hint))


def _reference_of(number: int) -> str:
    """Name of the reference model of a shape."""
    return f"reference-{number}.onnx"


def _load_model(file: Path) -> onnx.ModelProto | None:
    if not file.is_file():
        return None
    try:
        model = onnx.load_from_string(file.read_bytes())
        load_external_data_for_model(model, str(file.parent))
        return model
    except Exception as error:  # protobuf and onnx raise their own, undocumented classes
        raise PimError(Diagnostic("R705", f"`{file}` is damaged: {error}")) from error
