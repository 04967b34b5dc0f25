"""Runner: tensors of a float model on data, chunk by chunk, through onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from isa.diagnostics import Diagnostic, PimError

Array = NDArray[Any]
Data = Mapping[str, Array]
_CHUNK_ELEMENTS = 1 << 17  # of the inputs; inner tensors are larger by some ten times
_CHUNK_IMAGES = 64


class Runner:
    """Computes chosen tensors of a model. Nodes that they do not need are not run."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str]) -> None:
        """Prepare ``model``; its batch axis is freed where the graph allows that.

        Raises PimError U951 when onnxruntime refuses the model.
        """
        self.tensors = list(tensors)
        self._fixed = _with_outputs(model, self.tensors)
        self._free = _session(_free_batch(self._fixed))
        self._single: Any = None

    def chunks(self, data: Data) -> Iterator[dict[str, Array]]:
        """The tensors for consecutive images of ``data``: arrays [images, ...] by input name."""
        count = image_count(data)
        elements = sum(array[0].size for array in data.values()) if count else 1
        span = max(1, min(_CHUNK_IMAGES, _CHUNK_ELEMENTS // max(1, elements)))
        for first in range(0, count, span):
            feed = {n: np.asarray(a[first : first + span], np.float32) for n, a in data.items()}
            yield dict(zip(self.tensors, self._run(feed), strict=True))

    def all(self, data: Data) -> dict[str, Array]:
        """The tensors for all images at once; for outputs, which are small."""
        found = list(self.chunks(data))
        return {name: np.concatenate([chunk[name] for chunk in found]) for name in self.tensors}

    def _run(self, feed: dict[str, Array]) -> list[Array]:
        """One chunk; image by image where the graph holds on to its batch size."""
        images = image_count(feed)
        if self._single is None:
            try:
                found: list[Array] = self._free.run(self.tensors, feed)
                if all(array.ndim and len(array) == images for array in found):
                    return found
            except Exception as error:
                if images == 1:
                    raise _refused(error) from error
            self._single = _session(self._fixed)
        try:
            runs = [
                self._single.run(self.tensors, {n: a[i : i + 1] for n, a in feed.items()})
                for i in range(images)
            ]
        except Exception as error:
            raise _refused(error) from error
        return [np.concatenate(arrays) for arrays in zip(*runs, strict=True)]


def image_count(data: Data) -> int:
    """How many images there are. Raises PimError U951 when the arrays differ or there are none."""
    counts = {len(array) for array in data.values()}
    if len(counts) != 1 or counts == {0}:
        raise PimError(
            Diagnostic(
                "U951",
                f"the arrays of the data have {sorted(counts) or 'no'} images",
                hint="give one array [images, ...] for each input of the model, of equal length",
            )
        )
    return counts.pop()


def _refused(error: Exception) -> PimError:
    first = str(error).strip().splitlines()[0]
    return PimError(Diagnostic("U951", f"onnxruntime does not run the model on the data: {first}"))


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in tensors:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        changed.graph.output.append(value)
    return changed


def _free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    free = onnx.ModelProto()
    free.CopyFrom(model)
    del free.graph.value_info[:]
    constants = {tensor.name for tensor in free.graph.initializer}
    for value in free.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims:
            dims[0].dim_param = "images"
    shapes = {node.input[1] for node in free.graph.node if node.op_type == "Reshape"}
    for tensor in free.graph.initializer:
        if tensor.name not in shapes:
            continue
        shape = numpy_helper.to_array(tensor).copy()
        if shape.size and shape[0] == 1:  # fixed at batch 1: take the axis over as it comes
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    return free


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is raised, and reported once
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise _refused(error) from error
