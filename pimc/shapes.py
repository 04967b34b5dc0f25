"""Shapes: programs of one model for several input shapes; which one, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from isa import container
from isa.data_arrays import data_arrays
from isa.diagnostics import Diagnostic, PimError
from isa.folder import SHAPES_FILE, manifest_of, shape_folder
from isa.phases import Phases
from isa.program import Program
from isa.same_program import same_blocks
from isa.shape_container import common_arrays, save_shapes, shape_of, without
from isa.shapes import InputShape, Shape
from passes.graph import Graph
from pimc.data import Array, Feeds
from pimc.driver import Compiled
from pimc.model_files import shared_model_files
from pimc.report import document

Wanted = Mapping[str, Sequence[int]]
_HEAD: Final = ("schema", "pimc_version", "command", "target", "target_sha256", "inputs")


def pick_folder(
    path: Path, wanted: Wanted | None = None, feeds: Mapping[str, Array] | None = None
) -> Path:
    """The program folder for an input shape within the folder of several; else the folder itself.

    wanted: full shapes of some inputs. feeds: samples, which choose where nothing is wanted.
    Raises PimError R706 when no program is for that shape, C514 when nothing chooses one.
    """
    if not (path / SHAPES_FILE).is_file():
        if wanted:
            message = f"`{path}` holds no programs for several input shapes to choose from"
            raise PimError(Diagnostic("R706", message, hint="leave `--input-shape` out"))
        return path
    shapes = manifest_of(path).shapes
    if wanted or feeds is not None:
        return path / shape_folder(pick(shapes, wanted, feeds))
    return path  # which `isa.container` refuses, with the shapes that there are


def pick(
    shapes: Sequence[Shape], wanted: Wanted | None = None, feeds: Mapping[str, Array] | None = None
) -> int:
    """The number of the shape that is wanted, or that samples have. Raises PimError R706."""
    if wanted:
        fitting = [at for at, shape in enumerate(shapes) if shape.answers(wanted)]
        found = ",".join(f"{name}={','.join(map(str, sizes))}" for name, sizes in wanted.items())
    else:
        sizes = {n: np.shape(a) for n, a in (feeds or {}).items()}
        fitting = [at for at, shape in enumerate(shapes) if shape.holds(sizes)]
        found = ", ".join(f"`{name}` {list(size)}" for name, size in sizes.items()) or "no samples"
    if len(fitting) == 1:
        return fitting[0]
    which = "several programs are" if fitting else "no program is"
    known = " and ".join(f"`{shape}`" for shape in shapes)
    hint = "give samples of one of these shapes, or compile with one more `--input-shape`"
    if fitting:
        hint = "give the shapes of all inputs"
    raise PimError(Diagnostic("R706", f"{which} for {found}; the shapes are {known}", hint=hint))


def input_shape(graph: Graph) -> Shape:
    """What the inputs of a graph are, as `Shape.of` the program made from it."""
    values = {name: graph.values[name] for name in graph.inputs}
    return Shape({n: InputShape(v.onnx_shape, v.batched) for n, v in values.items()})


def samples_of_shapes(
    shapes: Sequence[Shape], sets: Sequence[Mapping[str, Array]]
) -> list[Feeds | None]:
    """The samples of each shape, None where there are none; sets of one shape are joined.

    Raises PimError R706 for samples of no shape.
    """
    held: list[list[Mapping[str, Array]]] = [[] for _ in shapes]
    for feeds in sets:
        held[pick(shapes, None, feeds)].append(feeds)
    return [joined(found) if found else None for found in held]


def samples_by_shape(
    shapes: Sequence[Shape], sets: Sequence[Mapping[str, Array]]
) -> list[Feeds | None]:
    """As `samples_of_shapes`; a single shape takes what is given, and who runs it says why not."""
    if len(shapes) > 1:
        return samples_of_shapes(shapes, sets)
    return [joined(sets) if sets else None]


def joined(sets: Sequence[Mapping[str, Array]]) -> Feeds:
    """Sample sets one after another; arrays that not all of them have are left out."""
    names = [name for name in sets[0] if all(name in each for each in sets)]
    if len(sets) == 1:
        return dict(sets[0])
    return {name: np.concatenate([each[name] for each in sets]) for name in names}


def save_compiled(path: Path, compiled: Sequence[Compiled], report: Mapping[str, Any]) -> None:
    """Write the folder of one or several shapes. report: of the whole."""
    if len(compiled) == 1:
        compiled[0].save(path)
        return
    files = shared_model_files(
        [each.reference for each in compiled], compiled[0].float_model, report
    )
    save_shapes(path, [each.whole for each in compiled], compiled[0].target, files)


def shapes_report(compiled: Sequence[Compiled]) -> dict[str, Any]:
    """The document of `pimc compile --json` for several shapes: what they share, then each."""
    first = compiled[0]
    common = ("mapping", "replicate", "reconstructs", "may_clip")
    head = {name: first.report[name] for name in common}
    programs = [
        {
            "input_shape": {n: s.full for n, s in shape_of(each.whole).inputs.items()},
            "folder": shape_folder(number),
            **{k: v for k, v in each.report.items() if k not in (*_HEAD, *common, "compile_s")},
        }
        for number, each in enumerate(compiled)
    ]
    figures = {
        **head,
        "shared": sharing([each.whole for each in compiled]),
        "compile_s": round(sum(first.seconds.values()), 3),
        "shapes": programs,
    }
    return document("compile", figures, first.target)


def sharing(wholes: Sequence[Program | Phases]) -> dict[str, Any]:
    """What programs for several shapes have in common.

    array_bytes: of the arrays that are stored once. own_bytes: of what only single programs have.
    same_cells: all crossbars hold the same cells for every shape, so that the next image may have
    another shape without a cell being written.
    """
    arrays = [[data_arrays(program) for program in container.programs_of(w)] for w in wholes]
    shared = common_arrays(arrays)
    own = [without(each, shared) for phases in arrays for each in phases]
    return {
        "array_bytes": sum(array.nbytes for array in shared.values()),
        "own_bytes": sum(array.nbytes for each in own for array in each.values()),
        "same_cells": _is_same_cells(wholes),
    }


def _is_same_cells(wholes: Sequence[Program | Phases]) -> bool:
    """Whether no cell is written between two shapes; between phases they always are."""
    held = [
        {(core.index, matrix.name): matrix.blocks for core in w.cores for matrix in core.matrices}
        for w in wholes
        if isinstance(w, Program)
    ]
    return len(held) == len(wholes) and all(
        other.keys() == held[0].keys()
        and all(same_blocks(blocks, held[0][key]) for key, blocks in other.items())
        for other in held[1:]
    )
