"""Odd and bad model files: what people, exporters and attackers hand to a compiler.

Each entry writes one file into a folder; the golden file of `tests/cli/test_odd_inputs.py` says
what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from frontend.makers import integers, make, weights
from onnx import TensorProto, helper, numpy_helper

IMAGE = "(float[N,3,8,8] x) => (float[N,C,H,W] y)"
ROWS = "(float[N,6] x) => (float[N,C] y)"
CONV = weights(4, 3, 3, 3)
Writer = Callable[[Path], object]
ODD: dict[str, Writer] = {}


def odd(name: str) -> Callable[[Writer], Writer]:
    """Register a writer of a file."""

    def register(writer: Writer) -> Writer:
        ODD[name] = writer
        return writer

    return register


def model(name: str, signature: str, body: str, **options: Any) -> None:
    """An entry made of ONNX text."""
    ODD[name] = lambda path: onnx.save(make(signature, body, **options), path)


def changed(name: str, body: str = "y = Conv(x, w)", **options: Any) -> Any:
    """An entry that spoils a model: decorates a function that changes it in place."""

    def register(change: Callable[[onnx.ModelProto], object]) -> None:
        def write(path: Path) -> None:
            proto = make(IMAGE, body, w=CONV, **options)
            change(proto)
            path.write_bytes(proto.SerializeToString())

        ODD[name] = write

    return register


# ------------------------------------------------------------------ files
ODD["an empty file"] = lambda path: path.write_bytes(b"")
ODD["a text file"] = lambda path: path.write_text("this is not a model\n" * 9)
ODD["a directory"] = lambda path: path.mkdir()
ODD["random bytes"] = lambda path: path.write_bytes(np.random.default_rng(0).bytes(4096))
ODD["a zip archive"] = lambda path: np.savez(path.open("wb"), x=np.zeros(3))


@odd("a truncated model")
def truncated(path: Path) -> None:
    path.write_bytes(make(IMAGE, "y = Conv(x, w)", w=CONV).SerializeToString()[:300])


@changed("no graph")
def no_graph(proto: onnx.ModelProto) -> None:
    proto.ClearField("graph")


@changed("no nodes")
def no_nodes(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:]


@changed("no outputs")
def no_outputs(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


@changed("no operator set")
def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


@changed("an operator set of the future")
def future_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 99


@changed("an IR version of the future")
def future_ir(proto: onnx.ModelProto) -> None:
    proto.ir_version = 99


@changed("an operator set of 2017")
def old_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 1


# ------------------------------------------------------------------ structure
@changed("a cycle", "a = Relu(y) y = Conv(a, w)")
def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


@changed("a tensor made twice", "y = Relu(x) z = Relu(y)")
def twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "y"


@changed("an input that nobody makes")
def unknown_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nowhere"


@changed("an operator that does not exist")
def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Convolve"


@changed("two weights of one name")
def same_weights(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


@changed("an unused input")
def unused_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2]))


@changed("weights that claim a terabyte")
def huge_claim(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 20, 1 << 18, 1, 1]


@changed("weights of negative size")
def negative_size(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -4


@changed("weights shorter than they claim")
def short_weights(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:17]


@changed("external data outside of the folder")
def outside(proto: onnx.ModelProto) -> None:
    external(proto, location="../../../../etc/passwd")


@changed("external data by an absolute path")
def absolute(proto: onnx.ModelProto) -> None:
    external(proto, location="/etc/passwd")


@changed("external data that is missing")
def missing(proto: onnx.ModelProto) -> None:
    external(proto, location="weights.bin")


@changed("external data beyond the end of its file")
def beyond(proto: onnx.ModelProto) -> None:
    external(proto, location="beyond.onnx", offset="99999999", length="432")


def external(proto: onnx.ModelProto, **entries: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@changed("a name that is HTML", "y = Relu(x)")
def html(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].name = '<script>alert("1")</script>\n"\\'


@changed("a name of 10,000 letters", "y = Conv(x, w)")
def long_name(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].name = "n" * 10_000


@changed("a name in Chinese", "y = Conv(x, w)")
def chinese(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].name = "卷积层"


# ------------------------------------------------------------------ attributes
for wrong in (
    "strides=[0,1]",
    "strides=[100000,1]",
    "pads=[-1,0,0,0]",
    "pads=[0,0,2147483647,0]",
    "dilations=[0,0]",
    "dilations=[9,9]",
    "kernel_shape=[5,5]",
    "group=0",
    "group=2",
    'auto_pad="MAYBE"',
    "pads=[1,1]",
):
    model(f"Conv with {wrong}", IMAGE, f"y = Conv<{wrong}>(x, w)", w=CONV)
model("a Reshape to minus five", IMAGE, "y = Reshape(x, s)", s=np.array([-5, 2]))
model("a Reshape of the wrong size", IMAGE, "y = Reshape(x, s)", s=np.array([0, 7, 7]))
model("a Transpose of a missing axis", IMAGE, "y = Transpose<perm=[0,1,2,7]>(x)")
model("a Concat along axis nine", IMAGE, "y = Concat<axis=9>(x, x)")
model("a Gather beyond the end", IMAGE, "y = Gather<axis=1>(x, i)", i=np.array([7]))

# ------------------------------------------------------------------ numbers
model("NaN weights", IMAGE, "y = Conv(x, w)", w=np.where(CONV > 0.5, np.nan, CONV))
model("infinite weights", IMAGE, "y = Conv(x, w)", w=np.where(CONV > 0.5, np.inf, CONV))
model("weights that are all zero", IMAGE, "y = Conv(x, w)", w=0 * CONV)
model("weights that are all equal", IMAGE, "y = Conv(x, w)", w=0 * CONV + 0.25)
model("tiny weights", IMAGE, "y = Conv(x, w)", w=CONV * np.float32(1e-38))
model("huge weights", IMAGE, "y = Conv(x, w)", w=CONV * np.float32(1e37))
model(
    "float16 weights",
    IMAGE,
    "v = Cast<to=1>(w) y = Conv(x, v)",
    w=CONV.astype(np.float16),
)
model("an integer beyond 8 bits", "(int16[N,6] x) => (float[N,6] y)", "y = Cast<to=1>(x)")
model("text", "(string[N] x) => (string[N] y)", "y = Identity(x)")
model("truth values", "(bool[N,6] x) => (bool[N,6] y)", "y = Not(x)")
model("a quantization of scale zero", IMAGE,
      "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
      s=np.float32(0), z=np.int8(0))  # fmt: skip
model("a negative scale", IMAGE, "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
      s=np.float32(-1), z=np.int8(0))  # fmt: skip
model("16-bit quantization", IMAGE, "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
      s=np.float32(0.1), z=np.int16(0))  # fmt: skip

# ------------------------------------------------------------------ shapes
model("a dynamic height", "(float[N,3,H,8] x) => (float[N,C,A,B] y)", "y = Conv(x, w)", w=CONV)
model("a batch of four", "(float[4,3,8,8] x) => (float[4,C,H,W] y)", "y = Conv(x, w)", w=CONV)
model("no elements", "(float[N,3,0,8] x) => (float[N,3,0,8] y)", "y = Relu(x)")
model("a scalar", "(float x) => (float y)", "y = Relu(x)")
model("seven axes", "(float[N,1,2,1,2,1,3] x) => (float[N,1,2,1,2,1,3] y)", "y = Relu(x)")
model("a kernel larger than its image", IMAGE, "y = Conv(x, w)", w=weights(4, 3, 9, 9))
model("channels that do not fit", IMAGE, "y = Conv(x, w)", w=weights(4, 5, 3, 3))

# ------------------------------------------------------------------ what others fail at
model("an unsupported operator at the end", IMAGE, "c = Conv(x, w) y = Det(c)", w=CONV)
model("an ArgMax at the end", "(float[N,6] x) => (int64[N,1] y)", "y = ArgMax<axis=1>(x)")
model("a LeakyRelu in the middle", IMAGE, "c = Conv(x, w) r = LeakyRelu(c) y = Conv(r, v)",
      w=CONV, v=weights(2, 4, 1, 1))  # fmt: skip
model("a ConvTranspose", IMAGE, "y = ConvTranspose<strides=[2,2]>(x, w)", w=weights(3, 4, 2, 2))
model("a chain of Identity", IMAGE, "a = Identity(x) b = Identity(a) y = Conv(b, w)", w=CONV)
model("a product only", ROWS, "y = MatMul(x, w)", w=weights(6, 5))
model("an MLP", ROWS, "a = Gemm(x, w) b = Relu(a) y = Gemm(b, v)", w=weights(6, 8), v=weights(8, 3))
model("a Gemm with alpha and beta", ROWS, "y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)",
      w=weights(5, 6), b=weights(5))  # fmt: skip
model(
    "an attention block",
    "(float[N,4,6] x) => (float[N,4,6] y)",
    "t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) p = Softmax<axis=-1>(s) y = MatMul(p, x)",
)
model("a Clip of opset 6", IMAGE, "c = Conv(x, w) y = Clip<min=0.0, max=6.0>(c)", w=CONV, opset=9)
model("dilation, ceil_mode and auto_pad", IMAGE, """
      c = Conv<dilations=[2,2], auto_pad="SAME_UPPER">(x, w)
      y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(c)""", w=CONV)  # fmt: skip
model("a 1-D convolution", "(float[N,3,20] x) => (float[N,C,L] y)", "y = Conv(x, w)",
      w=weights(4, 3, 5))  # fmt: skip
model("a 3-D convolution", "(float[N,3,5,5,5] x) => (float[N,C,A,B,D] y)", "y = Conv(x, w)",
      w=weights(4, 3, 2, 2, 2))  # fmt: skip
model("a trunk read by Relu and Add", IMAGE, "c = Conv(x, w) r = Relu(c) y = Add(c, r)", w=CONV)
model("a pool first", IMAGE, "p = MaxPool<kernel_shape=[2,2]>(x) y = Conv(p, w)", w=CONV)
model("asymmetric pads", IMAGE, "y = Conv<pads=[2,0,1,3]>(x, w)", w=CONV)
model("two inputs", "(float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,3,8,8] y)", "y = Add(x, z)")
model("two outputs", "(float[N,3,8,8] x) => (float[N,3,8,8] y, float[N,3,8,8] z)",
      "y = Relu(x) z = Sigmoid(x)")  # fmt: skip
model("an input that is an output", "(float[N,6] x) => (float[N,6] x)", "y = Relu(x)")
model("weights at run time", "(float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y)",
      "y = Conv(x, w)")  # fmt: skip
model("already quantized", IMAGE, """q = QuantizeLinear(x, s, z)
      c = QLinearConv(q, s, z, w, s, z, s, z) y = DequantizeLinear(c, s, z)""",
      w=integers(4, 3, 3, 3), s=np.float32(0.05), z=np.int8(0))  # fmt: skip


@odd("a branch at run time")
def branch(path: Path) -> None:
    info = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    bodies = [
        helper.make_graph([helper.make_node(op, ["x"], ["b"])], op, [], [info])
        for op in ("Relu", "Neg")
    ]
    proto = make("(float[N,6] x, bool c) => (float[N,6] y)", "y = Relu(x)")
    node = helper.make_node("If", ["c"], ["y"], "choice", then_branch=bodies[0])
    node.attribute.append(helper.make_attribute("else_branch", bodies[1]))
    proto.graph.node[0].CopyFrom(node)
    onnx.save(proto, path)


@odd("an operator of one's own")
def custom(path: Path) -> None:
    proto = make(IMAGE, "y = Relu(x)")
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "my.company", "Magic"
    proto.opset_import.append(helper.make_opsetid("my.company", 1))
    onnx.save(proto, path)


@odd("a function that calls itself")
def recursion(path: Path) -> None:
    proto = make(IMAGE, "y = Relu(x)")
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "local", "Again"
    proto.opset_import.append(helper.make_opsetid("local", 1))
    inner = helper.make_node("Again", ["a"], ["b"], domain="local")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    proto.functions.append(helper.make_function("local", "Again", ["a"], ["b"], [inner], opsets))
    path.write_bytes(proto.SerializeToString())


@odd("weights as a sparse tensor")
def sparse(path: Path) -> None:
    proto = make(ROWS, "y = MatMul(x, w)")
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 9]), "w_places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [6, 5]))
    onnx.save(proto, path)


@odd("a list of tensors as output")
def sequence(path: Path) -> None:
    proto = make("(float[N,6] x) => (float[N,6] y)", "y = SequenceConstruct(x, x)")
    kind = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    proto.graph.output[0].CopyFrom(kind)
    path.write_bytes(proto.SerializeToString())
