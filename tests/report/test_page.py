"""The page: whole, closed, escaped, small, and equal to the simulation."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.pages import Element, read_page
from support.timed import three_layers

from isa import container
from isa.program import Program
from isa.target import load_target
from pimc.cli import main
from runtime.timeline import REASONS

pytest.importorskip("jinja2", reason="`pimc report` needs jinja2")

from pimc.report.baseline import Baseline
from pimc.report.page import environment, render_page
from pimc.report.sheet import Sheet, make_sheet
from pimc.report.waits import WAITS, layer_paces

MODELS = Path(__file__).parents[2] / "models"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>&amp;'
MAX_BYTES = 2_000_000
NOTHING = Baseline(None, "nothing")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled LeNet-5, mapped by the optimizer."""
    folder = tmp_path_factory.mktemp("report") / "lenet.pim"
    model, samples = MODELS / "lenet5_fmnist.onnx", MODELS / "fmnist_calib.npz"
    result = run("compile", model, "--calib", samples, "--mapping", "best", "-o", folder)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def page(lenet: Path) -> str:
    file = lenet.with_name("lenet.html")
    result = run("report", lenet, "-o", file)
    assert result.exit_code == 0, result.stderr
    return file.read_text(encoding="utf-8")


def sheet_of(program: Program, **compiled: Any) -> Sheet:
    return make_sheet("small", program, load_target("tiny"), 2, compiled)


@cache
def small_page() -> str:
    return render_page(environment(), sheet_of(three_layers()), NOTHING)


def numbers(elements: list[Element]) -> list[float]:
    return [float(element["data-value"]) for element in elements if "data-value" in element]


@pytest.mark.parametrize("kind", ["network", "small"])
def test_a_page_is_well_formed_and_its_references_lead_somewhere(page: str, kind: str) -> None:
    root = read_page(page if kind == "network" else small_page())
    elements = list(root.walk())
    ids = [element["id"] for element in elements if "id" in element]
    assert len(ids) == len(set(ids))
    links = [e["href"] for e in elements if e.tag == "a"]
    labels = [i for e in elements if "aria-labelledby" in e for i in e["aria-labelledby"].split()]
    assert {link.removeprefix("#") for link in links} | set(labels) <= set(ids)
    assert all(link.startswith("#") for link in links)
    for figure in root.all("svg"):
        assert figure.all("title"), "a figure needs a title"
    for table in root.all("table"):
        assert all("scope" in head for head in table.all("th"))


def test_a_page_needs_nothing_from_outside(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    root = read_page(page)
    assert not [e for e in root.walk() if "src" in e]
    assert [e["href"] for e in root.all("link")] == ["data:,"]
    assert "@import" not in page
    assert "url(" not in page
    assert len(page.encode()) < MAX_BYTES


def test_names_from_the_model_are_escaped() -> None:
    program = three_layers()
    first = replace(program.cores[0], layer=HOSTILE)
    tensors = tuple(replace(tensor, onnx_name=HOSTILE) for tensor in program.tensors)
    program = replace(program, cores=(first, program.cores[1]), tensors=tensors)
    compiled = {"mapping": HOSTILE, "inputs": {HOSTILE: HOSTILE}, "reconstructs": HOSTILE}
    sheet = replace(sheet_of(program, **compiled), name=HOSTILE)
    text = render_page(environment(), sheet, Baseline(sheet, HOSTILE))
    root = read_page(text)
    assert len(root.all("script")) == 1
    assert not root.all("img")
    assert not [e for e in root.walk() if any(name.startswith("on") for name in e.attributes)]
    assert root.all("h1")[0].text == HOSTILE
    assert sum(HOSTILE in e.text for e in root.all("summary")) >= 1


def test_only_the_page_s_own_script_may_run(page: str) -> None:
    import base64
    import hashlib

    root = read_page(page)
    (script,) = root.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = [e["content"] for e in root.all("meta") if "http-equiv" in e]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_sums_of_the_page_are_those_of_the_simulation(page: str, lenet: Path) -> None:
    found = json.loads(run("simulate", lenet, "--json").stdout)
    root = read_page(page)
    (table,) = [t for t in root.all("table") if t.attributes.get("id") == "layer-table"]
    heads = [head.text.split()[0] for head in table.all("thead")[0].all("th")]
    rows = [row.children for row in table.all("tbody")[0].all("tr")]
    last = table.all("tfoot")[0].all("tr")[0].children
    assert len(rows) == len(found["layers"])

    def column(name: str) -> list[float]:
        return numbers([row[heads.index(name)] for row in rows])

    for name in ("crossbars", "blocks", "cells", "routes", "MACs", "fires", "energy"):
        (total,) = numbers([last[heads.index(name)]])
        assert sum(column(name)) == pytest.approx(total)
    assert sum(column("MACs")) == found["macs"]
    assert sum(column("energy")) == pytest.approx(found["energy_pj"]["dynamic"])
    assert max(column("busiest")) == pytest.approx(found["bound_interval_ns"])
    groups = {e["data-energy"]: float(e["data-value"]) for e in root.walk() if "data-energy" in e}
    assert groups == {group: found["energy_pj"][group] for group in groups}
    assert sum(groups.values()) == pytest.approx(found["energy_pj"]["dynamic"])


def test_events_and_parts_add_up_to_energy_and_area(page: str, lenet: Path) -> None:
    found = json.loads(run("simulate", lenet, "--json").stdout)
    root = read_page(page)
    energy, area = (
        sum(numbers([e for row in section.all("tbody") for e in row.all("td")]))
        for section in root.all("section")
        if section.attributes["id"] in ("energy", "area")
    )
    assert energy == pytest.approx(found["energy_pj"]["dynamic"])
    assert area == pytest.approx(found["area_mm2"]["total"])


def test_the_comparison_is_with_the_plain_mapping_of_the_same_network(
    page: str, lenet: Path, tmp_path: Path
) -> None:
    dense = tmp_path / "dense.pim"
    model, samples = MODELS / "lenet5_fmnist.onnx", MODELS / "fmnist_calib.npz"
    assert run("compile", model, "--calib", samples, "-o", dense).exit_code == 0
    root = read_page(page)
    rows = {
        row.all("th")[0].text: numbers(row.all("td"))
        for row in root.all("section")[0].all("tr")
        if row.all("td")
    }
    for program, place in ((lenet, 0), (dense, 1)):
        found = json.loads(run("simulate", program, "--json").stdout)
        assert rows["Interval between images"][place] == found["interval_ns"] * 1e-9
        assert rows["Dynamic energy of an image"][place] == pytest.approx(
            found["energy_pj"]["dynamic"] * 1e-12, rel=1e-6
        )
    assert rows["Stored columns"][0] < rows["Stored columns"][1]


def test_a_program_is_compared_with_another_one_when_asked(lenet: Path, tmp_path: Path) -> None:
    file = tmp_path / "same.html"
    assert run("report", lenet, "-o", file, "--against", lenet).exit_code == 0
    gains = [e.text for e in read_page(file.read_text()).all("td") if e.text.endswith("×")]
    assert set(gains) - {"1.00×"} == {gain for gain in gains[-3:] if gain != "1.00×"}


def test_an_assembled_program_has_a_page_that_says_what_is_not_known(tmp_path: Path) -> None:
    folder, target = tmp_path / "hand.pim", load_target("tiny")
    program = replace(three_layers(), target_sha256=target.sha256)
    container.save(folder, program, target)
    result = run("report", folder, "-o", tmp_path / "hand.html")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "hand.html").read_text()
    assert "the folder has no reference.onnx" in text
    assert "the folder has no reference.onnx" in result.stderr
    assert "No proof of the weights" in text


def test_a_reference_that_does_not_compile_again_is_no_reason_to_have_no_page(
    lenet: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd.pim"
    shutil.copytree(lenet, folder)
    (folder / "reference.onnx").write_bytes(b"no model")
    result = run("report", folder, "-o", tmp_path / "odd.html")
    assert result.exit_code == 0, result.stderr
    for text in (result.stderr, (tmp_path / "odd.html").read_text()):
        assert "No plain mapping to compare with: F2" in text


def test_a_plain_mapping_that_needs_more_cores_gets_a_larger_mesh(tmp_path: Path) -> None:
    folder, page = tmp_path / "few.pim", tmp_path / "few.html"
    model, samples = MODELS / "lenet5_fmnist.onnx", MODELS / "fmnist_calib.npz"
    sizes = ("pes_per_core=1", "crossbars_per_pe=1", "concentration=1")
    chip = [word for size in sizes for word in ("--set", f"hierarchy.{size}")]
    line = ("compile", model, "--calib", samples, "--mapping", "best", *chip, "-o", folder)
    result = run(*line, "--tiles", 9)
    assert result.exit_code == 0, result.stderr
    assert run("report", folder, "-o", page).exit_code == 0
    assert "on the same chip grown from 9 to 49 cores" in page.read_text()


def test_a_damaged_compile_report_is_refused(tmp_path: Path) -> None:
    folder, target = tmp_path / "hand.pim", load_target("tiny")
    program = replace(three_layers(), target_sha256=target.sha256)
    for contents in (b"{", b"[]", b"\xff"):
        container.save(folder, program, target, {"report.json": contents})
        result = run("report", folder, "-o", tmp_path / "hand.html")
        assert result.exit_code == 3
        assert "C502" in result.stderr
        assert not (tmp_path / "hand.html").exists()


def test_without_jinja2_there_is_one_clear_error(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("report", lenet, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "U904" in result.stderr
    assert "pip install" in result.stderr
    assert not list(tmp_path.iterdir())


def test_simulate_names_what_each_layer_waits_for(lenet: Path) -> None:
    found = json.loads(run("simulate", lenet, "--json").stdout)
    lines = [line.split("  ") for line in run("simulate", lenet).stdout.splitlines()]
    words = {line[0]: [word.strip() for word in line[1:] if word] for line in lines}
    headers = words["layer"]
    assert headers[:3] == ["cores", "works %", "busy"]
    for layer in found["layers"]:
        assert layer["cores"] == 1
        shown = dict(zip(headers, map(float, words[layer["name"]]), strict=True))
        waits = [value for header, value in shown.items() if header.startswith("for ")]
        stalled_us = sum(layer["stall_ns"].values()) / 1e3
        units = 1 if "matrix" in layer["busy_ns"] else len(layer["busy_ns"])
        assert sum(waits) == pytest.approx(stalled_us / units, abs=0.051 * len(waits))


def test_every_reason_to_wait_has_exactly_one_word() -> None:
    named = [reason for reasons in WAITS.values() for reason in reasons]
    assert sorted(named) == sorted(REASONS)


def test_the_waits_of_a_layer_are_those_of_the_simulation() -> None:
    sheet = sheet_of(three_layers())
    paces = layer_paces(sheet.figures, sheet.timeline)
    for layer in sheet.figures["layers"]:
        pace = paces[layer["name"]]
        units = [u for u in sheet.timeline.all_units()
                 if u.layer == layer["name"] and u.kind == "matrix"]  # fmt: skip
        assert sum(pace.waits_ns.values()) * len(units) == pytest.approx(
            sum(layer["stall_ns"].values())
        )
        assert pace.busy_ns * len(units) == pytest.approx(layer["busy_ns"]["matrix"])
        assert 0 < pace.utilization <= 1


def test_a_chip_that_skips_zero_inputs_is_said_to_skip_none_without_data() -> None:
    words = "without data no skip is in these figures"
    target = load_target("tiny", {"inputs.skip": "group"})
    skipping = make_sheet("small", three_layers(), target, 2, {})
    assert words in render_page(environment(), skipping, NOTHING)
    assert words not in render_page(environment(), sheet_of(three_layers()), NOTHING)
