"""The page in a real Chromium: it opens without a word on the console, and its script works."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.browser import BROWSER, open_page
from support.networks import compiled, resnet18
from support.pages import read_page
from support.timed import three_layers

from isa.target import load_target
from pimc.cli import main

pytest.importorskip("jinja2", reason="`pimc report` needs jinja2")

from pimc.report.baseline import Baseline
from pimc.report.page import environment, render_page
from pimc.report.sheet import make_sheet

MODELS = Path(__file__).parents[2] / "models"
HOSTILE = "<script>alert(1)</script>"
MAX_BYTES = 2_000_000
NOTHING = Baseline(None, "nothing")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]


@cache
def resnet8(folder: Path) -> Path:
    """The page of resnet8 as the command writes it."""
    program, page = folder / "resnet8.pim", folder / "resnet8.html"
    model, samples = MODELS / "resnet8_fmnist.onnx", MODELS / "fmnist_calib.npz"
    for line in (
        ["compile", model, "--calib", samples, "--mapping", "best", "-o", program],
        ["report", program, "-o", page],
    ):
        result = CliRunner().invoke(main, [str(word) for word in line])
        assert result.exit_code == 0, result.stderr
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resnet8(tmp_path_factory.mktemp("browser"))


def test_the_report_of_resnet8_opens_without_a_message(page: Path, tmp_path: Path) -> None:
    assert page.stat().st_size < MAX_BYTES
    opened = open_page(page, tmp_path)
    assert opened.messages == []
    assert "resnet8.pim" in opened.page


def test_the_report_of_resnet18_at_224_opens_without_a_message(tmp_path: Path) -> None:
    builder, output = resnet18()
    program, target = compiled(builder, output, load_target("ou9x8"))
    sheet = make_sheet("resnet18", program, target, 2, {})
    text = render_page(environment(), sheet, NOTHING)
    assert len(text.encode()) < MAX_BYTES
    file = tmp_path / "resnet18.html"
    file.write_text(text, encoding="utf-8")
    assert open_page(file, tmp_path / "profile").messages == []


def test_a_link_opens_the_section_of_its_layer(page: Path, tmp_path: Path) -> None:
    root = read_page(open_page(page, tmp_path, "#text-3").page)
    (section,) = [e for e in root.all("details") if e.attributes.get("id") == "text-3"]
    assert "open" in section
    assert sum("open" in e for e in root.all("details")) == 1


def test_a_heading_sorts_the_table_and_sorts_it_the_other_way_round(
    page: Path, tmp_path: Path
) -> None:
    for clicks, direction in ((1, "descending"), (2, "ascending")):
        root = read_page(_with_clicks(page, tmp_path / str(clicks), "MACs", clicks))
        (table,) = [e for e in root.all("table") if e.attributes.get("id") == "layer-table"]
        heads = table.all("thead")[0].all("th")
        (column,) = [n for n, head in enumerate(heads) if "aria-sort" in head]
        assert heads[column]["aria-sort"] == direction
        rows = table.all("tbody")[0].all("tr")
        shown = [float(row.children[column]["data-value"]) for row in rows]
        assert shown == sorted(shown, reverse=direction == "descending")
        assert len(set(shown)) > 3


def test_a_hostile_name_runs_nothing(tmp_path: Path) -> None:
    program = three_layers()
    first = replace(program.cores[0], layer=HOSTILE)
    sheet = make_sheet(
        HOSTILE, replace(program, cores=(first, program.cores[1])), load_target("tiny"), 2, {}
    )
    file = tmp_path / "hostile.html"
    file.write_text(render_page(environment(), sheet, NOTHING), encoding="utf-8")
    opened = open_page(file, tmp_path / "profile")
    assert opened.messages == []
    assert opened.page.count("<script") == 1


def test_a_script_that_is_not_the_page_s_own_is_refused(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "changed.html"
    text = page.read_text(encoding="utf-8")
    file.write_text(text.replace("</body>", f"{HOSTILE}</body>"), encoding="utf-8")
    (message,) = open_page(file, tmp_path / "profile").messages
    assert "Content Security Policy" in message


def _with_clicks(page: Path, folder: Path, heading: str, clicks: int) -> str:
    """The page after a heading was pressed: a copy that allows the script that does so."""
    folder.mkdir()
    press = f"""<script>
      const heading = [...document.querySelectorAll("#layer-table button")].find(
        (button) => button.textContent.startsWith("{heading}"));
      for (let i = 0; i < {clicks}; i++) heading.click();
    </script></body>"""
    text = page.read_text(encoding="utf-8").replace("</body>", press)
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text)
    file = folder / "pressed.html"
    file.write_text(text, encoding="utf-8")
    opened = open_page(file, folder / "profile")
    assert opened.messages == []
    return opened.page
