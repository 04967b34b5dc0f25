"""Targets: the shipped ones hold together, wrong ones are refused with every error at its line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.diagnostics import Diagnostic, PimError
from isa.target import Target, list_targets, load_target, target_schema
from isa.target_checks import numbers
from isa.toml_source import MAX_FILE_BYTES, parse_toml

TARGETS = list_targets()


def refused(path: str | Path, overrides: Mapping[str, str] | None = None) -> tuple[Diagnostic, ...]:
    """Return the findings of a target that must not load."""
    with pytest.raises(PimError) as caught:
        load_target(path, overrides)
    assert caught.value.exit_code == 3
    return caught.value.diagnostics


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    """Return a path for a target file."""
    return tmp_path / "chip.toml"


def test_the_default_target_is_listed_first() -> None:
    assert TARGETS == ("ou9x8", "isaac", "mnsim", "prap8x8", "sre16x16", "tiny")


@pytest.mark.parametrize("name", TARGETS)
def test_every_shipped_target_carries_its_file_name(name: str) -> None:
    assert load_target(name).name == name


@pytest.mark.parametrize("name", TARGETS)
def test_every_number_of_a_shipped_target_has_a_source(name: str) -> None:
    target = load_target(name)
    document = target.model_dump(by_alias=True)
    del document["sources"]
    assert set(numbers(document)) == set(target.sources)
    assert all(len(source) >= 3 for source in target.sources.values())


@pytest.mark.parametrize("name", TARGETS)
def test_the_adc_of_a_shipped_target_is_exact_save_where_it_copies_a_simulator(name: str) -> None:
    assert load_target(name).adc_is_exact == (name != "mnsim")  # 128 rows into 6 bits


@pytest.mark.parametrize("name", TARGETS)
def test_json_and_toml_give_the_same_target_back(name: str, chip: Path) -> None:
    target = load_target(name)
    chip.write_text(target.to_toml(), encoding="utf-8")
    for again in (Target.from_json(target.to_json()), load_target(chip)):
        assert again == target
        assert again.sha256 == target.sha256


def test_the_default_chip_has_the_published_grid() -> None:
    target = load_target("ou9x8")
    assert (target.row_slots, target.column_slots) == (14, 16)
    assert (target.cores, target.crossbars_per_core, target.crossbars) == (144, 64, 9216)
    assert (target.exact_adc_bits, target.adc_max, target.cell_max) == (4, 15, 1)


@pytest.mark.parametrize(
    ("name", "exact_bits"), [("isaac", 8), ("sre16x16", 6), ("prap8x8", 4), ("tiny", 4)]
)
def test_the_exact_adc_holds_the_largest_sum(name: str, exact_bits: int) -> None:
    assert load_target(name).exact_adc_bits == exact_bits


def test_flipped_columns_save_one_adc_bit() -> None:
    assert load_target("isaac", {"weights.flip_columns": "false"}).exact_adc_bits == 9


def test_isaac_has_168_tiles_of_12_by_8_arrays() -> None:
    target = load_target("isaac")
    assert (target.cores, target.hierarchy.pes_per_core) == (168, 12)
    assert target.crossbars_per_core == 96


def part_counts(target: Target) -> dict[str, float]:
    """Return how many parts of each kind a core has; a router is shared by its cores."""
    crossbars, x = target.crossbars_per_core, target.crossbar
    return {
        "cell": crossbars * x.rows * x.columns,
        "row": crossbars * x.rows,
        "column": crossbars * x.columns,
        "crossbar": crossbars,
        "pe": target.hierarchy.pes_per_core,
        "core": 1,
        "router": 1 / target.hierarchy.concentration,
        "chip": 0,
    }


def test_the_parts_of_the_default_tile_add_up_to_the_published_area_and_leakage() -> None:
    target = load_target("ou9x8")
    counts = part_counts(target)
    area = sum(part.area_um2 * counts[part.per] for part in target.components.values())
    leak = sum(part.static_mw * counts[part.per] for part in target.components.values())
    area += target.adc_area_um2 * target.crossbars_per_core
    leak += target.adc_static_mw * target.crossbars_per_core
    assert area == pytest.approx(283_091, rel=1e-4)  # um2; cost-models 7.1
    assert area * target.cores * 1e-6 == pytest.approx(40.8, abs=0.05)  # mm2
    assert leak * target.cores * 1e-3 == pytest.approx(1.24, abs=0.005)  # W


def test_one_fire_of_the_default_ou_costs_the_published_energy() -> None:
    target = load_target("ou9x8")
    events = target.events
    per_row = events.word_line_drive.energy_pj + events.row_select.energy_pj
    per_column = target.adc_energy_pj + events.shift_add.energy_pj + events.sample_hold.energy_pj
    # half of the inputs are 1, half of the cells are in the low-resistance state
    array = 72 / 4 * (events.cell_read_lrs.energy_pj + events.cell_read_hrs.energy_pj)
    assert 9 * per_row + array + 8 * per_column == pytest.approx(2.280, abs=0.002)


@pytest.mark.parametrize("name", ["ou9x8", "sre16x16"])
def test_cell_energies_follow_from_the_device(name: str) -> None:
    target = load_target(name)
    device = target.device
    read_pj = device.read_voltage_v**2 * device.read_ns * 1e3
    write_pj = device.write_voltage_v**2 * device.write_ns * 1e3
    events = target.events
    assert events.cell_read_lrs.energy_pj == pytest.approx(read_pj / device.lrs_ohm, rel=0.01)
    assert events.cell_read_hrs.energy_pj == pytest.approx(read_pj / device.hrs_ohm, rel=0.01)
    assert events.cell_set.energy_pj == pytest.approx(write_pj / device.lrs_ohm, rel=0.01)
    assert events.cell_reset.energy_pj == pytest.approx(write_pj / device.hrs_ohm, rel=0.01)


def test_adc_energy_follows_the_scaling_rule() -> None:
    for bits, energy in load_target("ou9x8").adc.energy_pj.items():
        b = int(bits)
        milliwatt = 2.0 * (2**b / (b + 1)) / (2**8 / 9)
        assert energy == pytest.approx(milliwatt / 1.2, rel=1e-3)


def test_an_override_takes_effect_and_says_so() -> None:
    target = load_target(
        "tiny", {"ou.rows": "2", "name": "mine", "accumulation.routing": "per-bit"}
    )
    assert (target.ou.rows, target.name, target.accumulation.routing) == (2, "mine", "per-bit")
    assert target.sources["ou.rows"] == "override"
    assert target.sha256 != load_target("tiny").sha256


def test_the_hash_ignores_the_order_of_keys() -> None:
    target = load_target("tiny")
    document = json.loads(target.to_json())
    shuffled = json.dumps(dict(reversed(document.items())))
    assert Target.from_json(shuffled).sha256 == target.sha256


def test_all_errors_of_a_file_come_at_once_each_at_its_line(chip: Path) -> None:
    chip.write_text(
        'extends = "ou9x8"\n'
        "schema = 2\n"
        'name = "bad"\n'
        "[crossbar]\n"
        "rowz = 12\n"
        'columns = "8"\n'
        "[ou]\n"
        "columns = 4.5\n"
        "[adc]\n"
        "bits = 12\n"
        "[adc.sources]\n"
        'bits = "x"\n'
    )
    found = [(d.code, d.at.line if d.at else None) for d in refused(chip)]
    assert found == [
        ("T106", 2),
        ("T104", 5),
        ("T106", 6),
        ("T106", 8),
        ("T108", 8),
        ("T107", 10),
        ("T107", 10),
    ]


def test_a_mistyped_key_is_shown_with_caret_and_suggestion(chip: Path) -> None:
    chip.write_text('extends = "ou9x8"\nschema = 1\nname = "n"\n[crossbar]\n  rowz = 12\n')
    (finding,) = refused(chip)
    assert finding.render() == (
        "error[T104]: unknown key `crossbar.rowz`\n"
        f"  --> {chip}:5:3\n"
        "   5 |   rowz = 12\n"
        "         ^^^^\n"
        "  hint: did you mean `rows`?"
    )


def test_a_key_in_the_wrong_table_is_shown_its_right_one() -> None:
    (finding,) = refused("tiny", {"ou.cell_bits": "2"})
    assert finding.hint == "there is `crossbar.cell_bits`"


def test_without_extends_every_missing_section_is_named(chip: Path) -> None:
    chip.write_text('schema = 1\nname = "empty"\n')
    findings = refused(chip)
    assert {d.code for d in findings} == {"T105"}
    missing = {d.message.split("`")[1] for d in findings}
    assert {"crossbar", "ou", "adc", "events", "technology_nm", "clock_ghz"} <= missing


def test_a_missing_key_points_at_its_table(chip: Path) -> None:
    text = load_target("tiny").to_toml()
    lines = [line for line in text.splitlines() if not line.startswith(("lanes", '"vector.lanes"'))]
    chip.write_text("\n".join(lines))
    (finding,) = refused(chip)
    assert (finding.code, finding.message) == ("T105", "`vector.lanes` is missing")
    assert finding.at is not None
    assert finding.at.text == "[vector]"


def test_a_restated_number_needs_its_own_source(chip: Path) -> None:
    chip.write_text('extends = "ou9x8"\nschema = 1\nname = "n"\n[ou]\nrows = 4\n')
    (finding,) = refused(chip)
    assert (finding.code, finding.message) == ("T108", "`ou.rows` has no source")
    chip.write_text(chip.read_text() + 'source = "measured"\n')
    target = load_target(chip)
    assert target.sources["ou.rows"] == "measured"
    assert target.sources["ou.columns"] == load_target("ou9x8").sources["ou.columns"]


def test_a_source_without_its_number_is_refused() -> None:
    document = json.loads(load_target("tiny").to_json())
    document["sources"]["ou.rowz"] = "somewhere"
    with pytest.raises(PimError) as caught:
        Target.from_json(json.dumps(document))
    (finding,) = caught.value.diagnostics
    assert (finding.code, finding.hint) == ("T108", "did you mean `ou.rows`?")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ou.rows", "33", "`ou.rows` is 33, but `crossbar.rows` is 32"),
        ("ou.columns", "33", "`crossbar.columns` is 32"),
        ("adc.bits", "11", "no entry for 11 bits"),
        ("accumulation.bits", "11", "one OU can sum up to 3060"),
        ("device.hrs_ohm", "5.0", "`device.lrs_ohm` is 10000"),
        ("hierarchy.mesh_width", "65536", "at most 65536"),
        ("memory.instruction_bytes", "4", "`memory.instruction_size_bytes` is 8"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(key: str, value: str, words: str) -> None:
    findings = refused("tiny", {key: value})
    assert {d.code for d in findings} == {"T107"}
    assert any(words in d.message for d in findings)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("crossbar.rows", "8.0", "a whole number"),
        ("crossbar.rows", "true", "a whole number"),
        ("crossbar.rows", "0", "at least 1"),
        ("crossbar.rows", "99999999999999999999", "at most 4096"),
        ("clock_ghz", "nan", "a finite number"),
        ("clock_ghz", "-1.0", "above 0"),
        ("weights.flip_columns", "1", "true or false"),
        ("accumulation.routing", "never", "'after-bits' or 'per-bit'"),
        ("name", '"../up"', "text like"),
    ],
)
def test_a_wrong_value_says_what_was_expected(key: str, value: str, expected: str) -> None:
    finding = next(d for d in refused("tiny", {key: value}) if d.code == "T106")
    assert f"`{key}`: expected {expected}" in finding.message
    assert finding.at is not None
    assert finding.at.text == f"{key}={value}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ou", "3"),
        ("ou.rows.x", "3"),
        ("", "3"),
        ("ou..rows", "3"),
        ("ou.rows", "[3]"),
        ("ou.rows", ""),
        ("ou.rows", "3\ncolumns = 4"),
        ("ou.rows", "9" * 5000),
    ],
)
def test_what_is_no_override_is_refused(key: str, value: str) -> None:
    assert [d.code for d in refused("tiny", {key: value})] == ["T109"]


def test_an_unknown_target_gets_a_suggestion() -> None:
    (finding,) = refused("ou8x9")
    assert (finding.code, finding.hint) == ("T101", "did you mean `ou9x8`?")


@pytest.mark.parametrize("name", ["", "\0", "x" * 5000, "isa"])
def test_a_strange_name_is_just_not_found(name: str) -> None:
    assert [d.code for d in refused(name)] == ["T101"]


def test_a_syntax_error_has_line_and_column(chip: Path) -> None:
    chip.write_text("schema = 1\nname = = 2\n")
    (finding,) = refused(chip)
    assert finding.code == "T103"
    assert finding.at is not None
    assert (finding.at.line, finding.at.column) == (2, 8)


@pytest.mark.parametrize(
    "text", ["a = [1,", 'a = "', "[", "a = " + "[" * 5000, "a = " + "9" * 5000]
)
def test_a_cut_or_monstrous_text_is_a_syntax_error(text: str, chip: Path) -> None:
    chip.write_text(text)
    assert [d.code for d in refused(chip)] == ["T103"]


def test_a_huge_file_is_refused_before_parsing(chip: Path) -> None:
    chip.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert [d.code for d in refused(chip)] == ["T102"]


def test_a_binary_file_is_refused(chip: Path) -> None:
    chip.write_bytes(b'name = "\xff\xfe"')
    assert [d.code for d in refused(chip)] == ["T102"]


@pytest.mark.parametrize("base", ['"nowhere"', "3", '"../ou9x8"'])
def test_only_a_shipped_target_can_be_extended(base: str, chip: Path) -> None:
    chip.write_text(f'extends = {base}\nschema = 1\nname = "n"\n')
    (finding,) = refused(chip)
    assert finding.code == "T106"
    assert finding.at is not None
    assert finding.at.line == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_json_that_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(PimError) as caught:
        Target.from_json(text, "target.json")
    assert [d.code for d in caught.value.diagnostics] == ["T103"]


@given(st.integers(1, 5000))
def test_a_resized_mesh_holds_the_cores_and_wastes_less_than_a_row(cores: int) -> None:
    for name in ("ou9x8", "tiny"):
        target = load_target(name).with_cores(cores)
        h = target.hierarchy
        assert cores <= target.cores < cores + h.concentration * (h.mesh_width + 1)
        assert 0 <= h.mesh_width - h.mesh_height <= 1
        assert Target.from_json(target.to_json()) == target


def test_a_mesh_grows_only_when_it_must() -> None:
    target = load_target("tiny")
    assert target.with_mesh(16) is target
    assert target.with_mesh(17).cores >= 17
    assert "17 cores" in target.with_mesh(17).sources["hierarchy.mesh_width"]


@pytest.mark.parametrize("cores", [0, -1, 1 << 20])
def test_an_impossible_number_of_cores_is_refused(cores: int) -> None:
    with pytest.raises(PimError, match="T107"):
        load_target("tiny").with_cores(cores)


def test_hops_are_counted_between_routers() -> None:
    target = load_target("ou9x8")  # 6 x 6 routers, 4 cores each
    assert target.router_of(4 * 7) == (1, 1)
    assert target.hops(0, 3) == 1  # one router
    assert target.hops(0, 4 * 7) == 2
    assert max(target.hops(0, core) for core in range(target.cores)) == 10


def test_a_target_cannot_be_changed() -> None:
    target = load_target("tiny")
    with pytest.raises(ValueError, match="frozen"):
        target.ou.rows = 3  # type: ignore[misc]


def test_the_schema_describes_every_key() -> None:
    def undescribed(schema: Mapping[str, Any]) -> set[str]:
        return {name for name, model in schema["$defs"].items() if "description" not in model}

    schema = target_schema()
    assert schema["additionalProperties"] is False
    always = set(json.loads(load_target("tiny").to_json()))
    assert set(schema["properties"]) == always | {"nonideal"}
    assert undescribed(schema) == set()


def test_the_locator_finds_keys_whatever_their_spelling() -> None:
    text = 'a.b = 1\n[ c . "d" ]\n"e" = """\nx = 2\n"""\n  f=3\n[[g]]\nh = {i = 1}\n'
    places = {path: place[:2] for path, place in parse_toml(text, "f").places.items()}
    assert places == {
        "a.b": (1, 1),
        "c.d": (2, 3),
        "c.d.e": (3, 1),
        "c.d.f": (6, 3),
        "g": (7, 3),
        "g.h": (8, 1),
    }


def test_a_cycle_lasts_the_inverse_of_the_clock() -> None:
    assert math.isclose(load_target("ou9x8").cycle_ns, 0.83333, rel_tol=1e-4)


def test_an_ideal_device_is_not_written() -> None:
    target = load_target("ou9x8")
    assert "nonideal" not in target.to_json()
    same = target.with_nonideal({"programming.sigma": "0", "adc.gain": "1"})
    assert same.nonideal.is_ideal
    assert not target.with_nonideal({"read.sigma": "0.1"}).nonideal.is_ideal


def test_a_non_ideal_device_is_written_and_read_back(chip: Path) -> None:
    numbers_set = {"programming.sigma": "0.05", "adc.inl_lsb.3": "0.2", "faults.map": "a.npz"}
    target = load_target("tiny").with_nonideal(numbers_set)
    chip.write_text(target.to_toml(), encoding="utf-8")
    for again in (Target.from_json(target.to_json()), load_target(chip)):
        assert again == target
        assert again.sha256 == target.sha256 != load_target("tiny").sha256


def test_wrong_numbers_of_a_device_are_shown_at_their_lines(chip: Path) -> None:
    chip.write_text(
        'extends = "ou9x8"\nschema = 1\nname = "x"\n[nonideal]\nsource = "test"\n'
        "[nonideal.programming]\nsgma = 0.1\n[nonideal.faults]\nstuck_at_0 = 0.7\n"
        'stuck_at_1 = 0.7\n[nonideal.adc]\nrange = "wide"\n[nonideal.drift]\ntime_s = 0\n'
    )
    found = {d.code: (d.at.line if d.at else None, d.hint) for d in refused(chip)}
    assert found["T104"] == (7, "did you mean `sigma`?")
    assert found["T107"][0] == 9
    assert sorted(d.at.line or 0 for d in refused(chip) if d.code == "T106" and d.at) == [12, 14]
    with pytest.raises(PimError, match=r"T104.*unknown key `nonideal.read.sgma`"):
        load_target("tiny").with_nonideal({"read.sgma": "0.1"})
