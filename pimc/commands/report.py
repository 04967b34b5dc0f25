"""``pimc report``: a program as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from pimc.commands.options import check_place, chosen, quiet_option, shape_option
from pimc.console import phases, write_text


@click.command()
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page; default NAME.html.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images that stream through the chip.",
)
@click.option(
    "--against",
    metavar="dense|none|PROGRAM",
    default="dense",
    show_default=True,
    help="What to compare with: the same network mapped plainly, one copy of each layer; "
    "nothing; or another program folder.",
)
@shape_option
@quiet_option
def report(
    program: Path,
    output: Path | None,
    images: int,
    against: str,
    shapes: tuple[str, ...],
    quiet: bool,
) -> None:
    """Write all figures and pictures of PROGRAM to one HTML page that needs no network.

    Needs the package jinja2: pip install 'pimc[report]'.
    """
    from pimc.report.baseline import baseline
    from pimc.report.page import environment, render_page
    from pimc.report.sheet import load_sheet

    page = output or Path(program.resolve().stem + ".html")
    check_place(page, is_folder=False)
    program = chosen(program, shapes)
    templates = environment()
    with phases(quiet) as progress:
        progress("simulate")
        sheet = load_sheet(program, images)
        progress("baseline")
        compared = baseline(against, program, sheet)
        progress("page")
        text = render_page(templates, sheet, compared)
    if compared.sheet is None and against != "none":
        click.echo(f"note: {compared.text}", err=True)
    write_text(page, text)
    click.echo(f"{page}: {len(text.encode()) / 1e3:,.0f} kB, {len(sheet.layer_names)} layers")
