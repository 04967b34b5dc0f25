"""Ablation: what each of the four steps of a reuse engine brings, one after another.

Reuse of repeated patterns, the pipeline within a processing element, layers that run
asynchronously, copies of layers: the steps of PattPIM and its journal version (papers.md 4.3, T4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from isa.target import Target
from pimc.check import verify_program
from pimc.data import Array, random_feeds
from pimc.driver import Compiled, CompileOptions, compile_model
from pimc.frontend.build import FrontendOptions
from runtime.summary import summary
from runtime.unpipelined import layer_by_layer

DENSE: Final = "ou-tile"
PUBLISHED_NOTE: Final = (
    "published: against that paper's own dense engine, networks and lossy transform; these steps "
    "are exact: not like for like"
)
_IMAGES = 8
_SEQUENTIAL = {"ou.pipelined": "false"}


@dataclass(frozen=True)
class Published:
    """What a paper claims for a step and all before it, against its dense engine ("up to")."""

    time: float
    energy_saved: float
    crossbars_saved: float
    source: str


@dataclass(frozen=True)
class Step:
    """One line of the table. time_ns: between images; without asynchronous layers, of one image.

    dynamic_pj: per image. step_ratio, ratio: how many times shorter time_ns is than in the step
    before and than in the first; below 1 the step costs time. reconstructs: the programmed cells
    give back every weight. equal: to onnxruntime, one random image, every tensor.
    """

    name: str
    mapping: str
    cores: int
    crossbars: int
    time_ns: float
    latency_ns: float
    dynamic_pj: float
    reconstructs: bool
    equal: bool
    published: Published | None
    step_ratio: float = 1.0
    ratio: float = 1.0


@dataclass(frozen=True)
class Ablation:
    """The steps, and per mapping the time between images without and with pipeline and copies.

    intervals_ns: mapping -> none, pipelined, replicated, all; layers are asynchronous in each.
    """

    steps: list[Step]
    intervals_ns: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        first, reuse = self.steps[0], self.steps[2]
        return {
            "steps": [asdict(step) for step in self.steps],
            "intervals_ns": self.intervals_ns,
            "reuse_and_pipeline": {
                "time": reuse.ratio,
                "energy_saved": 1 - reuse.dynamic_pj / first.dynamic_pj,
                "crossbars_saved": 1 - reuse.crossbars / first.crossbars,
            },
            "note": PUBLISHED_NOTE,
        }


@dataclass(frozen=True)
class _Plan:
    name: str
    reuses: bool
    replicate: str
    pipelined: bool
    asynchronous: bool
    published: Published | None = None


_PLANS: Final = (
    _Plan("dense, layer by layer", False, "none", False, False),
    _Plan("+ reuse", True, "none", False, False, Published(1.73, 0.5653, 0.5295, "DAC 2020")),
    _Plan("+ pipeline within a PE", True, "none", True, False,
          Published(2.74, 0.72, 0.70, "TCAD 2022")),
    _Plan("+ asynchronous layers", True, "none", True, True),
    _Plan("+ replication", True, "min-max", True, True),
)  # fmt: skip
_SCHEDULES: Final = {  # of the second table: copies of layers, the pipeline within a PE
    "none": ("none", False),
    "pipelined": ("none", True),
    "replicated": ("min-max", False),
    "all": ("min-max", True),
}


class _Programs:
    """The programs of a model by mapping and policy of replication, each compiled once.

    The dense program decides the size of the chip; all others run on the same one.
    """

    def __init__(
        self,
        model: Path,
        target: Target,
        calibration: Mapping[str, Array] | None,
        frontend: FrontendOptions,
        progress: Callable[[str], None],
    ) -> None:
        self._model = model
        self._target = target
        self._calibration = calibration
        self._frontend = frontend
        self._progress = progress
        self._compiled: dict[tuple[str, str], tuple[Compiled, bool]] = {}

    def compiled(self, mapping: str, replicate: str) -> tuple[Compiled, bool]:
        """The program, and whether it equals onnxruntime on a random image, every tensor."""
        key = (mapping, replicate)
        if key not in self._compiled:
            first = next(iter(self._compiled.values()), None)
            tiles: int | str = "auto" if first is None else first[0].target.cores
            options = CompileOptions(self._frontend, mapping, tiles, replicate=replicate)
            done = compile_model(
                self._model, self._target, self._calibration, options, self._progress
            )
            self._progress("verify")
            self._compiled[key] = done, _is_equal(done)
        return self._compiled[key]


def ablation(
    model: Path,
    target: Target,
    calibration: Mapping[str, Array] | None,
    mapping: str = "best",
    progress: Callable[[str], None] = lambda phase: None,
    frontend: FrontendOptions | None = None,
) -> Ablation:
    """The steps, each on top of those before; ``mapping`` is that of the step of reuse.

    frontend: how the model is imported. Raises PimError where the model is refused.
    """
    programs = _Programs(model, target, calibration, frontend or FrontendOptions(), progress)
    steps: list[Step] = []
    for plan in _PLANS:
        name = mapping if plan.reuses else DENSE
        done, equal = programs.compiled(name, plan.replicate)
        progress(plan.name)
        step = _measured(plan, name, done, equal)
        first, before = (steps[0], steps[-1]) if steps else (step, step)
        to_before, to_first = (s.time_ns / step.time_ns for s in (before, first))
        steps.append(replace(step, step_ratio=to_before, ratio=to_first))
    progress("schedules")
    intervals = {
        name: {
            schedule: _interval_ns(programs.compiled(name, replicate)[0], pipelined)
            for schedule, (replicate, pipelined) in _SCHEDULES.items()
        }
        for name in (DENSE, mapping)
    }
    return Ablation(steps, intervals)


def _is_equal(done: Compiled) -> bool:
    feeds = random_feeds(done.program, 1, 0)
    return verify_program(
        done.program, done.target, done.reference, None, feeds, per_layer=True
    ).is_equal


def _interval_ns(done: Compiled, pipelined: bool) -> float:
    target = done.target if pipelined else done.target.with_overrides(_SEQUENTIAL)
    interval: float = summary(done.program, target, _IMAGES)["interval_ns"]
    return interval


def _measured(plan: _Plan, mapping: str, done: Compiled, equal: bool) -> Step:
    target = done.target if plan.pipelined else done.target.with_overrides(_SEQUENTIAL)
    found = summary(done.program, target, _IMAGES if plan.asynchronous else 1)
    time, latency = found["interval_ns"], found["latency_ns"]
    if not plan.asynchronous:
        cycles = sum(layer_by_layer(done.program, target).values())
        time = latency = cycles * target.cycle_ns
    cores = done.program.cores
    return Step(
        name=plan.name,
        mapping=mapping,
        cores=len(cores),
        crossbars=sum(matrix.blocks.crossbars for core in cores for matrix in core.matrices),
        time_ns=time,
        latency_ns=latency,
        dynamic_pj=found["energy_pj"]["dynamic"],
        reconstructs=done.report["reconstructs"],
        equal=equal,
        published=plan.published,
    )
