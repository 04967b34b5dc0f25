"""Programs of one model for several input shapes: one quantization, shared weights, each proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from support.shapes import LONGEST, attention, image_net, images, sentences, tagger

import pimc
from isa.diagnostics import PimError
from isa.target import load_target
from pimc.driver import CompileOptions
from pimc.shapes import sharing

SIZES = st.tuples(st.integers(3, 9), st.integers(3, 9))


def shape(size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    return {"x": (1, 3, *size)}


@pytest.fixture(scope="module")
def program() -> pimc.Shapes:
    data = [images(4, 8, 8), images(4, 5, 7, seed=2)]
    return pimc.compile_shapes(image_net(), [shape((8, 8)), shape((5, 7))], calibration=data)


def scales(compiled: pimc.Program) -> dict[str, float]:
    return {t.onnx_name: t.scale for t in compiled.program.tensors}


@settings(max_examples=4, deadline=None)
@given(st.lists(SIZES, min_size=2, max_size=3, unique=True), st.integers(0, 9))
def test_every_program_equals_onnxruntime_and_has_the_cells_of_the_first(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    data = [images(2, *size, seed) for size in sizes]
    held = pimc.compile_shapes(image_net(seed), [shape(s) for s in sizes], calibration=data)
    for samples, one in zip(data, held.programs, strict=True):
        assert held.verify(samples)["equal"]
        assert scales(one) == scales(held.programs[0])
    assert held.report["shared"]["same_cells"]
    assert held.report["shared"]["own_bytes"] == 0


def test_the_first_program_is_what_compiling_its_shape_alone_gives() -> None:
    data = images(4, 8, 8)
    several = pimc.compile_shapes(image_net(), [shape((8, 8)), shape((5, 7))], calibration=[data])
    alone = pimc.compile(image_net(), calibration=data, input_shapes=shape((8, 8)))
    assert several.programs[0].text() == alone.text()


def test_the_program_is_chosen_by_the_shape_of_the_samples(program: pimc.Shapes) -> None:
    for at, size in enumerate(((8, 8), (5, 7))):
        feeds = images(3, *size, seed=5)
        assert program.program_for(feeds) is program.programs[at]
        np.testing.assert_array_equal(program.run(feeds)["y"], program.programs[at].run(feeds)["y"])
    with pytest.raises(PimError) as caught:
        program.run(images(3, 6, 6))
    (finding,) = caught.value.diagnostics
    assert finding.code == "R706"
    for said in ("`x` [3, 3, 6, 6]", "`x=1,3,8,8`", "`x=1,3,5,7`"):
        assert said in finding.message


def test_what_is_saved_is_loaded_with_one_copy_of_the_arrays(
    tmp_path: Path, program: pimc.Shapes
) -> None:
    program.save(tmp_path / "net.pim")
    again = pimc.load_shapes(tmp_path / "net.pim")
    assert again.shapes == program.shapes
    feeds = images(3, 5, 7, seed=5)
    np.testing.assert_array_equal(again.run(feeds)["y"], program.run(feeds)["y"])
    assert again.verify(feeds)["equal"]
    blocks = [[m.blocks for m in held.program.matrices()] for held in again.programs]
    assert all(a.cells is b.cells for a, b in zip(*blocks, strict=True))
    alone = pimc.load(tmp_path / "net.pim" / "shape-1")
    np.testing.assert_array_equal(alone.run(feeds)["y"], program.run(feeds)["y"])
    assert alone.verify(feeds)["equal"]
    with pytest.raises(PimError, match="C514"):
        pimc.load(tmp_path / "net.pim")


def test_weights_of_the_reference_models_are_stored_once(
    tmp_path: Path, program: pimc.Shapes
) -> None:
    program.save(tmp_path / "net.pim")
    large = image_net().graph.initializer[2]
    elements = int(np.prod(large.dims))
    files = [tmp_path / "net.pim" / name for name in ("reference-0.onnx", "reference-1.onnx")]
    stored = (tmp_path / "net.pim" / "reference.weights").stat().st_size
    assert elements <= stored < 2 * elements
    for file, held in zip(files, program.programs, strict=True):
        model = onnx.load(file)
        onnx.checker.check_model(model)
        assert held.reference is not None
        for ours, theirs in zip(
            model.graph.initializer, held.reference.graph.initializer, strict=True
        ):
            np.testing.assert_array_equal(
                numpy_helper.to_array(ours), numpy_helper.to_array(theirs)
            )


def test_samples_of_one_shape_give_the_scales_of_all() -> None:
    data = images(4, 8, 8)
    held = pimc.compile_shapes(image_net(), [shape((5, 7)), shape((8, 8))], calibration=[data])
    alone = pimc.compile(image_net(), calibration=data, input_shapes=shape((8, 8)))
    assert scales(held.programs[0]) == scales(held.programs[1]) == scales(alone)


def test_the_widest_range_of_all_samples_counts() -> None:
    small, large = images(4, 8, 8), {"x": 3 * images(4, 5, 7)["x"]}
    shapes = [shape((8, 8)), shape((5, 7))]
    held = pimc.compile_shapes(image_net(), shapes, calibration=[small, large])
    alone = pimc.compile(image_net(), calibration=large, input_shapes=shapes[1])
    assert scales(held.programs[0])["x"] == scales(alone)["x"]


def test_sample_sets_of_one_shape_are_joined() -> None:
    first, second = images(4, 8, 8), images(4, 8, 8, seed=3)
    both = {"x": np.concatenate([first["x"], second["x"]])}
    shapes = [shape((8, 8)), shape((5, 7))]
    held = pimc.compile_shapes(image_net(), shapes, calibration=[first, second])
    assert scales(held.programs[0]) == scales(
        pimc.compile(image_net(), calibration=both, input_shapes=shapes[0])
    )


def test_tensors_that_depend_on_the_shape_are_the_only_arrays_of_single_programs() -> None:
    sizes = (4, LONGEST)
    wanted = [{"ids": (1, size), "mask": (1, size)} for size in sizes]
    data = [sentences(4, size) for size in sizes]
    held = pimc.compile_shapes(tagger(), wanted, calibration=data)
    for samples in data:
        assert held.verify(samples)["equal"]
    tables = [{t.name: t.values.nbytes for t in p.program.tables} for p in held.programs]
    differing = {n for n in tables[0].keys() & tables[1].keys() if tables[0][n] != tables[1][n]}
    assert differing, "the places of 4 and of 12 tokens"
    assert held.report["shared"]["same_cells"]


@pytest.mark.parametrize("calibrated", [(4, 9), (4,), (9,), (1, 9)])
def test_masks_leave_the_scores_of_every_shape_their_steps(calibrated: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    sizes = tuple(sorted({*calibrated, 4, 9}))
    data = {n: {"x": rng.normal(size=(16, n, 8)).astype(np.float32)} for n in sizes}
    held = pimc.compile_shapes(
        attention(),
        [{"x": (1, n, 8)} for n in sizes],
        calibration=[data[n] for n in calibrated],
    )
    for n in sizes:
        found = held.verify(data[n])
        assert found["equal"]
        assert found["float_sqnr_db"] > 20


def test_samples_of_no_shape_and_unknown_shapes_are_refused_by_name() -> None:
    shapes = [shape((8, 8)), shape((5, 7))]
    with pytest.raises(PimError, match=r"F220.*`x` \[4, 3, 6, 6\] is of none"):
        pimc.compile_shapes(image_net(), shapes, calibration=[images(4, 6, 6)])
    with pytest.raises(PimError, match=r"F207.*\(with --input-shape z=1,2\)"):
        pimc.compile_shapes(image_net(), [*shapes, {"z": (1, 2)}])
    with pytest.raises(PimError, match=r"F205.*`height`"):
        pimc.compile(image_net())


@pytest.mark.parametrize("mapping", ["best", "pattern-dedup"])
def test_a_search_for_mappings_is_made_once_for_all_shapes(mapping: str) -> None:
    data = images(4, 8, 8)
    shapes = [shape((8, 8)), shape((3, 3))]
    options = CompileOptions(mapping=mapping, tiles="auto")
    held = pimc.compile_shapes(
        image_net(), shapes, calibration=[data, images(4, 3, 3)], options=options
    )
    assert held.report["shared"]["same_cells"]
    assert held.verify(images(4, 3, 3))["equal"]
    assert len({p.target.sha256 for p in held.programs}) == 1


def test_phases_of_several_shapes_run(tmp_path: Path) -> None:
    data = [images(4, 8, 8), images(4, 5, 7)]
    sizes = {"mesh_width": "1", "mesh_height": "1", "concentration": "2"}
    chip = load_target("ou9x8").with_overrides({f"hierarchy.{k}": v for k, v in sizes.items()})
    wanted = [shape((8, 8)), shape((5, 7))]
    options = CompileOptions(phases="auto")
    held = pimc.compile_shapes(image_net(), wanted, chip, data, options)
    assert all(p["phases"] > 1 for p in held.report["shapes"])
    assert not held.report["shared"]["same_cells"]
    held.save(tmp_path / "net.pim")
    again = pimc.load_shapes(tmp_path / "net.pim")
    for samples in data:
        assert again.verify(samples)["equal"]
    assert sharing([p.whole for p in again.programs]) == held.report["shared"]
