"""Folders with programs for several input shapes of one model, which share their arrays.

What more than one of the programs has under one key with the same contents is stored once, in the
data file of the whole, and read once. Each ``shape-N`` is a program folder of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isa.container import (
    LoadedPhases,
    check_writable,
    load_phases,
    programs_of,
    write_extras,
    write_whole,
)
from isa.data_arrays import data_arrays
from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.drafts import drafted_folder
from isa.folder import (
    SHAPES_FILE,
    Arrays,
    Extras,
    checked_files,
    file_sha256,
    manifest_of,
    shape_folder,
    shared_arrays,
)
from isa.npz import Array, write_npz
from isa.phases import Phases
from isa.printer import DATA_FILE
from isa.program import Program
from isa.shapes import Manifest, Shape
from isa.target import Target


def save_shapes(
    path: str | Path,
    wholes: Sequence[Program | Phases],
    target: Target,
    extra_files: Extras | None = None,
    shape_files: Sequence[Extras] | None = None,
) -> None:
    """Write the folder of programs for several shapes, replacing a program folder that is there.

    wholes: at least two, each for other input shapes. extra_files: as for ``isa.container.save``,
    of the whole. shape_files: those of each shape. Raises what ``save`` raises.
    """
    folder = Path(path)
    check_writable(folder, wholes, target)
    shapes = tuple(shape_of(whole) for whole in wholes)
    if len(set(map(str, shapes))) < 2 or len(set(map(str, shapes))) < len(shapes):
        raise ValueError("several shapes are two or more, and differ")
    arrays = [[data_arrays(program) for program in programs_of(whole)] for whole in wholes]
    shared = common_arrays(arrays)
    with drafted_folder(folder) as draft:
        digest = ""
        if shared:
            write_npz(draft / DATA_FILE, shared)
            digest = file_sha256(draft / DATA_FILE)
        manifest = Manifest(shapes, digest)
        (draft / SHAPES_FILE).write_text(manifest.as_json(), encoding="utf-8")
        write_extras(draft, checked_files(extra_files))
        for number, whole in enumerate(wholes):
            (draft / shape_folder(number)).mkdir()
            extras = checked_files(shape_files[number] if shape_files else None)
            own = [without(each, shared) for each in arrays[number]]
            write_whole(draft / shape_folder(number), whole, target, own, extras)


def load_shapes(path: str | Path) -> tuple[LoadedPhases, ...]:
    """Read all programs of a folder of several shapes; arrays that they share are one in memory.

    Raises PimError as ``isa.container.load`` does, C513 when a program is for another shape.
    """
    folder, findings = Path(path), Findings()
    shapes = manifest_of(folder).shapes
    shared = shared_arrays(folder, findings)
    findings.raise_if_any()
    found = []
    for number, shape in enumerate(shapes):
        loaded = load_phases(folder / shape_folder(number), shared)
        if shape_of(loaded.whole) != shape:
            message = f"`{shape_folder(number)}` is not for the shape that `{SHAPES_FILE}` says"
            at = Location(str(folder / shape_folder(number)))
            raise PimError(Diagnostic("C513", message, at, "compile the model again"))
        found.append(loaded)
    return tuple(found)


def shape_of(whole: Program | Phases) -> Shape:
    """The input shapes of a program or of phases."""
    return Shape.of(whole if isinstance(whole, Program) else whole.interface)


def common_arrays(arrays: Sequence[Sequence[Arrays]]) -> dict[str, Array]:
    """By key, what more than one of the shapes stores under it with the same contents.

    arrays: [shape][phase]. Of several contents under one key, the one that comes twice first.
    """
    seen: dict[str, list[Array]] = {}
    shared: dict[str, Array] = {}
    for phases in arrays:
        here: dict[str, list[Array]] = {}
        for key, array in (item for phase in phases for item in phase.items()):
            here.setdefault(key, []).append(array)
            if key not in shared and any(is_same(array, known) for known in seen.get(key, ())):
                shared[key] = array
        for key, found in here.items():
            seen.setdefault(key, []).extend(found)
    return shared


def without(arrays: Arrays, shared: Arrays) -> dict[str, Array]:
    """What is left of a program's arrays beside the shared ones."""
    return {
        key: array
        for key, array in arrays.items()
        if key not in shared or not is_same(array, shared[key])
    }


def is_same(one: Array, other: Array) -> bool:
    """Whether two arrays are stored as the same bytes."""
    if one is other:
        return True
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and one.tobytes() == other.tobytes()
