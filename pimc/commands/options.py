"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isa.diagnostics import Diagnostic, Location, PimError

if TYPE_CHECKING:
    from isa.target import Target

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that run images side by side; the results are the same.",
)

override_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one number of the target, e.g. --set adc.bits=5. Repeatable.",
)


def target_options(command: Command) -> Command:
    """--target and --set."""
    name = click.option(
        "--target",
        default="ou9x8",
        show_default=True,
        metavar="NAME|FILE.toml",
        help="The chip; `pimc targets list` names the shipped ones.",
    )
    return name(override_option(command))


def read_target(name: str, overrides: tuple[str, ...]) -> Target:
    """The target of the options. Raises PimError U901 or T1xx."""
    from isa.target import load_target

    return load_target(name, read_pairs(overrides, "--set", "KEY=VALUE"))


def read_pairs(texts: tuple[str, ...], option: str, form: str) -> dict[str, str]:
    """Values by key, from ``key=value``. Raises PimError U901."""
    return dict(_pair(text, option, form) for text in texts)


SHAPE_FORM = "NAME=1,3,224,224"

shape_option = click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar=SHAPE_FORM,
    help="Of a program for several input shapes: the one for this shape.",
)


model_shapes_option = click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar=SHAPE_FORM,
    help="Full shape of an input with dynamic axes. Repeatable: other inputs add to the shape, an "
    "input that was named before starts another one, and each shape gets a program of its own; "
    "all share the weights. Two shapes of two inputs: --input-shape ids=1,16,mask=1,16 "
    "--input-shape ids=1,32,mask=1,32.",
)

bind_option = click.option(
    "--bind",
    multiple=True,
    metavar="FILE.npz|NAME=FILE.npy",
    help="Values of inputs that are weights: they become constants, which crossbars can hold. All "
    "arrays of an npz file by their names, or one. Repeatable.",
)


def read_shapes(texts: tuple[str, ...]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Shapes by input name, one dictionary for each program; a single one where nothing repeats.

    A text is ``x=1,3,224,224`` or, for several inputs, ``ids=1,16,mask=1,16``. An input that was
    named before starts the next program. Raises PimError U901.
    """
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    for text in texts:
        for name, sizes in _shapes_in(text):
            if name in groups[-1]:
                groups.append({})
            groups[-1][name] = sizes
    for number, group in enumerate(groups):
        missing = groups[0].keys() ^ group.keys()
        if missing:
            names = ", ".join(f"`{name}`" for name in sorted(missing))
            message = f"--input-shape: shape {number + 1} and the first differ in {names}"
            hint = "name all inputs for every shape: --input-shape ids=1,16,mask=1,16"
            raise PimError(Diagnostic("U901", message, hint=hint))
        if group in groups[:number]:
            message = f"--input-shape: shape {number + 1} is given twice"
            raise PimError(Diagnostic("U901", message, hint="give each shape once"))
    return tuple(groups)


def _shapes_in(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Inputs and sizes of one ``NAME=1,16,NAME=1,16``."""
    given: list[tuple[str, list[str]]] = []
    for part in text.split(","):
        name, equals, size = part.rpartition("=")
        if equals:
            given.append((name, []))
        if not given or (equals and not name):
            raise PimError(_wrong("--input-shape", text, SHAPE_FORM))
        given[-1][1].extend(size.split("x"))
    for name, sizes in given:
        try:
            yield name, tuple(int(size) for size in sizes)
        except ValueError:
            raise PimError(_wrong("--input-shape", text, SHAPE_FORM)) from None


def chosen(program: Path, shapes: tuple[str, ...], feeds: Mapping[str, Any] | None = None) -> Path:
    """The program folder that `shape_option`, or the shape of samples, chooses within ``program``.

    Raises PimError U901, R706; R707 for samples of an input that is a weight of the program.
    """
    from pimc.model_files import load_report, refuse_bound
    from pimc.shapes import pick_folder

    (wanted, *others) = read_shapes(shapes)
    if others:
        message = "--input-shape chooses one program here, and several shapes were given"
        raise PimError(Diagnostic("U901", message, hint="give one shape"))
    folder = pick_folder(program, wanted, feeds)
    if feeds is not None:
        refuse_bound(load_report(folder), feeds)
    return folder


def read_bindings(texts: tuple[str, ...]) -> dict[str, Any]:
    """Arrays by input name, from ``FILE.npz`` or ``NAME=FILE.npy``. Raises PimError U901, R702."""
    from pimc.data import read_array, read_data

    bound: dict[str, Any] = {}
    for text in texts:
        name, _, file = text.rpartition("=")
        found = {name: read_array(file)} if name else read_data(file)
        for twice in found.keys() & bound.keys():
            message = f"--bind gives values for input `{twice}` twice"
            raise PimError(Diagnostic("U901", message, hint="give each input once"))
        bound |= found
    return bound


def bound_files(texts: tuple[str, ...]) -> list[str]:
    """The files of ``--bind``."""
    return [text.rpartition("=")[2] for text in texts]


def read_tiles(text: str | None) -> int | str | None:
    """None, "auto" or a positive number. Raises PimError U901."""
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise PimError(_wrong("--tiles", text, "a number of cores, or `auto`"))
    return int(text)


def check_place(output: Path, is_folder: bool, *inputs: Path | None) -> None:
    """Refuse a place that cannot be written to before the work that would be lost.

    inputs: files that the command reads and must not replace. Raises PimError C508 for a file or
    foreign folder in the way, or an input, C509 for a missing parent.
    """
    from isa.drafts import in_the_way
    from isa.folder import is_container

    place = Path(os.path.realpath(output))
    if not place.parent.is_dir():
        message = f"cannot write `{output}`: there is no folder `{output.parent}`"
        hint = "create the folder first, or choose another path"
        raise PimError(Diagnostic("C509", message, Location(str(output)), hint))
    if not os.path.lexists(place):
        return
    if is_folder and not is_container(place):
        raise PimError(in_the_way(output, "no program folder"))
    if not is_folder and not place.is_file():
        is_dir = place.is_dir()
        raise PimError(in_the_way(output, "a folder" if is_dir else "no plain file"))
    for given in inputs:
        if given is not None and os.path.realpath(given) == str(place):
            raise PimError(in_the_way(output, "also an input of this command"))


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise PimError(_wrong(option, text, form))
    return name, value


def _wrong(option: str, text: str, form: str) -> Diagnostic:
    return Diagnostic("U901", f"{option} `{text}` cannot be read", hint=f"expected {form}")
