"""Models with symbolic axes: a small convolutional network, and a tagger of token sequences."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray
IMAGE = """<ir_version: 10, opset_import: ["": 17]>
net (float[N,3,height,width] x) => (float[N,5] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  d = Add (b, c)
  e = GlobalAveragePool (d)
  f = Flatten (e)
  y = Gemm (f, w3)
}"""
TAGGER = """<ir_version: 10, opset_import: ["": 17]>
tagger (int64[N,tokens] ids, float[N,tokens] mask) => (float[N,tokens,4] y)
<int64 one = {1}, int64[1] zero = {0}, int64[1] last = {-1}> {
  words = Gather (table, ids)
  size = Shape <start = 1, end = 2> (ids)
  places = Slice (positions, zero, size, zero)
  sums = Add (words, places)
  wide = Unsqueeze (mask, last)
  kept = Mul (sums, wide)
  y = MatMul (kept, w)
}"""
ATTENTION = """<ir_version: 10, opset_import: ["": 17]>
attention (float[N,tokens,8] x) => (float[N,tokens,8] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[2] both = {0, 1}, float low = {-10000.0}> {
  k = Transpose <perm = [0, 2, 1]> (x)
  scores = MatMul (x, k)
  size = Shape <start = 1, end = 2> (x)
  sizes = Concat <axis = 0> (size, size)
  zeros = Concat <axis = 0> (zero, zero)
  mask = Slice (later, zeros, sizes, both)
  sums = Add (scores, mask)
  share = Softmax <axis = -1> (sums)
  mixed = MatMul (share, x)
  y = MatMul (mixed, w)
}"""
LONGEST = 12  # sequence that the tagger has places for


def image_net(seed: int = 0) -> onnx.ModelProto:
    """Two convolutions and a dense layer over an average: any height and width."""
    weights = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "w3": (16, 5)}
    return _with_weights(IMAGE, weights, seed)


def tagger(seed: int = 0) -> onnx.ModelProto:
    """Embeddings of tokens and places, a mask, a dense layer: any number of tokens to LONGEST."""
    return _with_weights(TAGGER, {"table": (20, 8), "positions": (LONGEST, 8), "w": (8, 4)}, seed)


def attention(seed: int = 0) -> onnx.ModelProto:
    """Causal attention over any number of vectors to LONGEST; its mask adds -10,000."""
    model = _with_weights(ATTENTION, {"w": (8, 8)}, seed)
    later = np.triu(np.full((LONGEST, LONGEST), -1e4, np.float32), 1)
    model.graph.initializer.append(numpy_helper.from_array(later, "later"))
    return model


def images(samples: int, height: int, width: int, seed: int = 1) -> dict[str, Array]:
    """Samples of ``image_net``."""
    noise = np.random.default_rng(seed).normal(size=(samples, 3, height, width))
    return {"x": noise.astype(np.float32)}


def sentences(samples: int, tokens: int, seed: int = 1) -> dict[str, Array]:
    """Samples of ``tagger``."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (samples, tokens)).astype(np.float32)
    return {"ids": rng.integers(0, 20, (samples, tokens)), "mask": mask}


def _with_weights(text: str, shapes: dict[str, tuple[int, ...]], seed: int) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model
