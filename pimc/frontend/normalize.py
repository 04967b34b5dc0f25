"""Normalize: fixed shapes, one operator set, constants folded, batch normalization fused.

The order and its reasons: the C++ converter first, because the optimizer knows current operators
only; initializers leave the inputs and constants become initializers before folding, because
folding trusts initializers alone; shapes are fixed before folding, so that shape arithmetic
vanishes; other floats become float32 behind folding, so that sizes computed in double stay right,
and before fusion, so that fused weights are not rounded to 16 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx import helper, numpy_helper, shape_inference, version_converter
from onnxscript import optimizer, rewriter

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from pimc.frontend.ceil_pools import resolve_ceil_mode, resolve_same
from pimc.frontend.contrib import spell_contrib
from pimc.frontend.fusions import EXACT, RULES
from pimc.frontend.input_shapes import bind_inputs
from pimc.frontend.load import OLDEST_RUNNABLE, opset_of
from pimc.frontend.net import OPSET
from pimc.frontend.precision import read_as_float32, width_warning
from pimc.frontend.session import run_on_zeros

IR_VERSION = 10
for library in ("onnxscript.optimizer", "onnx_ir"):  # `fold` does what they could not
    logging.getLogger(library).setLevel(logging.ERROR)
_UNLIMITED = 2**40
_FOLDINGS = 2  # what rewriting leaves constant is folded, too
_UNCONVERTED = (
    RuntimeError,
    ValueError,
    onnx.checker.ValidationError,
    version_converter.ConvertError,
    shape_inference.InferenceError,
)
_OPAQUE = frozenset(("GroupNormalization",))  # a function, whose body onnx does not follow
_BOUNDED = frozenset(("Clip", "Max", "Min", "Pad", "Where"))  # take infinity for "no limit"
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)


@dataclass(frozen=True)
class Normalized:
    """A model with fixed shapes (batch 1), and the inputs whose leading axis is the batch.

    outputs: the names that the user knows, in order; passes may have merged tensors behind them.
    is_split: some input had a fixed leading size above 1, which was taken for a batch.
    notes: what the network is read as, where that is not quite what the file says.
    """

    model: onnx.ModelProto
    batched: frozenset[str]
    outputs: tuple[str, ...]
    is_split: bool
    notes: tuple[Diagnostic, ...] = ()


def normalize(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    split_batch: bool = True,
) -> Normalized:
    """Return an equivalent model at fixed input shapes; ``model`` is not changed.

    input_shapes: full shapes by input name; a leading 1 or -1 stands for the batch.
    split_batch: take fixed leading sizes above 1 for a batch too; the caller checks that the
    images stay apart, and normalizes again without it when they do not.
    Raises PimError F205, F206, F207 (see isa.codes) and F204 when the shapes do not fit the graph.
    """
    work = onnx.ModelProto()
    work.CopyFrom(model)
    _refuse_bad_numbers(work)
    batched, is_split = bind_inputs(work, input_shapes or {}, split_batch)
    work = upgraded(work)
    _spell_axes(work)
    _forget_shapes(work)
    work = _with_foreign_shapes(resolve_same(resolve_ceil_mode(work)))
    work, notes = _optimize(work)
    work = resolve_ceil_mode(work)
    if not _has_foreign_nodes(work):
        _forget_shapes(work)
    work = _infer(work)
    _refuse_bad_numbers(work)
    names = tuple(v.name for v in model.graph.output)
    return Normalized(work, batched, names, is_split, tuple(notes))


def upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in operator set 21, or as it is when it is newer.

    Raises PimError F203 when the converter of onnx cannot do it.
    """
    opset = opset_of(model)
    if opset is None or opset >= OPSET:
        return model
    if opset < OLDEST_RUNNABLE:
        _reshape_slopes(model)
    try:
        return version_converter.convert_version(model, OPSET)
    except _UNCONVERTED as error:
        first = str(error).strip().splitlines()[0]
        raise PimError(
            Diagnostic(
                "F203",
                f"the model cannot be converted from opset {opset} to {OPSET}: {first}",
                hint="export the model again with opset 17 or newer",
            )
        ) from error


def _reshape_slopes(model: onnx.ModelProto) -> None:
    """Give PRelu slopes of old models the shape [channels, 1, ...].

    Before opset 7 a slope of one axis went by channel; since then it broadcasts from the last
    axis, and the converter does not adapt it.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in _typed(model)}
    inputs = {value.name: value for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type != "PRelu" or node.input[1] not in tensors:
            continue
        slope, rank = tensors[node.input[1]], ranks.get(node.input[0], 0)
        if len(slope.dims) == 1 and slope.dims[0] > 1 and rank > 2:
            slope.dims.extend([1] * (rank - 2))
            if slope.name in inputs:
                shape = inputs[slope.name].type.tensor_type.shape
                for _ in range(rank - 2):
                    shape.dim.add().dim_value = 1


def _typed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """All tensors of a model whose shape can be inferred."""
    graph = shape_inference.infer_shapes(model).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _has_foreign_nodes(model: onnx.ModelProto) -> bool:
    """Whether there are operators of which onnx cannot infer the shape."""
    return any(
        node.domain not in ("", "ai.onnx") or node.op_type in _OPAQUE for node in model.graph.node
    )


def _with_foreign_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Note the shapes behind operators that onnx cannot infer: run them once.

    A model that does not run is left as it is; the checks of the operators will say more about
    it than onnxruntime does.
    """
    if not _has_foreign_nodes(model):
        return model
    work = onnx.ModelProto()
    work.CopyFrom(model)
    known = {value.name for value in work.graph.output}
    names = [name for node in work.graph.node for name in node.output if name]
    work.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    try:
        results = run_on_zeros(work)
    except PimError:
        return model
    outputs = {value.name: value for value in model.graph.output}
    for name, array in results.items():
        elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        info = helper.make_tensor_value_info(name, elem_type, array.shape)
        if name in outputs:
            outputs[name].CopyFrom(info)
        else:
            model.graph.value_info.append(info)
    return model


def _optimize(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Findings]:
    """The model folded and fused, in float32 and operators of ONNX; and what to say about that."""
    before = ir.passes.Sequential(
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.InlinePass(),
    )
    after = ir.passes.Sequential(
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.OutputFixPass(),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
        common.NameFixPass(),
    )
    try:
        graph = ir.from_proto(model)
        before(graph)
        widths = dict[str, None]()
        for _ in range(_FOLDINGS):
            optimizer.fold_constants_ir(
                graph,
                onnx_shape_inference=True,
                input_size_limit=_UNLIMITED,
                output_size_limit=_UNLIMITED,
                should_fold=_should_fold,
            )
            widths |= dict.fromkeys(read_as_float32(graph))
            rewriter.rewrite(graph, EXACT)
        notes = spell_contrib(graph)
        rewriter.rewrite(graph, EXACT)
        RULES.apply_to_model(graph)
        after(graph)
        graph.ir_version = IR_VERSION
        if widths:
            notes.add(width_warning(tuple(widths)))
        return ir.to_proto(graph), notes
    except Exception as error:  # the passes run on whatever a user's file says
        first = str(error.__cause__ or error).strip().splitlines()[0]
        raise PimError(
            Diagnostic("F204", f"constants of the model cannot be folded: {first}")
        ) from error


def _should_fold(node: ir.Node) -> bool | None:
    """Weights filled by ConstantOfShape are weights; onnxscript leaves them alone by default."""
    return True if node.op_type == "ConstantOfShape" else None


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except shape_inference.InferenceError as error:
        first = str(error).strip().splitlines()[0]  # what follows from it comes after it
        first = first.removeprefix("[ShapeInferenceError] Inference error(s): ")
        raise PimError(
            Diagnostic(
                "F204",
                f"the shapes of the model do not fit together: {first}",
                hint="check --input-shape against the shapes that the model was exported with",
            )
        ) from error


def _spell_axes(model: onnx.ModelProto) -> None:
    """Give MeanVarianceNormalization its default axes, which onnx's own shape inference misses."""
    for node in model.graph.node:
        if node.op_type == "MeanVarianceNormalization" and not node.attribute:
            node.attribute.append(helper.make_attribute("axes", [0, 2, 3]))


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Drop noted shapes: the exporter's may name the batch or contradict the ones just given."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):  # asking would make a sequence a tensor
            output.type.tensor_type.ClearField("shape")


def _refuse_bad_numbers(model: onnx.ModelProto) -> None:
    """Refuse NaN and infinity in weights, naming the tensor and the nodes that use it."""
    findings = Findings()
    for tensor in model.graph.initializer:
        if tensor.data_type not in _FLOATS:
            continue
        values = numpy_helper.to_array(tensor)
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if not bad:
            continue
        users = [n for n in model.graph.node if tensor.name in n.input]
        is_mask = bool((values < np.inf).all())
        allowed = _BOUNDED | {"Add"} if is_mask else _BOUNDED  # minus infinity masks a softmax
        if not np.isnan(values).any() and all(n.op_type in allowed for n in users):
            continue
        named = ", ".join(f"{n.op_type} `{n.name or n.output[0]}`" for n in users) or "no node"
        findings.error(
            "F206",
            f"initializer `{tensor.name}` has {bad} of {values.size} elements that are NaN or "
            f"infinite; it is used by {named}",
            Location(node=f"initializer `{tensor.name}`"),
            "an integer machine has no such numbers: train or export the model again",
        )
    findings.raise_if_any()
