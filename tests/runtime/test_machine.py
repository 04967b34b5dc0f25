"""The machine: hand-made programs over cores, rings and channels, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.catalog import CATALOG, Load, Mvm, Recv, Requant, Send, Store
from isa.diagnostics import PimError
from isa.matrix import BlockMatrix
from isa.operands import Affine, Region, Span
from isa.program import (
    DTYPES,
    Buffer,
    Channel,
    Core,
    Loop,
    Matrix,
    Program,
    Shape,
    Statement,
    Table,
    Tensor,
)
from isa.target import Target, load_target
from runtime import machine as machine_module
from runtime.binding import EXECUTORS
from runtime.counters import Counters
from runtime.machine import Machine

Blocks = Callable[..., BlockMatrix]
Y = Affine(0, (("y", 1),))
CONV = (3, 3)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("ou9x8")


def tensor(role: str, name: str, dtype: str, shape: Shape) -> Tensor:
    return Tensor(role, name, dtype, shape, name, shape, (0, 1, 2))


def at(name: str, row: Affine | int, rows: int = 1) -> Region:
    start = row if isinstance(row, Affine) else Affine(row)
    return Region(name, Span(start, rows))


def two_cores(blocks: BlockMatrix, rows: int, columns: int, channels: int) -> Program:
    """Core 0 streams the rows of an image, core 1 convolves 3x3 from a ring of three rows."""
    outputs = blocks.outputs
    out_rows, windows = rows - 2, columns - 2
    source: tuple[Statement, ...] = (
        Loop("y", 0, rows, (Load(Region("row"), at("image", Y)), Send("rows", Region("row")))),
    )
    convolve: tuple[Statement, ...] = (
        Loop("y", 0, 2, (Recv(at("ring", Y), "rows"),)),
        Loop(
            "y",
            0,
            out_rows,
            (
                Recv(at("ring", Y + 2), "rows"),
                Mvm(Region("sums"), "weights", at("ring", Y, 3), kernel=CONV),
                Store(at("out", Y), Region("sums")),
            ),
        ),
    )
    return Program(
        "ou9x8",
        "",
        tensors=(
            tensor("input", "image", "s8", (rows, columns, channels)),
            tensor("output", "out", "s32", (out_rows, windows, outputs)),
        ),
        channels=(Channel("rows", 0, 1, "s8", (columns, channels), 2, 0, ("image", 0, channels)),),
        cores=(
            Core(0, "source", (), (Buffer("row", "s8", (1, columns, channels), 0),), source),
            Core(
                1,
                "conv",
                (Matrix("weights", "conv", (0, channels), (0, outputs), blocks),),
                (
                    Buffer("ring", "s8", (3, columns, channels), 0, ring=True),
                    Buffer("sums", "s32", (1, windows, outputs), 4096),
                ),
                convolve,
            ),
        ),
    )


def convolution(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over kernel positions of (x + 128) times the weights [3, 3, channels, outputs]."""
    u = image.astype(np.int64) + 128
    rows, columns = image.shape[1] - 2, image.shape[2] - 2
    return sum(  # type: ignore[return-value]
        u[:, i : i + rows, j : j + columns] @ weights[i, j] for i in range(3) for j in range(3)
    )


def conv_case(
    dense_blocks: Blocks, seed: int, images: int, rows: int = 7, columns: int = 6
) -> tuple[Program, np.ndarray, np.ndarray]:
    """A program, its input, and what it must give."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (3, 3, 2, 5))
    image = rng.integers(-128, 128, (images, rows, columns, 2)).astype(np.int8)
    program = two_cores(dense_blocks(weights.reshape(18, 5), 9), rows, columns, 2)
    return program, image, convolution(image, weights)


def test_every_instruction_has_an_executor() -> None:
    assert set(EXECUTORS) == set(CATALOG.values())


@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 4),
    rows=st.integers(3, 9),
    columns=st.integers(3, 8),
)
def test_rows_streamed_over_two_cores_convolve(
    dense_blocks: Blocks, target: Target, seed: int, images: int, rows: int, columns: int
) -> None:
    program, image, expected = conv_case(dense_blocks, seed, images, rows, columns)
    assert np.array_equal(Machine(program, target).run({"image": image}).outputs["out"], expected)


def test_a_machine_runs_again_from_a_clean_state(dense_blocks: Blocks, target: Target) -> None:
    program, image, expected = conv_case(dense_blocks, 1, 3)
    machine = Machine(program, target)
    for part in (slice(0, 3), slice(0, 1), slice(1, 3)):
        out = machine.run({"image": image[part]}).outputs["out"]
        assert np.array_equal(out, expected[part])


def test_batches_beyond_the_memory_bound_run_in_parts(
    dense_blocks: Blocks, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, image, expected = conv_case(dense_blocks, 2, 5)
    whole = Machine(program, target).run({"image": image}, trace=True)
    per_image = Machine(program, target)._bytes_per_image()
    monkeypatch.setattr(machine_module, "STATE_BYTES", 2 * per_image)
    parts = Machine(program, target).run({"image": image}, trace=True)
    assert np.array_equal(parts.outputs["out"], expected)
    assert np.array_equal(parts.tensors["image"], image)
    assert parts.counters == whole.counters


def test_a_traced_run_puts_tensors_together_from_messages(
    dense_blocks: Blocks, target: Target
) -> None:
    program, image, _ = conv_case(dense_blocks, 3, 2)
    result = Machine(program, target).run({"image": image}, trace=True)
    assert list(result.tensors) == ["image"]
    assert np.array_equal(result.tensors["image"], image)
    assert Machine(program, target).run({"image": image}).tensors == {}


def test_a_channel_that_carries_less_than_it_says_is_found(
    dense_blocks: Blocks, target: Target
) -> None:
    program, image, _ = conv_case(dense_blocks, 3, 1)
    inner = tensor("inner", "taller", "s8", (8, 6, 2))
    channel = replace(program.channels[0], carries=("taller", 0, 2))
    wrong = replace(program, tensors=(*program.tensors, inner), channels=(channel,))
    with pytest.raises(PimError, match=r"R712.*96 elements, but 84 were sent"):
        Machine(wrong, target).run({"image": image}, trace=True)


def test_clipping_gives_the_same_on_every_path(
    dense_blocks: Blocks, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, image, expected = conv_case(dense_blocks, 4, 3)
    narrow = target.model_copy(update={"adc": target.adc.model_copy(update={"bits": 2})})
    results = []
    for kernel in ("numpy", "auto"):
        monkeypatch.setenv("PIMC_KERNEL", kernel)
        results.append(Machine(program, narrow).run({"image": image}))
    assert np.array_equal(results[0].outputs["out"], results[1].outputs["out"])
    assert results[0].counters == results[1].counters
    assert results[0].counters.total().saturations > 0
    assert not np.array_equal(results[0].outputs["out"], expected)


@pytest.mark.parametrize("jobs", [2, 3, 9])
def test_the_number_of_jobs_changes_no_output_and_no_counter(
    dense_blocks: Blocks, target: Target, jobs: int
) -> None:
    program, image, _ = conv_case(dense_blocks, 4, 5)
    narrow = target.model_copy(update={"adc": target.adc.model_copy(update={"bits": 2})})
    one = Machine(program, narrow).run({"image": image}, trace=True)
    many = Machine(program, narrow).run({"image": image}, trace=True, jobs=jobs)
    assert np.array_equal(one.outputs["out"], many.outputs["out"])
    assert one.tensors.keys() == many.tensors.keys()
    assert all(np.array_equal(one.tensors[name], many.tensors[name]) for name in one.tensors)
    assert one.counters == many.counters
    assert one.counters.total().saturations > 0


@pytest.mark.parametrize("split", [(1, 4), (2, 3), (1, 1, 1, 1, 1)])
def test_the_split_into_batches_changes_no_output_and_no_counter(
    dense_blocks: Blocks, target: Target, split: tuple[int, ...]
) -> None:
    program, image, _ = conv_case(dense_blocks, 4, 5)
    narrow = target.model_copy(update={"adc": target.adc.model_copy(update={"bits": 2})})
    machine = Machine(program, narrow)
    whole = machine.run({"image": image})
    counters, outputs = Counters(images=0), []
    for part in np.split(image, np.cumsum(split)[:-1]):
        result = machine.run({"image": part})
        counters.add(result.counters)
        outputs.append(result.outputs["out"])
    assert np.array_equal(np.concatenate(outputs), whole.outputs["out"])
    assert counters == whole.counters


def test_an_error_in_a_process_is_the_error_of_the_run(
    dense_blocks: Blocks, target: Target
) -> None:
    program, image, _ = conv_case(dense_blocks, 3, 2)
    inner = tensor("inner", "taller", "s8", (8, 6, 2))
    channel = replace(program.channels[0], carries=("taller", 0, 2))
    wrong = replace(program, tensors=(*program.tensors, inner), channels=(channel,))
    with pytest.raises(PimError, match=r"R712.*96 elements, but 84 were sent"):
        Machine(wrong, target).run({"image": image}, trace=True, jobs=2)


def test_a_process_that_dies_is_reported(
    dense_blocks: Blocks, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, image, _ = conv_case(dense_blocks, 3, 2)
    monkeypatch.setattr(Machine, "_run_chunk", lambda *arguments: os._exit(9))
    with pytest.raises(PimError, match=r"R721.*ended before its images were done"):
        Machine(program, target).run({"image": image}, jobs=2)


def test_the_slices_of_a_small_scratch_give_the_same(
    dense_blocks: Blocks, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, image, expected = conv_case(dense_blocks, 5, 5)
    monkeypatch.setattr("runtime.state.SCRATCH_BYTES", 2 * 4 * 18)  # two images at a time
    assert np.array_equal(Machine(program, target).run({"image": image}).outputs["out"], expected)


def test_counters_follow_from_the_text(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 6, 3, rows=7, columns=6)
    counters = Machine(program, target).run({"image": image}).counters
    conv, source = counters.layers["conv"], counters.layers["source"]
    windows = 3 * 5 * 4  # images x rows x columns
    assert conv.windows == windows
    assert conv.conversions == windows * 8 * 2 * 40  # bits x row groups x stored columns
    assert conv.route_adds == windows * 2 * 40
    assert conv.received_bytes == source.sent_bytes == source.loaded_bytes == 3 * 7 * 6 * 2
    assert conv.stored_bytes == windows * 5 * 4
    assert counters.executed == {"load": 21, "send": 21, "recv": 21, "mvm": 15, "store": 15}
    assert counters.as_json()["total"] == counters.total().as_json()


def test_wrong_inputs_are_reported_all_at_once(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 7, 2)
    second = tensor("input", "mask", "u8", (1, 1, 4))
    machine = Machine(replace(program, tensors=(*program.tensors, second)), target)
    with pytest.raises(PimError) as caught:
        machine.run({"image": image.astype(np.float32), "picture": image})
    assert [d.message for d in caught.value.diagnostics] == [
        "the program has no input `picture`",
        "input `image`: expected int8 [images, 7, 6, 2], found float32 [2, 7, 6, 2]",
        "input `mask` is missing",
    ]
    assert caught.value.exit_code == 3


def test_inputs_must_agree_in_their_number_of_images(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 7, 2)
    second = tensor("input", "mask", "u8", (1, 1, 4))
    machine = Machine(replace(program, tensors=(*program.tensors, second)), target)
    with pytest.raises(PimError, match=r"R701.*number of images: `image` 2, `mask` 3"):
        machine.run({"image": image, "mask": np.zeros((3, 1, 1, 4), np.uint8)})
    with pytest.raises(PimError, match=r"R701.*`image` has no images"):
        machine.run({"image": image[:0], "mask": np.zeros((0, 1, 1, 4), np.uint8)})


def test_a_deadlock_names_core_instruction_and_channel(
    dense_blocks: Blocks, target: Target
) -> None:
    program, image, _ = conv_case(dense_blocks, 8, 1)
    source, conv = program.cores
    greedy = replace(conv, body=(*conv.body, Recv(at("ring", 0), "rows")))
    with pytest.raises(PimError, match=r"R711.*core 1 waits at `recv`.*`rows` \(0 of 2"):
        Machine(replace(program, cores=(source, greedy)), target).run({"image": image})
    silent = replace(conv, body=())
    with pytest.raises(PimError, match=r"core 0 waits at `send`.*\(2 of 2 messages\) with y = 2"):
        Machine(replace(program, cores=(source, silent)), target).run({"image": image})


def test_a_message_of_another_size_is_refused(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 8, 1)
    source, conv = program.cores
    half = Region("row", None, Span(Affine(), 3))
    body = (Loop("y", 0, 7, (Load(Region("row"), at("image", Y)), Send("rows", half))),)
    with pytest.raises(PimError, match=r"R712.*expects 12 elements, message 0 has 6"):
        Machine(replace(program, cores=(replace(source, body=body), conv)), target).run(
            {"image": image}
        )


def test_a_row_outside_its_tensor_is_refused(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 8, 1)
    source, conv = program.cores
    body = (Loop("y", 0, 8, (Load(Region("row"), at("image", Y)), Send("rows", Region("row")))),)
    with pytest.raises(PimError, match=r"R710.*`image\[y\]`: rows 7\.\.8 are outside 0\.\.7"):
        Machine(replace(program, cores=(replace(source, body=body), conv)), target).run(
            {"image": image}
        )


def test_an_undeclared_name_is_refused(dense_blocks: Blocks, target: Target) -> None:
    program, image, _ = conv_case(dense_blocks, 8, 1)
    source, conv = program.cores
    nameless = replace(conv, matrices=())
    with pytest.raises(PimError, match=r"R713\]: core 1, `mvm`: `weights` is not declared"):
        Machine(replace(program, cores=(source, nameless)), target).run({"image": image})


@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["s8", "u8"]))
def test_mvm_and_requant_equal_onnxruntime(
    dense_blocks: Blocks, target: Target, seed: int, dtype: str
) -> None:
    """QLinearMatMul of s8 x s8 or u8 x s8 with per-column scales, saturating often."""
    rng = np.random.default_rng(seed)
    inputs, outputs = (int(n) for n in rng.integers(1, 40, 2))
    kind = DTYPES[dtype]
    x = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (3, inputs)).astype(kind)
    bound = 128 if dtype == "s8" else 64  # u8 x s8 is exact in onnxruntime with 7-bit weights
    weights = rng.integers(-bound, bound, (inputs, outputs)).astype(np.int8)
    zero_x, zero_y = (int(z) for z in rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, 2))
    scale_x, scale_y = (np.float32(s) for s in rng.uniform(0.001, 0.1, 2))
    scale_w = rng.uniform(0.001, 0.1, outputs).astype(np.float32)
    node = onnx.helper.make_node(
        "QLinearMatMul", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"]
    )
    constants = {
        "sx": scale_x,
        "zx": np.array(zero_x, kind),
        "w": weights,
        "sw": scale_w,
        "zw": np.zeros(outputs, np.int8),
        "sy": scale_y,
        "zy": np.array(zero_y, kind),
    }
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = onnx.helper.make_graph(
        [node],
        "matmul",
        [onnx.helper.make_tensor_value_info("x", element, [3, inputs])],
        [onnx.helper.make_tensor_value_info("y", element, [3, outputs])],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)]
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": x})

    offset = 128 if dtype == "s8" else 0
    bias = -(offset + zero_x) * weights.astype(np.int64).sum(axis=0)
    scale = scale_x * scale_w / scale_y
    program = Program(
        "ou9x8",
        "",
        tensors=(
            tensor("input", "x", dtype, (1, 1, inputs)),
            tensor("output", "y", dtype, (1, 1, outputs)),
        ),
        tables=(Table("bias", "s32", bias.astype(np.int32)), Table("scale", "f32", scale)),
        cores=(
            Core(
                0,
                "fc",
                (Matrix("w", "fc", (0, inputs), (0, outputs), dense_blocks(weights, 9)),),
                (
                    Buffer("in", dtype, (1, 1, inputs), 0),
                    Buffer("sums", "s32", (1, 1, outputs), 256),
                    Buffer("out", dtype, (1, 1, outputs), 512),
                ),
                (
                    Load(Region("in"), Region("x")),
                    Mvm(Region("sums"), "w", Region("in")),
                    Requant(Region("out"), Region("sums"), "bias", "scale", zero_y),
                    Store(Region("y"), Region("out")),
                ),
            ),
        ),
    )
    out = Machine(program, target).run({"x": x[:, None, None]}).outputs["y"]
    assert np.array_equal(out[:, 0, 0], expected)
