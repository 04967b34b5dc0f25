"""The onnx backend interface: pimc behind `onnx.backend.base`, for onnx's own operator tests.

    import pimc.backend
    outputs = pimc.backend.run_model(model, [x])

A float network is quantized, so its results differ from float ones by rounding; the ranges come
from the inputs of the first run. Graph inputs that only serve as parameters are bound to the values
of that run, as `pimc compile --bind` does, because crossbars are programmed before they compute:
weights of layers (`PimcRep.weights` names them), and shapes, axes and limits. A run with other
values of theirs compiles anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from isa.diagnostics import PimError
from isa.target import DEFAULT_TARGET
from pimc import api
from pimc.data import Array
from pimc.frontend.bound import free_inputs, weight_inputs
from pimc.frontend.build import FrontendOptions, import_model
from pimc.frontend.net import OPSET
from pimc.frontend.normalize import IR_VERSION

_CHIP_ALONE = FrontendOptions(use_host=False)  # what the host would run is not ours to count
# operators whose second and further inputs may be tensors like the first one
_SYMMETRIC = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Concat", "MatMul", "Where")
)


class PimcRep(BackendRep):
    """A model that is compiled when its first inputs are known.

    bound: the parameters that stood among the inputs, as the crossbars or the program hold them.
    weights: those that are weights of layers. compiles: how often the model was compiled.
    """

    def __init__(self, model: onnx.ModelProto, target: str) -> None:
        self.model, self.target = model, target
        self.program: api.CompiledProgram | None = None
        self.bound: dict[str, Array] = {}
        self.weights: list[str] = []
        self.compiles = 0

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """Outputs in the model's order, as a tuple with field names.

        inputs: arrays in the order of the graph's inputs, by name, or a single array. Raises
        PimError when the model is refused.
        """
        feeds = self._by_name(inputs)
        held = self.bound.items()
        if self.program is None or not all(np.array_equal(feeds[n], a) for n, a in held):
            self._compile(feeds)
        assert self.program is not None
        given = {t.onnx_name: (t.batched, feeds[t.onnx_name]) for t in self.program.input_tensors}
        samples = {name: array if batched else array[None] for name, (batched, array) in
                   given.items()}  # fmt: skip
        found = self.program.run(samples)
        names = [output.name for output in self.model.graph.output]
        batched = {t.onnx_name: t.batched for t in self.program.output_tensors}
        results = [found[name] if batched[name] else found[name][0] for name in names]
        return namedtupledict("Outputs", names)(*results)

    def _by_name(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            return {name: np.asarray(array) for name, array in inputs.items()}
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        weights = {tensor.name for tensor in self.model.graph.initializer}
        names = [value.name for value in self.model.graph.input]
        if len(given) < len(names):
            names = [name for name in names if name not in weights]
        return dict(zip(names, map(np.asarray, given), strict=True))

    def _compile(self, feeds: Mapping[str, Array]) -> None:
        ranks = {name: array.ndim for name, array in feeds.items()}
        self.weights = weight_inputs(self.model, ranks)
        self.bound = {name: feeds[name] for name in parameters(self.model, self.weights)}
        options = replace(_CHIP_ALONE, bind=self.bound)
        values = import_model(self.model, None, options).graph.values
        data = {name: array for name, array in feeds.items() if name not in self.bound}
        batched = {name: values[name].batched for name in data if name in values}
        calibration = {
            name: array if batched.get(name, True) else array[None]
            for name, array in data.items()
            if array.dtype.kind == "f"
        }
        self.program = api.compile(
            self.model,
            self.target,
            calibration or None,
            tiles="auto",
            host=False,
            bind=self.bound,
        )
        self.compiles += 1


def parameters(model: onnx.ModelProto, weights: Sequence[str]) -> list[str]:
    """The free inputs that are bound: weights, and what only tells operators what to do."""
    data = {
        name
        for node in model.graph.node
        for at, name in enumerate(node.input)
        if at == 0 or node.op_type in _SYMMETRIC
    }
    free = free_inputs(model)
    found = [name for name in free if name in weights or name not in data]
    return [] if len(found) == len(free) else found  # an embedding: its numbers stand second


class PimcBackend(Backend):
    """`onnx.backend.base.Backend` of the reference machine."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the frontend takes the model, with weights of ones where they are inputs."""
        ports = {value.name: value.type.tensor_type for value in model.graph.input}
        ranks = {name: len(port.shape.dim) for name, port in ports.items()}
        ones = {
            name: np.ones(
                [dim.dim_value or 1 for dim in ports[name].shape.dim],
                helper.tensor_dtype_to_np_dtype(ports[name].elem_type),
            )
            for name in weight_inputs(model, ranks)
        }
        try:
            import_model(model, None, replace(_CHIP_ALONE, bind=ones))
        except PimError:
            return False
        return True

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", *, target: str = DEFAULT_TARGET,
        **kwargs: Any,
    ) -> PimcRep:  # fmt: skip
        """The model, to be compiled with its first inputs. Raises ValidationError for a bad one."""
        super().prepare(model, device, **kwargs)
        return PimcRep(model, target)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run a single operator on arrays; its results are float32 where nothing else is said."""
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        results = [name for name in node.output if name]
        types = [dtype for dtype, _ in outputs_info or ()] or [np.dtype(np.float32)] * len(results)
        ports = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ]
        outputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), None)
            for name, dtype in zip(results, types, strict=True)
        ]
        graph = helper.make_graph([node], "node", ports, outputs)
        opsets = [helper.make_opsetid("", kwargs.pop("opset_version", OPSET))]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        inferred = onnx.shape_inference.infer_shapes(model)
        return cls.prepare(inferred, device, **kwargs).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The machine runs on the CPU."""
        return device == "CPU"


is_compatible = PimcBackend.is_compatible
prepare = PimcBackend.prepare
run_model = PimcBackend.run_model
run_node = PimcBackend.run_node
supports_device = PimcBackend.supports_device
