"""Program folders: ``NAME.pim/`` with the text, its data, its target and its reference model.

::

    program.pim      the text
    arrays.npz       tables and matrices that do not stand in the text
    target.json      the description of the target it was compiled for
    host/NAME.onnx   the model of each partition that runs on the host
    reference.onnx   report.json   ...           whatever else the compiler puts there

A model in phases (`isa.phases`) has such a folder for each, and what belongs to all::

    phases.json      how many phases, and the names of the model's outputs
    phase-0/         program.pim   arrays.npz   target.json
    phase-1/         ...
    reference.onnx   report.json

Programs for several input shapes (`isa.shapes`, `isa.shape_container`) have one each, too::

    shapes.json      the shapes, and the sha256 of the arrays
    arrays.npz       what stands in the data of more than one of the programs
    shape-0/         a folder as above, with the rest of its arrays
    shape-1/         ...

A folder is written beside its place and renamed, so a reader sees all of it or nothing.
`isa.folder` has the names and reads the small files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from isa.assembly import data_arrays, parse_with_source
from isa.diagnostics import Diagnostic, Findings, Location, PimError
from isa.drafts import drafted_folder, in_the_way
from isa.folder import (
    HOST_FOLDER,
    PHASES_FILE,
    SHAPES_FILE,
    TARGET_FILE,
    TEXT_FILE,
    Arrays,
    Extras,
    checked_files,
    is_container,
    is_plain,
    manifest_of,
    phase_folder,
    phases_of,
    read_text,
    shape_folder,
    shapes_folder,
    shared_arrays,
)
from isa.npz import Array, read_npz, write_npz
from isa.phases import Phases
from isa.printer import DATA_FILE, program_lines
from isa.program import Partition, Program
from isa.source import Source
from isa.target import Target

MAX_MODEL_BYTES: Final = 2**31 - 1  # of one partition; the limit of the protobuf wire format
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_]+")  # of a partition: no path leaves the folder


class LoadedPhases(NamedTuple):
    """What a folder with one program or several phases holds. sources: one for each program."""

    phases: Phases
    target: Target
    sources: tuple[Source, ...]

    @property
    def whole(self) -> Program | Phases:
        """The program where there is but one."""
        return self.phases if len(self.phases.programs) > 1 else self.phases.programs[0]

    @property
    def program(self) -> Program:
        """The program; of phases, what the whole takes and gives (no cores)."""
        return self.whole if isinstance(self.whole, Program) else self.phases.interface


class Loaded(NamedTuple):
    """What a program folder holds. source: places in the text, for findings about it."""

    program: Program
    target: Target
    source: Source


def save(
    path: str | Path,
    program: Program | Phases,
    target: Target,
    extra_files: Extras | None = None,
) -> None:
    """Write the folder of a program, or of several phases, replacing one that is there.

    extra_files: relative path within the folder -> contents, or a file to copy.
    Raises PimError C504 when the program was not compiled for ``target``, C508 when ``path`` is
    something else than a program folder, C507 and C509; ValueError for an extra file with one of
    the folder's own names or a path that leaves the folder.
    """
    folder = Path(path)
    check_writable(folder, (program,), target)
    extras = checked_files(extra_files)
    arrays = [data_arrays(each) for each in programs_of(program)]
    with drafted_folder(folder) as draft:
        write_whole(draft, program, target, arrays, extras)


def check_writable(folder: Path, wholes: Sequence[Program | Phases], target: Target) -> None:
    """Raise PimError C504 for a program of another target, C508 for a foreign thing in the way."""
    findings = Findings()
    for whole in wholes:
        for each in programs_of(whole):
            _check_target(each, target, Location(str(folder)), findings)
    if (folder.exists() or folder.is_symlink()) and not is_container(folder):
        findings.add(in_the_way(folder, "no program folder"))
    findings.raise_if_any()


def write_whole(
    draft: Path,
    whole: Program | Phases,
    target: Target,
    arrays: Sequence[Arrays],
    extras: Mapping[PurePosixPath, bytes | Path],
) -> None:
    """Write a program or phases into an empty folder. arrays: of the data file of each program."""
    if isinstance(whole, Phases):
        manifest = {"phases": len(whole.programs), "outputs": whole.outputs}
        (draft / PHASES_FILE).write_text(json.dumps(manifest) + "\n", encoding="utf-8")
        for number, each in enumerate(whole.programs):
            (draft / phase_folder(number)).mkdir()
            _write(draft / phase_folder(number), each, target, arrays[number])
    else:
        _write(draft, whole, target, arrays[0])
    write_extras(draft, extras)


def programs_of(whole: Program | Phases) -> tuple[Program, ...]:
    """The program, or those of the phases."""
    return (whole,) if isinstance(whole, Program) else whole.programs


def load(path: str | Path, shared: Arrays | None = None) -> Loaded:
    """Read a program folder.

    shared: arrays of the folder of several shapes that it is a part of; read from there by default.

    Raises PimError with everything that is wrong: C501..C506, T1xx for the target, E3xx for the
    text. The program is not verified; see ``isa.verify``.
    """
    folder = Path(path)
    _refuse_several(folder)
    if not is_container(folder):
        message = f"`{folder}` is no program folder"
        hint = f"a program folder has a `{TEXT_FILE}`"
        if folder.is_file():
            is_text = folder.name == TEXT_FILE
            hint = "give the folder around it" if is_text else "`pimc compile` makes one of a model"
        raise PimError(Diagnostic("C501", message, Location(str(folder)), hint))
    findings = Findings()
    arrays: dict[str, Array] | None = None
    if os.path.lexists(folder / DATA_FILE) and is_plain(folder / DATA_FILE, findings):
        arrays = read_npz(folder / DATA_FILE, findings)
    if shared is None:
        shared = shared_arrays(shapes_folder(folder), findings)
    data_is_bad = bool(findings)
    arrays = {**shared, **(arrays or {})} if shared or arrays is not None else None
    target = _read_target(folder / TARGET_FILE, findings)
    text = read_text(folder / TEXT_FILE, findings)
    loaded = None
    if text is not None and not data_is_bad:  # else every array would be called missing, too
        try:
            loaded = parse_with_source(text, arrays, str(folder / TEXT_FILE))
        except PimError as error:
            findings.diagnostics += error.diagnostics
    program = _with_models(folder, loaded[0], findings) if loaded is not None else None
    if loaded is not None and target is not None:
        _check_target(loaded[0], target, Location(str(folder / TARGET_FILE)), findings)
    findings.raise_if_any()
    assert loaded is not None
    assert program is not None
    assert target is not None
    return Loaded(program, target, loaded[1])


def _refuse_several(folder: Path) -> None:
    """Raise PimError C510 for a folder of phases, C514 for one of several shapes."""
    at = Location(str(folder))
    if (folder / SHAPES_FILE).is_file():
        shapes = manifest_of(folder).shapes
        choices = " or ".join(f"`--input-shape {shape}`" for shape in shapes)
        hint = f"choose with {choices}; `{folder / shape_folder(0)}` is a program folder, too"
        message = f"`{folder}` holds programs for {len(shapes)} input shapes; one is wanted"
        raise PimError(Diagnostic("C514", message, at, hint))
    if (folder / PHASES_FILE).is_file():
        hint = f"give one of them: `{folder / phase_folder(0)}` is a program folder, too"
        message = f"`{folder}` holds several phases; one program is wanted"
        raise PimError(Diagnostic("C510", message, at, hint))


def partition(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], model: bytes
) -> Partition:
    """A partition with the sha256 of its model."""
    return Partition(name, inputs, outputs, hashlib.sha256(model).hexdigest(), model)


def with_models(program: Program, made: Program) -> Program:
    """A program that was parsed from the text of ``made``, with the models of its partitions."""
    models = {part.name: part.model for part in made.partitions}
    parts = tuple(replace(part, model=models[part.name]) for part in program.partitions)
    return replace(program, partitions=parts)


def _with_models(folder: Path, program: Program, findings: Findings) -> Program:
    """The program with the contents of ``host/NAME.onnx`` in its partitions."""
    parts = []
    for part in program.partitions:
        file = folder / HOST_FOLDER / f"{part.name}.onnx"
        model, problem = b"", None
        if not _FILE_NAME.fullmatch(part.name):
            problem = "its name is no plain file name"
        elif (folder / HOST_FOLDER).is_symlink() or not file.is_file() or file.is_symlink():
            problem = f"`{HOST_FOLDER}/{file.name}` is not there, or no plain file"
        elif file.stat().st_size > MAX_MODEL_BYTES:
            problem = f"`{HOST_FOLDER}/{file.name}` has more than {MAX_MODEL_BYTES} bytes"
        else:
            model = file.read_bytes()
            if hashlib.sha256(model).hexdigest() != part.sha256:
                problem = f"`{HOST_FOLDER}/{file.name}` has another sha256 than the text says"
        if problem:
            hint = "compile the model again"
            message = f"partition `{part.name}`: {problem}"
            findings.error("C512", message, Location(str(folder)), hint)
        parts.append(replace(part, model=model))
    return replace(program, partitions=tuple(parts))


def load_phases(path: str | Path, shared: Arrays | None = None) -> LoadedPhases:
    """Read the folder of a program or of several phases; a single program is a sequence of one.

    shared: as for ``load``.

    Raises PimError as ``load`` does, for all phases, and C511 when they do not fit together.
    """
    folder = Path(path)
    if not (folder / PHASES_FILE).is_file():
        loaded = load(folder, shared)
        outputs = tuple(t.name for t in loaded.program.tensors if t.role == "output")
        return LoadedPhases(Phases((loaded.program,), outputs), loaded.target, (loaded.source,))
    count, outputs = phases_of(folder / PHASES_FILE)
    findings, found = Findings(), list[Loaded]()
    for number in range(count):
        try:
            found.append(load(folder / phase_folder(number), shared))
        except PimError as error:
            findings.diagnostics += error.diagnostics
    findings.raise_if_any()
    phases = Phases(tuple(each.program for each in found), outputs)
    phases.check(Location(str(folder)))
    return LoadedPhases(phases, found[0].target, tuple(each.source for each in found))


def _check_target(program: Program, target: Target, at: Location, findings: Findings) -> None:
    if program.target_sha256 == target.sha256 and program.target == target.name:
        return
    said = f"`{program.target}`, sha256 {program.target_sha256[:12] or 'none'}"
    message = f"the program is for target {said}, not for `{target.name}`, {target.sha256[:12]}"
    hint = "compile or assemble again for this target; a program belongs to one description"
    findings.error("C504", message, at, hint)


def _write(
    draft: Path,
    program: Program,
    target: Target,
    arrays: Arrays,
) -> None:
    with (draft / TEXT_FILE).open("w", encoding="utf-8", newline="\n") as text:
        text.writelines(f"{line}\n" for line in program_lines(program))
    (draft / TARGET_FILE).write_text(target.to_json(), encoding="utf-8")
    for part in program.partitions:
        (draft / HOST_FOLDER).mkdir(exist_ok=True)
        (draft / HOST_FOLDER / f"{part.name}.onnx").write_bytes(part.model)
    if arrays:
        write_npz(draft / DATA_FILE, arrays)


def write_extras(draft: Path, extras: Mapping[PurePosixPath, bytes | Path]) -> None:
    for name, contents in extras.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, Path):
            shutil.copyfile(contents, draft / name)
        else:
            (draft / name).write_bytes(contents)


def _read_target(file: Path, findings: Findings) -> Target | None:
    text = read_text(file, findings)
    if text is None:
        return None
    try:
        return Target.from_json(text, str(file))
    except PimError as error:
        findings.diagnostics += error.diagnostics
        return None
