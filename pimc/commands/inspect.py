"""``pimc inspect``: what a program folder holds."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isa.diagnostics import Diagnostic, PimError
from pimc.commands.options import chosen, json_option, shape_option
from pimc.console import show_json, show_table
from pimc.report import document

if TYPE_CHECKING:
    from isa.container import Loaded
    from isa.program import Program
    from isa.target import Target

SECTIONS = ("code", "layers", "blocks", "memory")


@click.command("inspect")
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--layer", help="Only this layer (the name of an ONNX node).")
@click.option(
    "--section",
    type=click.Choice(SECTIONS),
    default="layers",
    show_default=True,
    help="The text, what each layer takes, what each core stores, or its memory.",
)
@shape_option
@json_option
def inspect_command(
    program: Path, layer: str | None, section: str, shapes: tuple[str, ...], as_json: bool
) -> None:
    """Show the text, the layers, the blocks or the memory of PROGRAM.

    Of programs for several input shapes all are shown, unless --input-shape chooses one.
    """
    from isa import container
    from isa.folder import SHAPES_FILE, manifest_of, shape_folder

    program = chosen(program, shapes)
    if not (program / SHAPES_FILE).is_file():
        loaded = container.load(program)
        found = _section(loaded, layer, section)
        if as_json:
            show_json(document("inspect", {section: found}, loaded.target, [program]))
        else:
            _show(found)
        return
    parts = []
    for number, shape in enumerate(manifest_of(program).shapes):
        folder = program / shape_folder(number)
        loaded = container.load(folder)
        found = _section(loaded, layer, section)
        sizes = {name: each.full for name, each in shape.inputs.items()}
        parts.append({"input_shape": sizes, "folder": str(folder), section: found})
        if not as_json:
            click.echo(f"{folder}, for {shape}")
            _show(found)
    if as_json:
        show_json(document("inspect", {"shapes": parts}, loaded.target, [program]))


def _section(loaded: Loaded, layer: str | None, section: str) -> str | list[dict[str, Any]]:
    """The text, or rows by column name."""
    shown = loaded.program if layer is None else _only(loaded.program, layer)
    if section == "code":
        from isa.printer import print_program

        return print_program(shown)
    rows = {"layers": _layers, "blocks": _blocks, "memory": _memory}[section](shown, loaded.target)
    return [{key.replace(" ", "_"): value for key, value in row.items()} for row in rows]


def _show(found: str | list[dict[str, Any]]) -> None:
    if isinstance(found, str):
        click.echo(found, nl=False)
    elif found:
        headers = [key.replace("_", " ") for key in found[0]]
        show_table(headers, [tuple(row.values()) for row in found])


def _only(program: Program, layer: str) -> Program:
    """The cores of one layer, their queues, and the tensors and tables that these name."""
    from dataclasses import replace

    from isa.program import walk

    cores = tuple(core for core in program.cores if core.layer == layer)
    if not cores:
        names = ", ".join(dict.fromkeys(core.layer for core in program.cores))
        raise PimError(
            Diagnostic("U902", f"there is no layer `{layer}`", hint=f"there are {names}")
        )
    kept = {core.index for core in cores}
    channels = tuple(c for c in program.channels if c.source in kept or c.target in kept)
    named = {c.carries[0] for c in channels if c.carries is not None}
    for core in cores:
        for instruction in walk(core.body):
            named |= {value for value in vars(instruction).values() if isinstance(value, str)}
            regions = (*instruction.read_regions(), *instruction.written_regions())
            named |= {region.name for region in regions}
    return replace(
        program,
        cores=cores,
        channels=channels,
        tensors=tuple(tensor for tensor in program.tensors if tensor.name in named),
        tables=tuple(table for table in program.tables if table.name in named),
    )


def _layers(program: Program, target: Target) -> list[dict[str, Any]]:
    """One row per layer: where it stands, what it stores, how much of it is proved linear."""
    from isa.program import walk

    cores = defaultdict(list)
    for core in program.cores:
        cores[core.layer].append(core)
    rows = []
    for name, held in cores.items():
        blocks = [matrix.blocks for core in held for matrix in core.matrices]
        columns = sum(b.columns for b in blocks)
        linear = sum(int((b.largest_sums() <= target.adc_max).sum()) for b in blocks)
        rows.append(
            {
                "layer": name,
                "cores": len(held),
                "crossbars": sum(b.crossbars for b in blocks),
                "row groups": sum(b.groups for b in blocks),
                "stored columns": columns,
                "routes": sum(b.route_count() for b in blocks),
                "OU blocks": sum(b.blocks(target.ou.columns) for b in blocks),
                "proved": f"{linear / columns:.0%}" if columns else "-",
                "instructions": sum(1 for core in held for _ in walk(core.body)),
            }
        )
    return rows


def _blocks(program: Program, target: Target) -> list[dict[str, Any]]:
    """One row per matrix, which is one core's part of a layer."""
    return [
        {
            "matrix": matrix.name,
            "core": core.index,
            "inputs": "{}..{}".format(*matrix.inputs),
            "outputs": "{}..{}".format(*matrix.outputs),
            "crossbars": matrix.blocks.crossbars,
            "row groups": matrix.blocks.groups,
            "stored columns": matrix.blocks.columns,
            "routes": matrix.blocks.route_count(),
            "largest sum": int(matrix.blocks.largest_sums().max(initial=0)),
            "ADC codes": target.adc_max,
        }
        for core in program.cores
        for matrix in core.matrices
    ]


def _memory(program: Program, target: Target) -> list[dict[str, Any]]:
    """One row per core: bytes of buffers and queues, and what stands in global memory instead."""
    local: dict[int, int] = defaultdict(int)
    outside: dict[int, int] = defaultdict(int)
    for channel in program.channels:
        place = outside if channel.address is None else local
        place[channel.target] += channel.bytes
    rows = []
    for core in program.cores:
        buffers = sum(buffer.bytes for buffer in core.buffers if buffer.address is not None)
        spilled = sum(buffer.bytes for buffer in core.buffers if buffer.address is None)
        used = buffers + local[core.index]
        rows.append(
            {
                "core": core.index,
                "layer": core.layer,
                "buffers": buffers,
                "queues": local[core.index],
                "global queues": outside[core.index],
                "global buffers": spilled,
                "used": f"{used / target.memory.core_bytes:.0%}",
            }
        )
    return rows
