"""VGG-16 and ResNet-18 at 224 x 224 in phases on chips too small, and whole on a chip scaled up.

    python -m benchmarks.phases resnet18 vgg16

Random weights. For each network and chip one line: cores, phases, CPU seconds and peak memory of
`pimc compile`, differences of `pimc verify` on one random image, and `pimc simulate` for batches
of 1 and 8 images. The batch of 64 follows from that of 8: 56 more images at each phase's pace.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.command import run

SIDE = 224
CLASSES = 1000
RESNET18 = (64, 64, 128, 128, 256, 256, 512, 512)  # channels of the residual blocks
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pool
SMALL_CHIPS = {"resnet18": (32, 64), "vgg16": (900,)}  # cores; VGG-16's largest layer needs 800


class Network:
    """A float model as it grows; every method returns the name of the new tensor."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, shape: tuple[int, ...]) -> str:
        """Random weights, as wide as keeps the size of the activations (He)."""
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        values = self.random.normal(0, spread, shape).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        weights = self.constant((outputs, inputs, kernel, kernel))
        pads = [kernel // 2] * 4
        bias = self.constant((outputs,))
        return self.add("Conv", x, weights, bias, pads=pads, strides=[stride, stride])

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weights, bias = self.constant((outputs, inputs)), self.constant((outputs,))
        return self.add("Gemm", x, weights, bias, transB=1)

    def model(self, output: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", 1, ["n", 3, SIDE, SIDE])
        result = helper.make_tensor_value_info(output, 1, ["n", CLASSES])
        graph = helper.make_graph(self.nodes, "network", [image], [result], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet18() -> onnx.ModelProto:
    n, inputs = Network(), 64
    x = n.add("Relu", n.conv("image", 3, inputs, 7, 2))
    x = n.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for outputs in RESNET18:
        stride = outputs // inputs
        shortcut = x if stride == 1 else n.conv(x, inputs, outputs, 1, stride)
        y = n.add("Relu", n.conv(x, inputs, outputs, 3, stride))
        x = n.add("Relu", n.add("Add", n.conv(y, outputs, outputs, 3), shortcut))
        inputs = outputs
    x = n.add("Flatten", n.add("GlobalAveragePool", x))
    return n.model(n.dense(x, inputs, CLASSES))


def vgg16() -> onnx.ModelProto:
    n, x, inputs = Network(), "image", 3
    for outputs in VGG16:
        if outputs:
            x, inputs = n.add("Relu", n.conv(x, inputs, outputs, 3)), outputs
        else:
            x = n.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.add("Relu", n.dense(n.add("Flatten", x), inputs * 49, 4096))
    x = n.add("Relu", n.dense(x, 4096, 4096))
    return n.model(n.dense(x, 4096, CLASSES))


NETWORKS = {"resnet18": resnet18, "vgg16": vgg16}


def measure(model: Path, program: Path, *chip: str) -> dict[str, Any]:
    """Compile for a chip, verify one image, simulate."""
    compiling = run("compile", str(model), "-o", str(program), *chip)
    verifying = run("verify", str(program), "--samples", "1")
    ones, eights = (run("simulate", str(program), "--images", count) for count in ("1", "8"))
    compiled, one, eight = compiling.document, ones.document, eights.document
    parts = eight.get("phases", [eight])
    more = eight["makespan_ns"] + 56 * sum(part["interval_ns"] for part in parts)
    is_whole = len(parts) == 1
    writing = eight["programming"]
    return {
        "chip": " ".join(chip),
        "cores": f"{compiled['cores']} of {compiled['cores_available']}",
        "phases": compiled["phases"],
        "byte_hops": compiled["byte_hops"],
        "compile_cpu_s": round(compiling.cpu_s, 1),
        "compile_mib": round(compiling.peak_mib),
        "verify_cpu_s": round(verifying.cpu_s, 1),
        "max_abs_diff_lsb": verifying.document["max_abs_diff_lsb"],
        "simulate_cpu_s": [round(ones.cpu_s, 1), round(eights.cpu_s, 1)],
        "latency_ms": one["latency_ns"] / 1e6,
        "interval_ms": {
            "1": one["interval_ns"] / 1e6,
            "8": eight["interval_ns"] / 1e6,
            "64": (eight["interval_ns"] if is_whole else more / 64) / 1e6,
        },
        "writing_ms": writing["time_ns"] / 1e6,
        "writing_uj": writing["energy_pj"] / 1e6,
        "dynamic_uj": eight["energy_pj"]["dynamic"] / 1e6,
        "writing_share": {
            str(batch): share(writing["energy_pj"] / batch, eight["energy_pj"]["dynamic"])
            for batch in (1, 8, 64)
        },
    }


def share(part: float, rest: float) -> float:
    return part / (part + rest)


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("networks", nargs=-1, type=click.Choice(list(NETWORKS)))
def main(networks: tuple[str, ...]) -> None:
    for network in networks or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            model, program = Path(folder) / f"{network}.onnx", Path(folder) / f"{network}.pim"
            onnx.save(NETWORKS[network](), model)
            for cores in SMALL_CHIPS[network]:
                chip = ("--tiles", str(cores), "--phases", "auto")
                print(json.dumps({network: measure(model, program, *chip)}), flush=True)
            print(json.dumps({network: measure(model, program, "--tiles", "auto")}), flush=True)


if __name__ == "__main__":
    main()
