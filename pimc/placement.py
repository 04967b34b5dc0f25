"""Placement: what runs where, in shares of operators and multiplications, and why on the host."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isa.program import Program
from passes.graph import Graph, HostNode, MatrixNode, ProductNode
from pimc.frontend.place import Stay

_SHOWN = 12  # operators on the host that the summary names; all are in the report
PLACES = ("crossbars", "vector", "host")


def placement(graph: Graph, stays: Sequence[Stay], programs: Sequence[Program]) -> dict[str, Any]:
    """Operators and multiplications of one image by place, and every operator on the host.

    Operators on the chip are those of the program's graph, where the compiler has merged some.
    """
    macs, nodes = dict.fromkeys(PLACES, 0), dict.fromkeys(PLACES, 0)
    for node in graph.nodes:
        if isinstance(node, HostNode):
            continue
        place = "crossbars" if isinstance(node, MatrixNode) else "vector"
        nodes[place] += 1
        rows, columns, channels = graph.values[node.output].shape
        if isinstance(node, MatrixNode):
            macs[place] += rows * columns * node.weights.size
        elif isinstance(node, ProductNode):
            macs[place] += rows * columns * channels * graph.values[node.inputs[0]].shape[2]
    macs["host"], nodes["host"] = sum(stay.macs for stay in stays), len(stays)
    total = sum(macs.values())
    tensors = {t.name: t for program in programs for t in program.tensors}
    return {
        "nodes": nodes,
        "macs": macs,
        "mac_share": {place: macs[place] / total if total else 0.0 for place in PLACES},
        "partitions": [
            {
                "name": part.name,
                "inputs": [tensors[name].onnx_name for name in part.inputs],
                "outputs": [tensors[name].onnx_name for name in part.outputs],
                "bytes": sum(tensors[n].bytes for n in (*part.inputs, *part.outputs)),
                "sha256": part.sha256,
            }
            for program in programs
            for part in program.partitions
        ],
        "on_host": [stay.as_json() for stay in stays],
    }


def placement_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `pimc compile` says about the host; nothing where all is on the chip."""
    stays, parts = found["on_host"], found["partitions"]
    if not stays:
        return
    nodes, share = found["nodes"], found["mac_share"]
    yield (
        f"ON THE HOST: {nodes['host']} operators in {len(parts)} partitions, "
        f"{share['host']:.1%} of the multiplications; {nodes['crossbars']} on crossbars "
        f"({share['crossbars']:.1%}), {nodes['vector']} on vector units ({share['vector']:.1%})"
    )
    for stay in stays[:_SHOWN]:
        yield f"  {stay['partition']}  {stay['op_type']} `{stay['node']}`: {stay['reason']}"
    if len(stays) > _SHOWN:
        yield f"  ... and {len(stays) - _SHOWN} more, in report.json under `placement`"
    size = math.ceil(sum(part["bytes"] for part in parts) / 1024)
    yield (
        f"  {size:,} KiB an image cross the border; times count that transfer, not the host's work"
    )
