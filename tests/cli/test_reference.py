"""The documents on commands and errors are up to date, and say all there is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from isa.codes import all_codes
from passes.pipelines import DEFAULT_MAPPING, MAPPINGS
from pimc.cli import main
from pimc.reference import documents
from pimc.reference import main as write

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["cli.md", "errors.md"])
def test_the_documents_are_up_to_date(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text == documents()[name], "run `python -m pimc.reference`"


def test_they_are_written_where_they_belong(tmp_path: Path) -> None:
    write(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == documents()


def test_every_command_and_option_is_in_the_reference() -> None:
    text = documents()["cli.md"]
    for name, command in main.commands.items():
        assert f"## `pimc {name}" in text
        if not isinstance(command, click.Group):
            for parameter in command.params:
                assert all(f"{option}" in text for option in parameter.opts if option[0] == "-")


def test_every_command_says_what_it_does_and_every_option_too() -> None:
    for command in main.commands.values():
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.opts}"


def test_every_code_is_in_the_reference() -> None:
    text = documents()["errors.md"]
    assert all(f"### {code}: " in text for code in all_codes())


def test_the_help_of_compile_names_every_mapping() -> None:
    (option,) = (param for param in main.commands["compile"].params if param.name == "mapping")
    assert isinstance(option, click.Option)
    assert option.default == DEFAULT_MAPPING
    assert all(name in (option.help or "") for name in MAPPINGS)
