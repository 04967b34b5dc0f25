"""Whole networks for benchmarks/kernel.py: pimc by mapping and path, and onnxruntime's int8."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime

import pimc
from isa.target import load_target
from runtime.machine import Machine

MODELS = Path(__file__).resolve().parent.parent / "models"
IMAGES = 64
Call = Callable[[], object]


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
    assert program.reference is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.reference.SerializeToString(), options)
    calls["onnxruntime int8, reference"] = lambda: session.run(None, feeds)
    return calls
