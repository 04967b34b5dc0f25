"""Whole networks for benchmarks/kernel.py: pimc by mapping and path, and onnxruntime's int8."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import pimc
from benchmarks.cifar_resnet import SIDE, resnet20
from isa.target import load_target
from models.refill import refill_light
from pimc.api import CompiledProgram
from runtime.machine import Machine

MODELS = Path(__file__).resolve().parent.parent / "models"
IMAGES = 64
REFERENCE = "onnxruntime int8, reference"
Call = Callable[[], object]
Feeds = Mapping[str, NDArray[np.float32]]


def network_calls(model: str, images: int = IMAGES) -> dict[str, Call]:
    """Calls that run ``images`` images.

    A row names the path that its matrices really take: at 3 bits a mapping may choose groups so low
    that nothing can clip, and is then linear. What computing equal columns once saves shows only
    where both mappings are forced to go bit by bit ("table").
    """
    samples = dict(np.load(MODELS / "fmnist_calib.npz"))
    feeds = {"image": np.resize(samples["image"], (images, *samples["image"].shape[1:]))}
    calls: dict[str, Call] = {}
    for bits, mapping, path in (
        ("4", "ou-tile", "auto"),
        ("4", "pattern-dedup", "auto"),
        ("3", "ou-tile", "auto"),
        ("3", "pattern-dedup", "auto"),
        ("4", "ou-tile", "table"),
        ("4", "pattern-dedup", "table"),
        ("4", "best", "table"),
    ):
        program = pimc.compile(
            MODELS / f"{model}.onnx",
            target=load_target("ou9x8", {"adc.bits": bits}),
            calibration={"image": samples["image"]},
            mapping=mapping,
            allow_clipping=True,
        )
        with mock.patch.dict(os.environ, PIMC_PATH=path):
            program.run(feeds)  # makes the machine, which reads the variable
            taken = set(Machine(program.program, program.target).paths().values())
        calls[f"pimc {mapping} {bits} bit: {'+'.join(sorted(taken))}"] = partial(program.run, feeds)
    calls[REFERENCE] = reference_call(program, feeds)
    return calls


def resnet20_calls(images: int) -> dict[str, Call]:
    """ResNet-20 for CIFAR with random weights on ``images`` random images."""
    values = np.random.default_rng(0).normal(size=(64, 3, SIDE, SIDE)).astype(np.float32)
    return adc_calls(resnet20(), {"image": values[:16]}, {"image": values[:images]})


def light_calls(name: str) -> dict[str, Call]:
    """A light model of the onnx wheel with random weights, on one random image of 224 x 224."""
    model = refill_light(name, logits=True)
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    feeds = {model.graph.input[0].name: image}
    return adc_calls(model, feeds, feeds)


def adc_calls(model: onnx.ModelProto, calibration: Feeds, feeds: Feeds) -> dict[str, Call]:
    """Calls of pimc with an ADC that is wide enough, with one that clips, and of onnxruntime.

    Of pimc also with each instruction executed in Python; the products are those of C.
    """
    calls: dict[str, Call] = {}
    for name, bits, path in (("pimc proved", "4", "proved"), ("pimc clipped 3 bit", "3", "excess")):
        program = pimc.compile(
            model,
            target=load_target("ou9x8", {"adc.bits": bits}),
            calibration=calibration,
            mapping="ou-tile",
            tiles="auto",
            allow_clipping=bits == "3",
        )
        taken = set(Machine(program.program, program.target).paths().values())
        if path not in taken:
            raise SystemExit(f"{name}: no matrix is `{path}`, but {taken}")
        calls[name] = partial(program.run, feeds)
        slow = CompiledProgram(program.whole, program.target)
        with mock.patch.dict(os.environ, PIMC_STREAMS="python"):
            slow.run(feeds)  # makes the machine, which reads the variable
        calls[f"{name}, streams in Python"] = partial(slow.run, feeds)
    return calls | {REFERENCE: reference_call(program, feeds)}  # both compile to the same one


def reference_call(program: CompiledProgram, feeds: Feeds) -> Call:
    """onnxruntime on the integer model that the program was compiled from, one thread."""
    assert program.reference is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.reference.SerializeToString(), options)
    return lambda: session.run(None, dict(feeds))
