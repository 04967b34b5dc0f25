"""Input shapes: fix every axis of the model's inputs, and find the one that is the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from isa.diagnostics import Findings, Location

MANY = 1021  # images, more than a model has reason to cut off


def bind_inputs(
    model: onnx.ModelProto, wanted: Mapping[str, Sequence[int]], split_batch: bool
) -> tuple[frozenset[str], bool]:
    """Write fixed shapes into the inputs; return which have a batch axis, and if one was split.

    wanted: full shapes by input name. A named or absent leading axis is the batch, a leading 1
    too where more axes follow; split_batch takes other fixed leading sizes for a batch as well.
    Without it, a size above 1 that is wanted for a named axis is that of no batch.
    Raises PimError F205 (dynamic axes), F207 (wishes that do not fit).
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    findings, batched, is_split = Findings(), set(), False
    first = {value.name: _leading(value) for value in inputs if _rank(value) > 1}
    first |= {name: sizes[0] for name, sizes in wanted.items() if len(sizes) > 1}
    leading = {size for size in first.values() if size is not None and size > 0}
    split_batch &= len(leading) < 2  # different sizes are no batch
    for name in wanted.keys() - {value.name for value in inputs}:
        findings.error(
            "F207",
            f"the model has no input `{name}`",
            hint=f"its inputs are {', '.join(f'`{v.name}`' for v in inputs)}",
        )
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            continue  # refused with the operators that consume it
        shape, has_batch = _input_shape(value, wanted.get(value.name), findings, split_batch)
        if split_batch and len(shape) > 1 and shape[0] > 1:
            has_batch = is_split = True
        if has_batch:
            shape[0] = 1
            batched.add(value.name)
        field = value.type.tensor_type.shape
        field.ClearField("dim")
        for size in shape:
            field.dim.add().dim_value = size
    findings.raise_if_any()
    return frozenset(batched), is_split


def lost_batches(
    model: onnx.ModelProto,
    wanted: Mapping[str, Sequence[int]],
    batched: frozenset[str],
    elements: Mapping[str, int],
) -> set[str]:
    """Outputs that do not have as many images as the inputs: something cuts or mixes the batch.

    At batch 1 such an operator (a Slice of the first three images) may look like none and vanish.
    A leading 1 passes: exporters write the batch into the shapes of Reshape. Not so where the model
    fixes another batch, or where the other axes hold all images: elements, of outputs at batch 1.
    """
    sizes = {value.name: _leading(value) for value in model.graph.input}
    images = max((sizes.get(name) or 1 for name in batched), default=1)
    is_fixed = images > 1
    images = images if is_fixed else MANY
    found = _inferred(model, wanted, batched, images)
    outputs = {v.name: found[v.name] for v in model.graph.output if v.name in found}
    if is_fixed and _joins_images(found, _inferred(model, wanted, batched, 1), images):
        return set(outputs)
    joined = {n for n, v in outputs.items() if _size_of(v) == images * elements.get(n, 0) > 0}
    return {
        name
        for name, v in outputs.items()
        if _leading(v) not in (None, 1, images)
        or (_leading(v) == 1 and (is_fixed or name in joined))
        or _is_empty(v)
    }


def _inferred(
    model: onnx.ModelProto,
    wanted: Mapping[str, Sequence[int]],
    batched: frozenset[str],
    images: int,
) -> dict[str, onnx.ValueInfoProto]:
    """Every tensor with its shape for so many images; none where onnx cannot tell."""
    work = onnx.ModelProto()
    work.CopyFrom(model)
    bind_inputs(work, wanted, split_batch=True)
    for value in work.graph.input:
        if value.name in batched:
            value.type.tensor_type.shape.dim[0].dim_value = images
    del work.graph.value_info[:]
    for output in work.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(work, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return {}
    return {value.name: value for value in (*graph.value_info, *graph.output)}


def _joins_images(
    many: Mapping[str, onnx.ValueInfoProto], one: Mapping[str, onnx.ValueInfoProto], images: int
) -> bool:
    """Whether some tensor has all images in one, as a Flatten of axis 0 makes it."""
    return any(
        _leading(value) == 1 and _size_of(value) == images * (_size_of(one[name]) or 0) > 0
        for name, value in many.items()
        if name in one
    )


def _size_of(value: onnx.ValueInfoProto) -> int | None:
    """Elements of a tensor, None where an axis is unknown."""
    sizes = [_size(dim) for dim in value.type.tensor_type.shape.dim]
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def _is_empty(value: onnx.ValueInfoProto) -> bool:
    if not _rank(value):
        return False
    leading = value.type.tensor_type.shape.dim[0]
    return bool(leading.HasField("dim_value") and leading.dim_value == 0)


def open_batches(
    model: onnx.ModelProto, wanted: Mapping[str, Sequence[int]], batched: frozenset[str]
) -> dict[str, bool]:
    """The inputs whose batch has no fixed size in the model, and whether a size is wanted."""
    return {
        value.name: next(iter(wanted.get(value.name, ())), 1) > 1
        for value in model.graph.input
        if value.name in batched and _leading(value) is None
    }


def _leading(value: onnx.ValueInfoProto) -> int | None:
    """The fixed leading size of a tensor, if it has one."""
    dims = value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ()
    return _size(dims[0]) if dims else None


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim) if value.type.HasField("tensor_type") else 0


def _input_shape(
    value: onnx.ValueInfoProto,
    wanted: Sequence[int] | None,
    findings: Findings,
    split_batch: bool,
) -> tuple[list[int], bool]:
    """The fixed shape of one input, and whether its leading axis is clearly the batch."""
    tensor = value.type.tensor_type
    at = Location(node=f"input `{value.name}`")
    if not tensor.HasField("shape") and wanted is None:
        findings.error("F205", f"input `{value.name}` has no shape", at, _shape_hint(value.name))
        return [], False
    known = [_size(dim) for dim in tensor.shape.dim]
    if wanted is not None:
        if tensor.HasField("shape") and not _fits(known, wanted):
            findings.error(
                "F207",
                f"shape {_text(wanted)} does not fit input `{value.name}` of shape "
                f"{_text([d.dim_param or d.dim_value or '?' for d in tensor.shape.dim])}",
                at,
            )
            return [], False
        known = [size if size > 0 else None for size in wanted]
    if not known:
        return [], False
    is_named = len(tensor.shape.dim) > 0 and _size(tensor.shape.dim[0]) is None
    is_whole = not split_batch and (known[0] or 1) > 1
    has_batch = (
        known[0] is None or (is_named and not is_whole) or (known[0] == 1 and len(known) > 1)
    )
    sizes = [1 if has_batch else known[0], *known[1:]]
    unknown = [axis for axis, size in enumerate(sizes) if size is None]
    if unknown:
        names = [tensor.shape.dim[a].dim_param or "?" for a in unknown if a < len(tensor.shape.dim)]
        findings.error(
            "F205",
            f"input `{value.name}`: axis {', '.join(map(str, unknown))} is dynamic "
            f"({', '.join(f'`{n}`' for n in names)}); only the batch may be",
            at,
            _shape_hint(value.name, [s or "?" for s in sizes]),
        )
    return [size or 1 for size in sizes], has_batch


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    """A fixed size; None for a named axis and for the 0 and -1 that some exporters write."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None


def _fits(known: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return len(known) == len(wanted) and all(
        have is None or size <= 0 or have == size or axis == 0
        for axis, (have, size) in enumerate(zip(known, wanted, strict=True))
    )


def _text(sizes: Sequence[object]) -> str:
    return "[" + ",".join(map(str, sizes)) + "]"


def _shape_hint(name: str, sizes: Sequence[object] = ("1", "...")) -> str:
    return f"give it with --input-shape {name}={','.join(map(str, sizes))}"
