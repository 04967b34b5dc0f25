"""The proof of a compile: the program's own cells and routes give the model's integers back."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from isa.diagnostics import Findings, Location
from isa.matrix import fold
from isa.program import Matrix, Program
from isa.target import Target
from passes.graph import Graph, MatrixNode
from passes.weights import layer_weights


def check_reconstruction(program: Program, graph: Graph) -> None:
    """Compare every layer's folded blocks with its weights W*.

    program: as parsed back from its text. Raises PimError X801 naming each layer that differs.
    """
    parts: dict[str, list[Matrix]] = defaultdict(list)
    for matrix in program.matrices():
        if not matrix.of:  # the verifier holds copies to the blocks of their originals
            parts[matrix.layer].append(matrix)
    findings = Findings()
    nodes = {node.name: node for node in graph.nodes if isinstance(node, MatrixNode)}
    for name in sorted(parts.keys() ^ nodes.keys()):
        where = "program" if name in parts else "model"
        findings.error("X801", f"layer `{name}` stands only in the {where}", Location(node=name))
    for name in parts.keys() & nodes.keys():
        differing = _differences(nodes[name], parts[name])
        if differing:
            findings.error(
                "X801",
                f"`{name}`: {differing} of its weights are not what its blocks reconstruct",
                Location(node=name),
                "this is a bug in pimc; please report it with the model",
            )
    findings.raise_if_any()


def _differences(node: MatrixNode, parts: list[Matrix]) -> int:
    """Weights of a layer that its parts, added up, do not give back."""
    positions = node.weights.shape[1] * node.weights.shape[2]
    wanted = layer_weights(node).matrix()
    difference = wanted.reshape(positions, -1, wanted.shape[1])
    for part in parts:
        inputs, outputs = slice(*part.inputs), slice(*part.outputs)
        held = fold(part.blocks).reshape(positions, inputs.stop - inputs.start, -1)
        difference[:, inputs, outputs] -= held
    return int(np.count_nonzero(difference))


def check_conversions(program: Program, target: Target) -> None:
    """Refuse stored columns whose sum can exceed the ADC. Raises PimError M604, all layers."""
    findings = Findings()
    clipping: dict[str, int] = defaultdict(int)
    for matrix in program.matrices():
        clipping[matrix.layer] += int((matrix.blocks.largest_sums() > target.adc_max).sum())
    for layer, columns in clipping.items():
        if columns:
            findings.error(
                "M604",
                f"`{layer}`: {columns} stored columns can exceed the {target.adc.bits}-bit ADC of "
                f"{target.name} (largest code {target.adc_max})",
                Location(node=layer),
                f"`--set adc.bits={target.exact_adc_bits}` is exact; `--allow-clipping` compiles "
                "it as it is",
            )
    findings.raise_if_any()


def dense_columns(graph: Graph, target: Target) -> int:
    """Columns that the plain mapping of all layers would store, the column of ones not counted."""
    total = 0
    for node in graph.nodes:
        if isinstance(node, MatrixNode):
            weights = layer_weights(node)
            sections, rows, outputs = weights.values.shape
            digits = -(-target.weights.bits // target.crossbar.cell_bits)
            total += sections * -(-rows // target.ou.rows) * outputs * digits
    return total
