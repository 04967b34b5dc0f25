"""Ablation: what each of the four steps of a reuse engine brings, one after another.

Reuse of repeated patterns, the pipeline within a processing element, layers that run
asynchronously, copies of layers: the steps of PattPIM and its journal version (papers.md 4.3, T4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from isa.target import Target
from pimc.check import verify_program
from pimc.data import Array, random_feeds
from pimc.driver import Compiled, CompileOptions, compile_model
from runtime.summary import summary
from runtime.unpipelined import layer_by_layer

PUBLISHED: Final = {"time": 2.74, "energy_saved": 0.72, "crossbars_saved": 0.70}
PUBLISHED_NOTE: Final = (
    "published for reuse and the pipeline within a PE together (TCAD 2022): up to 2.74x the speed, "
    "-72 % energy, -70 % space, against that paper's own dense engine: not like for like"
)
_IMAGES = 8
_SEQUENTIAL = {"ou.pipelined": "false"}


@dataclass(frozen=True)
class Step:
    """One line of the table. time_ns: between images; without asynchronous layers, of one image.

    dynamic_pj: per image. equal: to onnxruntime, one random image, every tensor.
    """

    name: str
    cores: int
    crossbars: int
    time_ns: float
    latency_ns: float
    dynamic_pj: float
    equal: bool


@dataclass(frozen=True)
class _Plan:
    name: str
    mapping: str
    replicate: str
    pipelined: bool
    asynchronous: bool


_PLANS: Final = (
    _Plan("dense, layer by layer", "ou-tile", "none", False, False),
    _Plan("+ reuse", "best", "none", False, False),
    _Plan("+ pipeline within a PE", "best", "none", True, False),
    _Plan("+ asynchronous layers", "best", "none", True, True),
    _Plan("+ replication", "best", "min-max", True, True),
)


def ablation(
    model: Path,
    target: Target,
    calibration: Mapping[str, Array] | None,
    progress: Callable[[str], None] = lambda phase: None,
) -> list[Step]:
    """The steps, each on top of those before. Raises PimError where the model is refused."""
    compiled: dict[tuple[str, str], tuple[Compiled, bool]] = {}
    steps = []
    for plan in _PLANS:
        key = (plan.mapping, plan.replicate)
        if key not in compiled:
            options = CompileOptions(
                mapping=plan.mapping, replicate=plan.replicate, tiles=_tiles(compiled)
            )
            done = compile_model(model, target, calibration, options, progress)
            progress("verify")
            compiled[key] = done, _is_equal(done)
        progress(plan.name)
        steps.append(_measured(plan, *compiled[key]))
    return steps


def _tiles(compiled: Mapping[tuple[str, str], tuple[Compiled, bool]]) -> int | str:
    """The dense program decides the size of the chip; all others run on the same one."""
    if not compiled:
        return "auto"
    return next(iter(compiled.values()))[0].target.cores


def _is_equal(done: Compiled) -> bool:
    feeds = random_feeds(done.program, 1, 0)
    return verify_program(
        done.program, done.target, done.reference, None, feeds, per_layer=True
    ).is_equal


def _measured(plan: _Plan, done: Compiled, equal: bool) -> Step:
    target = done.target if plan.pipelined else done.target.with_overrides(_SEQUENTIAL)
    found = summary(done.program, target, _IMAGES if plan.asynchronous else 1)
    time, latency = found["interval_ns"], found["latency_ns"]
    if not plan.asynchronous:
        cycles = sum(layer_by_layer(done.program, target).values())
        time = latency = cycles * target.cycle_ns
    cores = done.program.cores
    crossbars = sum(matrix.blocks.crossbars for core in cores for matrix in core.matrices)
    energy = found["energy_pj"]["dynamic"]
    return Step(plan.name, len(cores), crossbars, time, latency, energy, equal)


def as_json(steps: list[Step]) -> dict[str, Any]:
    """The document of `pimc compare --ablation --json`: the steps and the published figures."""
    first, reuse = steps[0], steps[2]
    return {
        "steps": [asdict(step) for step in steps],
        "reuse_and_pipeline": {
            "time": first.time_ns / reuse.time_ns,
            "energy_saved": 1 - reuse.dynamic_pj / first.dynamic_pj,
            "crossbars_saved": 1 - reuse.crossbars / first.crossbars,
        },
        "published": PUBLISHED,
        "note": PUBLISHED_NOTE,
    }
