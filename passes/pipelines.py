"""The pipeline on one page: which passes run, in which order, and why in that order."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from isa.diagnostics import Diagnostic, PimError
from isa.target import Target
from passes.base import Pass
from passes.best import Best
from passes.graph import Graph
from passes.kernel_reorder import KernelReorder
from passes.mapping import Mapping
from passes.mesh_place import DEFAULT_METHOD, MeshPlace
from passes.ou_tile import OuTile
from passes.pattern_dedup import DedupPlan, PatternDedup
from passes.plane_skip import PlaneSkip
from passes.row_compress import RowCompress
from passes.schedule import Schedule
from passes.split import Split

MappingPass = Callable[[Target], Pass[Graph, Mapping]]

# what `--mapping NAME` chooses from; all of them make blocks of the whole layer, unplaced
MAPPINGS: dict[str, MappingPass] = {
    "ou-tile": OuTile,
    "row-compress": RowCompress,
    "kernel-reorder": KernelReorder,
    "plane-skip": PlaneSkip,
    "pattern-dedup": PatternDedup,
    "filter-dedup": lambda target: PatternDedup(target, DedupPlan("filter")),
    "row-compress-output": lambda target: RowCompress(target, "output"),
    "row-compress-dedup": lambda target: RowCompress(target, shared=True),
    "kernel-reorder-dedup": lambda target: KernelReorder(target, shared=True),
    "best": Best,
    "best-latency": lambda target: Best(target, "latency"),
    "best-area": lambda target: Best(target, "area"),
}
DEFAULT_MAPPING = "ou-tile"


def pipeline(
    target: Target,
    mapping: str,
    grow: bool,
    place: str = DEFAULT_METHOD,
    shapes: tuple[Graph, ...] = (),
) -> tuple[Pass[Any, Any], ...]:
    """The passes from Graph to Program.

    grow: enlarge the mesh until the model fits. place: how cores find their places on the mesh
    (`passes.mesh_place.METHODS`). shapes: the network for all input shapes that a part of a layer
    must have room in, where there are several. Raises PimError U902 for an unknown mapping.
    """
    if mapping not in MAPPINGS:
        near = get_close_matches(mapping, MAPPINGS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the mappings are {', '.join(MAPPINGS)}"
        raise PimError(Diagnostic("U902", f"there is no mapping `{mapping}`", hint=hint))
    return (
        MAPPINGS[mapping](target),  # first: what a layer stores decides how many cores it needs
        Split(shapes),  # before schedule: each part becomes one core's stream
        Schedule(grow),  # queue depths follow from the finished streams
        MeshPlace(target, place),  # last: only the streams say how much each channel carries
    )
