"""onnx's own operator tests against pimc.backend: counts by outcome, and by reason of refusal.

    python -m benchmarks.backend [node] [pytorch-converted] [pytorch-operator] [--cases]

A case passes when the program equals onnxruntime on the integer model (0 LSB) and every output is
within STEPS quantization steps of the stored one (outputs of 8-bit integers: equal). `--cases`
prints a line per case with its error in steps; nothing that is refused counts as passed. Cases
whose weights are inputs, which are bound to the values of the run, are counted on their own.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import numpy_helper

from isa.diagnostics import PimError
from pimc.backend import PimcRep

STEPS = 4
SETS = ("node", "pytorch-converted", "pytorch-operator")
Case = tuple[str, onnx.ModelProto, list[Any], list[Any]]


@dataclass(frozen=True)
class Outcome:
    """passed, far (from the stored values), unequal (to onnxruntime), refused or failed.

    steps: largest error in steps of the output. on_crossbars: some layer is. bound: weights stood
    among the inputs.
    """

    kind: str
    reason: str = ""
    steps: float = 0.0
    on_crossbars: bool = False
    bound: bool = False


def cases(name: str) -> Iterator[Case]:
    """The cases of one set with their first data."""
    if name == "node":
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            inputs, outputs = case.data_sets[0]
            yield case.name, case.model, list(inputs), list(outputs)
        return
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / name
    for path in sorted(folder.glob("*/model.onnx")):
        data = path.parent / "test_data_set_0"
        inputs, outputs = (
            [numpy_helper.to_array(onnx.load_tensor(str(file))) for file in numbered(data, kind)]
            for kind in ("input", "output")
        )
        yield path.parent.name, onnx.load(path), inputs, outputs


def numbered(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))


def attempt(case: Case) -> Outcome:
    """Compile and run one case."""
    _, model, inputs, outputs = case
    rep = PimcRep(model, "ou9x8")
    try:
        if not all(isinstance(array, np.ndarray | np.generic) for array in (*inputs, *outputs)):
            return Outcome("refused", "sequence or optional types")
        results = rep.run(inputs)
    except PimError as error:
        first = error.diagnostics[0]
        return Outcome("refused", f"{first.code} {operator(first.message)}")
    except Exception:  # what a user would see as a traceback is what this looks for
        return Outcome("failed", traceback.format_exc().strip().splitlines()[-1])
    assert rep.program is not None
    return replace(judge(rep, results, outputs), bound=bool(rep.weights))


def judge(rep: PimcRep, results: Any, outputs: list[Any]) -> Outcome:
    program = rep.program
    assert program is not None
    on_crossbars = any(core.matrices for core in program.program.cores)
    try:
        if not program.verify()["equal"]:
            return Outcome("unequal", on_crossbars=on_crossbars)
    except Exception as error:
        return Outcome(
            "failed", f"{type(error).__name__}: {error}"[:200], on_crossbars=on_crossbars
        )
    worst = 0.0
    held = {tensor.onnx_name: tensor for tensor in program.output_tensors}
    tensors = [held[value.name] for value in rep.model.graph.output]
    for tensor, ours, theirs in zip(tensors, results, outputs, strict=True):
        if ours.shape != theirs.shape:
            return Outcome("far", f"shape {ours.shape}, not {theirs.shape}")
        gap = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        worst = max(worst, float(gap.max(initial=0)) / (tensor.scale or 1 / STEPS))
    kind = "passed" if worst <= STEPS else "far"
    return Outcome(kind, "", worst, on_crossbars)


def operator(message: str) -> str:
    """The operator that a message is about, for counting."""
    return message.split(" `")[0].split(":")[0][:60]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("sets", nargs=-1, type=click.Choice(list(SETS)))
@click.option("--cases", "every_case", is_flag=True, help="A line for every case.")
def main(sets: tuple[str, ...], every_case: bool) -> None:
    warnings.simplefilter("ignore")
    for name in sets or SETS:
        counts, reasons = Counter[str](), defaultdict[str, Counter[str]](Counter)
        crossbars = bound = 0
        for case in cases(name):
            found = attempt(case)
            counts[found.kind] += 1
            crossbars += found.kind == "passed" and found.on_crossbars
            bound += found.kind == "passed" and found.on_crossbars and found.bound
            reasons[found.kind][found.reason] += 1
            if every_case or found.kind in ("failed", "unequal"):
                print(f"{found.kind:8} {found.steps:8.2f} {case[0]} {found.reason}", flush=True)
        total = sum(counts.values())
        print(f"{name}: {total} cases, {dict(counts)}, passed on crossbars: {crossbars}", end="")
        print(f", of these with weights among the inputs: {bound}")
        for reason, count in reasons["refused"].most_common(40):
            print(f"  refused {count:4} {reason}")


if __name__ == "__main__":
    main()
