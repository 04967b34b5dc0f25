"""The crossbar kernel against NumPy and onnxruntime, on the same work, in one run, one thread.

    python -m benchmarks.kernel [--json] [--large]

The work: a matrix-vector product of 8-bit inputs with 8-bit weights. pimc does it as a crossbar
does, 9 word lines at a time in 1-bit cells, exactly: with a wide ADC ("proved"), or with a 3-bit
ADC that saturates ("clipped", and the methods it falls back to, forced). The others have no
crossbar model. CPU time, best of several; read the ratios, since a loaded machine moves both.
"All clip" has every cell set and large inputs, so that most conversions saturate. Of whole
networks a rate is images; --large adds resnet50 at 224 x 224 (a minute, 2 GB). Public simulators
are timed where they are installed (`peers.py`). At the end, how many times as fast pimc is on the
job of each, and what `BARS` asks for, met or not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers import PEERS, is_installed, peer_calls
from benchmarks.whole_network import IMAGES, REFERENCE, light_calls, network_calls, resnet20_calls
from isa.matrix import BlockMatrix
from isa.program import Core, Matrix
from isa.target import load_target
from passes.ou_tile import ou_tile
from passes.weights import LayerWeights
from runtime.analog import Place, analog_matrix, analog_product
from runtime.analog_paths import AnalogCrossbars
from runtime.crossbar import block_product
from runtime.device import Device, Faults, effective_cells
from runtime.kernel import choose_kernel, describe_kernel
from runtime.paths import Crossbars

REPEATS = 7
LEAST_SECONDS = 0.02  # of one timing, so that the clock's grain does not matter


@dataclass(frozen=True)
class Row:
    """One contender on one shape. seconds: CPU time of one call. ratio: to pimc proved."""

    shape: str
    contender: str
    seconds: float
    mvm_per_s: float
    gmac_per_s: float
    ratio: float = 1.0


@dataclass(frozen=True)
class Bar:
    """What one row must reach.

    At least ``mvm_per_s``, at most ``milliseconds``, ``image_ms`` an image, or ``times`` the
    seconds of onnxruntime on the same integer model.
    """

    shape: str
    contender: str
    mvm_per_s: float = 0.0
    milliseconds: float = float("inf")
    image_ms: float = float("inf")
    times: float = float("inf")

    def is_met(self, row: Row, reference: Row | None) -> bool:
        return (
            row.mvm_per_s >= self.mvm_per_s
            and row.seconds * 1e3 <= self.milliseconds
            and 1e3 / row.mvm_per_s <= self.image_ms
            and (reference is None or row.seconds <= self.times * reference.seconds)
        )

    def __str__(self) -> str:
        limits = (
            (f"at least {self.mvm_per_s:,.0f} MVM/s", self.mvm_per_s > 0),
            (f"at most {self.milliseconds} ms", self.milliseconds < float("inf")),
            (f"at most {self.image_ms} ms an image", self.image_ms < float("inf")),
            (f"at most {self.times} times onnxruntime", self.times < float("inf")),
        )
        return ", ".join(text for text, is_asked in limits if is_asked)


BARS = (
    Bar("128x128, batch 1", "pimc clipped 3 bit", mvm_per_s=60_000),
    Bar("128x128, batch 1024", "pimc clipped 3 bit", mvm_per_s=600_000),
    Bar("128x128, batch 1024, all clip", "pimc clipped 3 bit", mvm_per_s=600_000),
    Bar("3x3x64->64 on 32x32", "pimc clipped 3 bit", milliseconds=2.5),
    Bar("3x3x64->64 on 32x32", "pimc proved", milliseconds=0.5),
    Bar("ResNet-20, 1 image", "pimc proved", image_ms=2),
    Bar("ResNet-20, 1 image", "pimc clipped 3 bit", image_ms=6),
    Bar("ResNet-20, 64 images", "pimc proved", image_ms=2),
    Bar("ResNet-20, 64 images", "pimc clipped 3 bit", image_ms=6),
    Bar("resnet50, 1 image", "pimc proved", times=3),
    Bar("resnet50, 1 image", "pimc clipped 3 bit", times=12),
)
SAME_JOB = {  # what pimc calls the job that a peer does; aihwkit's is the smaller one
    "CrossSim": "pimc clipped 3 bit",
    "CrossSim, static 5 %": "pimc clipped 3 bit, static 5 %",
    "CrossSim, read noise 10 %": "pimc clipped 3 bit, read noise 10 %",
    "aihwkit, no bits or slices": "pimc clipped 3 bit",
    "aihwkit, no bits or slices, with noise": "pimc clipped 3 bit, read noise 10 %",
}


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call, best of REPEATS."""
    start = time.process_time()
    call()
    calls = max(1, int(LEAST_SECONDS / max(time.process_time() - start, 1e-6)))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(calls):
            call()
        best = min(best, (time.process_time() - start) / calls)
    return best


def crossbar_calls(
    weights: NDArray[np.int32], u: NDArray[np.uint8], kernel_size: int
) -> dict[str, Callable[[], object]]:
    """pimc's ways, each checked against the oracle before it is timed."""
    target = load_target("ou9x8")
    # as the compiler orders them: a kernel of one input channel is nine neighbours
    rows = np.arange(len(weights), dtype=np.int32).reshape(kernel_size, -1).T.reshape(1, -1)
    layer = LayerWeights(len(weights), kernel_size, rows, weights[rows].astype(np.int16))
    blocks = ou_tile(layer, target)
    kernel = choose_kernel({})
    calls: dict[str, Callable[[], object]] = {}
    ways = [("pimc proved", 15, "auto"), ("pimc clipped 3 bit", 7, "auto")]
    if kernel.extension is not None:
        ways += [
            (f"pimc clipped 3 bit, {path}", 7, path) for path in ("sliced", "table", "popcount")
        ]
    for name, adc_max, path in ways:
        crossbars = Crossbars(blocks, adc_max, replace(kernel, path=path))
        out = np.empty((len(u), weights.shape[1]), np.int32)
        check = u[:64].copy()
        expected, saturated = block_product(check, blocks, adc_max)
        found = np.empty_like(expected)
        if crossbars.multiply(check, found) != saturated or not np.array_equal(found, expected):
            raise SystemExit(f"{name} differs from the oracle")
        calls[name] = partial(crossbars.multiply, u, out)
    return calls | device_calls(blocks, u)


def device_calls(blocks: BlockMatrix, u: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
    """The 3-bit ADC on devices with imperfections, each checked against the oracle."""
    devices = {
        "static 5 %": {"programming.sigma": "0.05"},
        "static 10 %": {"programming.sigma": "0.1"},
        "read noise 10 %": {"programming.sigma": "0.05", "read.sigma": "0.1"},
    }
    layer = Matrix("w", "w", (0, blocks.inputs), (0, blocks.outputs), blocks)
    calls: dict[str, Callable[[], object]] = {}
    for name, numbers in devices.items():
        device = Device(load_target("ou9x8", {"adc.bits": "3"}).with_nonideal(numbers))
        cells = effective_cells(Core(0, "w", (layer,), (), ()), device, Faults(device))["w"]
        matrix = analog_matrix(blocks, cells, device, (0, "w"))
        crossbars = AnalogCrossbars(matrix, choose_kernel({}))
        out = np.empty((len(u), blocks.outputs), np.int32)
        check, place = u[:64].copy(), Place(windows=max(1, len(u)))
        expected, saturated = analog_product(check, matrix, place)
        found = np.empty_like(expected)
        if crossbars.multiply(check, found, place) != saturated or (found != expected).any():
            raise SystemExit(f"{name} differs from the oracle")
        calls[f"pimc clipped 3 bit, {name}"] = partial(crossbars.multiply, u, out, place)
    return calls


def onnx_session(op: str, weights: NDArray[np.int32], windows: int) -> Callable[[], object]:
    """onnxruntime's integer matrix product of u8 with s8, its fastest with VNNI, one thread."""
    constants: dict[str, object] = {"w": weights.astype(np.int8)}
    inputs, outputs = ["x", "w"], onnx.TensorProto.INT32
    if op == "QLinearMatMul":
        constants |= {"s": np.float32(0.05), "z": np.uint8(0), "zw": np.int8(0)}
        inputs, outputs = ["x", "s", "z", "w", "s", "zw", "s", "z"], onnx.TensorProto.UINT8
    shape_in, shape_out = [windows, len(weights)], [windows, weights.shape[1]]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, inputs, ["y"])],
        op,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, shape_in)],
        [onnx.helper.make_tensor_value_info("y", outputs, shape_out)],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return _session(graph, np.zeros(shape_in, np.uint8))


def onnx_conv_integer(weights: NDArray[np.int32], size: int) -> Callable[[], object]:
    """ConvInteger 3x3 on size x size, the same products as the gathered windows."""
    channels, outputs = len(weights) // 9, weights.shape[1]
    kernel = weights.T.reshape(outputs, 3, 3, channels).transpose(0, 3, 1, 2).astype(np.int8)
    shape = [1, channels, size, size]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ConvInteger", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "conv",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, outputs, size, size])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(kernel), "w")],
    )
    return _session(graph, np.zeros(shape, np.uint8))


def onnx_convolution(weights: NDArray[np.int32], size: int) -> Callable[[], object]:
    """QLinearConv 3x3 on size x size, the same products as the gathered windows."""
    channels, outputs = len(weights) // 9, weights.shape[1]
    kernel = weights.T.reshape(outputs, 3, 3, channels).transpose(0, 3, 1, 2).astype(np.int8)
    constants = {
        "w": np.ascontiguousarray(kernel),
        "s": np.float32(0.05),
        "z": np.uint8(0),
        "zw": np.int8(0),
    }
    node = onnx.helper.make_node(
        "QLinearConv", ["x", "s", "z", "w", "s", "zw", "s", "z"], ["y"], pads=[1, 1, 1, 1]
    )
    shape = [1, channels, size, size]
    graph = onnx.helper.make_graph(
        [node],
        "conv",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [1, outputs, size, size])],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return _session(graph, np.zeros(shape, np.uint8))


def _session(graph: onnx.GraphProto, x: NDArray[np.uint8]) -> Callable[[], object]:
    model = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})


def measure(
    shape: str, inputs: int, outputs: int, windows: int, conv: int = 0, all_clip: bool = False
) -> list[Row]:
    """All contenders on one shape. conv: side of the image when the windows are a convolution."""
    rng = np.random.default_rng(0)
    low, high = (-1, 0) if all_clip else (-128, 128)
    weights = rng.integers(low, high, (inputs, outputs)).astype(np.int32)
    u = rng.integers(192 if all_clip else 0, 256, (windows, inputs)).astype(np.uint8)
    calls = crossbar_calls(weights, u, 9 if conv else 1)
    wide, narrow = u.astype(np.int32), u.astype(np.float32)
    weights_f32 = weights.astype(np.float32)
    calls["numpy int32"] = lambda: wide @ weights
    calls["numpy float32"] = lambda: narrow @ weights_f32
    calls["onnxruntime MatMulInteger"] = onnx_session("MatMulInteger", weights, windows)
    calls["onnxruntime QLinearMatMul"] = onnx_session("QLinearMatMul", weights, windows)
    if conv:
        calls["onnxruntime ConvInteger"] = onnx_conv_integer(weights, conv)
        calls["onnxruntime QLinearConv"] = onnx_convolution(weights, conv)
    rows = timed(shape, calls, windows, inputs * outputs)
    for peer in peer_calls(weights, u):
        rows += timed(shape, {peer.contender: peer.call}, peer.windows, inputs * outputs)
    return [replace(row, ratio=rows[0].mvm_per_s / row.mvm_per_s) for row in rows]


def timed(
    shape: str, calls: Mapping[str, Callable[[], object]], count: int, macs: int = 0
) -> list[Row]:
    """A row for each call, which does ``count`` products of ``macs`` multiplications."""
    rows = []
    for name, call in calls.items():
        seconds = cpu_seconds(call)
        rate = count / seconds
        rows.append(Row(shape, name, seconds, rate, rate * macs / 1e9))
    base = rows[0].seconds
    return [replace(row, ratio=row.seconds / base) for row in rows]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--large", is_flag=True, help="resnet50, too: minutes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def main(large: bool, as_json: bool) -> None:
    rows = [
        *measure("128x128, batch 1", 128, 128, 1),
        *measure("128x128, batch 1024", 128, 128, 1024),
        *measure("128x128, batch 1024, all clip", 128, 128, 1024, all_clip=True),
        *measure("3x3x64->64 on 32x32", 576, 64, 1024, conv=32),
        *timed("resnet8_fmnist, 64 images", network_calls("resnet8_fmnist"), IMAGES),
        *timed("ResNet-20, 1 image", resnet20_calls(1), 1),
        *timed("ResNet-20, 64 images", resnet20_calls(64), 64),
    ]
    if large:
        rows += timed("resnet50, 1 image", light_calls("resnet50"), 1)
    bars, leads = judge(rows), lead(rows)
    if as_json:
        met = [{"bar": f"{b.shape}, {b.contender}: {b}", "met": is_met} for b, _, is_met in bars]
        document = {
            "kernel": describe_kernel(),
            "rows": [asdict(row) for row in rows],
            "bars": met,
            "peers": {name: is_installed(name) for name in PEERS},
            "lead": {f"{row.shape}, {row.contender}": times for row, times in leads},
        }
        print(json.dumps(document))
        return
    print_rows(rows)
    for name in PEERS:
        if not is_installed(name):
            print(f"{name}: not installed")
    for row, times in leads:
        print(f"{row.shape}: {SAME_JOB[row.contender]} is {times:,.0f} times {row.contender}")
    for bar, row, is_met in bars:
        word = "met    " if is_met else "NOT MET"
        reached = f"{row.mvm_per_s:,.1f} a second, {row.seconds * 1e3:.3f} ms"
        print(f"{word}  {bar.shape}, {bar.contender}: {bar}; {reached}")


def judge(rows: list[Row]) -> list[tuple[Bar, Row, bool]]:
    """Each bar whose row was measured, with its row, and whether it is met."""
    found = {(row.shape, row.contender): row for row in rows}
    return [
        (bar, row, bar.is_met(row, found.get((bar.shape, REFERENCE))))
        for bar in BARS
        if (row := found.get((bar.shape, bar.contender))) is not None
    ]


def lead(rows: list[Row]) -> list[tuple[Row, float]]:
    """Each row of a peer, and how many times its rate pimc reaches on `SAME_JOB`."""
    rate = {(row.shape, row.contender): row.mvm_per_s for row in rows}
    return [
        (row, rate[row.shape, SAME_JOB[row.contender]] / row.mvm_per_s)
        for row in rows
        if row.contender in SAME_JOB
    ]


def print_rows(rows: list[Row]) -> None:
    print(f"kernel: {describe_kernel().get('level', 'NumPy')}")
    print(f"{'':38}{'ms':>9}{'MVM/s':>13}{'GMAC/s':>9}{'time / pimc proved':>20}")
    shape = ""
    for row in rows:
        if row.shape != shape:
            shape = row.shape
            print(shape)
        print(
            f"  {row.contender:36}{row.seconds * 1e3:9.4f}{row.mvm_per_s:13,.0f}"
            f"{row.gmac_per_s:9.2f}{row.ratio:20.2f}"
        )


if __name__ == "__main__":
    main()
