"""Compare: every mapping scheme on one network, priced by one model, proved and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from isa.diagnostics import Findings
from isa.matrix import BlockMatrix, fold
from isa.target import Target
from passes.best import SCHEMES, Objective, choose
from passes.estimate import MappingCost, estimate
from passes.graph import MatrixNode
from passes.mapping import MappedLayer
from passes.mapping import Mapping as Mapped
from passes.schedule import Schedule
from passes.select import select_groups
from passes.split import Split
from passes.weights import LayerWeights, layer_weights
from pimc.check import Answers, Verification, verify_program
from pimc.compress import CompressionReport, Spec, compress, parse_compression
from pimc.data import Array, random_feeds
from pimc.frontend.build import FrontendOptions, Imported, import_model

DENSE: Final = "dense"
BEST: Final = "best"
FIGURES: Final = (
    "stored_columns",
    "stored_cells",
    "crossbars",
    "ou_fires",
    "conversions",
    "route_adds",
    "table_bits",
    "energy_pj",
    "area_um2",
    "time_ns",
    "time_equal_crossbars_ns",
)
PRAP_SPECS: Final = ("pattern:keep=4,group=2", "similar:t=0.75/0.375,group=2,joint=yes")
# lossy rows: what is done to the weights by default, and the exact scheme that maps what is left
LOSSY: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {"prap": (PRAP_SPECS, "dedup")}


@dataclass(frozen=True)
class Row:
    """One scheme on the whole network.

    table_capacity_bits: of the index memories of as many cores as the crossbars fill; tables
    beyond it need larger ones, whose area ``cost.area_um2`` counts. equal: None when it was not
    run. accuracy: top-1 on labelled samples. compression: of a lossy row, which maps, proves and
    runs the integers of the *compressed* network.
    """

    scheme: str
    cost: MappingCost
    table_capacity_bits: int
    reconstructs: bool
    equal: bool | None
    accuracy: float | None = None
    compression: CompressionReport | None = None

    @property
    def is_lossy(self) -> bool:
        return self.compression is not None

    def as_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"scheme": self.scheme, "lossy": self.is_lossy}
        row |= {name: getattr(self.cost, name) for name in FIGURES}
        row |= {
            "table_capacity_bits": self.table_capacity_bits,
            "tables_fit": self.cost.table_bits <= self.table_capacity_bits,
            "reconstructs": self.reconstructs,
            "equal": self.equal,
        }
        if self.accuracy is not None:
            row["accuracy"] = self.accuracy
        if self.compression is not None:
            row["compression"] = self.compression.as_json()
        return row


@dataclass(frozen=True)
class Trial:
    """What every scheme is tried on.

    calibration: samples by input name, for the refit of lossy rows. data: samples to run, maybe
    with ``labels``; None for ``samples`` random ones. lossy: specs in place of a lossy row's own.
    frontend: how what a lossy row leaves is imported.
    """

    objective: Objective = "energy"
    samples: int = 1
    calibration: Mapping[str, Array] | None = None
    data: Mapping[str, Array] | None = None
    lossy: tuple[Spec, ...] = ()
    frontend: FrontendOptions = field(default_factory=FrontendOptions)

    @property
    def is_run(self) -> bool:
        return bool(self.samples) or self.data is not None


@dataclass(eq=False)
class _Network:
    """One set of integer weights, and what is found out once for all schemes."""

    imported: Imported
    trial: Trial
    dense_crossbars: dict[str, int] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)


def scheme_names() -> tuple[str, ...]:
    """The exact schemes; the plain mapping first, the optimizer last."""
    return (*SCHEMES, BEST)


def compare_schemes(
    imported: Imported,
    target: Target,
    schemes: Sequence[str],
    trial: Trial | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Row]:
    """One row per scheme, all bookkeeping charged; exact ones on the same integer weights.

    Each scheme's program is run against onnxruntime on the trial's samples.
    Raises PimError U902 for unknown schemes, all of them; U951 for a lossy row without
    calibration data, and what `pimc.compress` raises.
    """
    trial = trial or Trial()
    _check_names(schemes, trial)
    network = _Network(imported, trial)
    rows = []
    for scheme in schemes:
        if scheme in LOSSY:
            rows.append(_lossy_row(network, target, scheme, progress))
        else:
            rows.append(_row(network, target, scheme, scheme, progress))
    return rows


def _check_names(schemes: Sequence[str], trial: Trial) -> None:
    known = (*scheme_names(), *LOSSY)
    findings = Findings()
    for name in schemes:
        if name not in known:
            hint = f"the schemes are {', '.join(known)}"
            findings.error("U902", f"there is no scheme `{name}`", hint=hint)
        elif name in LOSSY and trial.calibration is None:
            hint = "give samples with --calib FILE.npz, best a few hundred of the training set"
            findings.error("U951", f"`{name}` refits weights on samples; there are none", hint=hint)
    findings.raise_if_any()


def _lossy_row(
    network: _Network, target: Target, scheme: str, progress: Callable[[str], None]
) -> Row:
    """Compress, import what is left, and map that by the row's exact scheme."""
    trial, (defaults, mapping) = network.trial, LOSSY[scheme]
    assert trial.calibration is not None, "checked before"
    progress(f"{scheme}: compress")
    specs = trial.lossy or tuple(map(parse_compression, defaults))
    done = compress(network.imported.float_model, trial.calibration, specs)
    imported = import_model(done.model, trial.calibration, trial.frontend)
    row = _row(_Network(imported, trial), target, scheme, mapping, progress)
    return replace(row, compression=done.report)


def _row(
    network: _Network, target: Target, name: str, scheme: str, progress: Callable[[str], None]
) -> Row:
    """Map, price, prove and cut layer by layer, so that only the parts stay; then run them."""
    graph, trial = network.imported.graph, network.trial
    nodes = [node for node in graph.nodes if isinstance(node, MatrixNode)]
    layers: dict[str, MappedLayer] = {}
    total, reconstructs = MappingCost(), True
    for at, node in enumerate(nodes, 1):
        progress(f"{name}: layer {at} of {len(nodes)}")
        rows, columns, _ = graph.values[node.output].shape
        blocks, cost = _layer(network, node, rows * columns, target, scheme)
        total = total + cost
        reconstructs &= np.array_equal(fold(blocks), layer_weights(node).matrix())
        if trial.is_run:
            whole = Mapped(graph, target, {node.name: MappedLayer(node, blocks)})
            layer = Split().run(whole).layers[node.name]
            layers[node.name] = replace(layer, blocks=select_groups(blocks, np.arange(0)))
    found = None
    if trial.is_run:
        progress(f"{name}: run")
        found = _run(network, Mapped(graph, target, layers))
    return Row(
        name,
        total,
        8 * target.memory.index_bytes * -(-total.crossbars // target.crossbars_per_core),
        reconstructs,
        None if found is None else found.is_equal,
        None if found is None else found.accuracy,
    )


def _layer(
    network: _Network, node: MatrixNode, windows: int, target: Target, scheme: str
) -> tuple[BlockMatrix, MappingCost]:
    weights, objective = layer_weights(node), network.trial.objective
    if scheme == BEST:
        choice = choose(weights, windows, target, objective)
        return choice.blocks, choice.cost

    def priced(name: str, crossbars: int | None = None) -> tuple[BlockMatrix, MappingCost]:
        blocks = SCHEMES[name](weights, target)
        return blocks, _cost(weights, blocks, windows, target, objective, crossbars)

    if scheme == DENSE:
        blocks, cost = priced(DENSE)
        network.dense_crossbars[node.name] = cost.crossbars
        return blocks, cost
    if node.name not in network.dense_crossbars:
        network.dense_crossbars[node.name] = priced(DENSE)[1].crossbars
    return priced(scheme, network.dense_crossbars[node.name])


def _cost(
    weights: LayerWeights,
    blocks: BlockMatrix,
    windows: int,
    target: Target,
    objective: Objective,
    crossbars: int | None,
) -> MappingCost:
    return estimate(
        blocks,
        windows,
        target,
        kernel_size=weights.kernel_size,
        sections=len(weights.values),
        crossbars=crossbars,
        objective=objective,
    )


def _run(network: _Network, mapping: Mapped) -> Verification:
    """The scheme's program against onnxruntime, tensor by tensor."""
    trial, imported = network.trial, network.imported
    program = Schedule(grow=True).run(mapping)
    target = mapping.target.with_mesh(len(program.cores))
    program = replace(program, target=target.name, target_sha256=target.sha256)
    feeds = trial.data or random_feeds(program, trial.samples, seed=0)
    return verify_program(
        program, target, imported.reference, None, feeds, per_layer=True, answers=network.answers
    )


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each figure relative to the first row: how many times smaller it is."""
    first = rows[0].cost
    return [
        {
            "scheme": row.scheme,
            **{
                name: getattr(first, name) / max(getattr(row.cost, name), 1e-30)
                for name in ("stored_cells", "crossbars", "energy_pj", "time_equal_crossbars_ns")
            },
        }
        for row in rows
    ]
