"""Compression: lossy transforms of a float model, asked for and never default, with their price.

specs = [parse_compression("pattern:keep=4,patterns=8")]
done = compress(model, {"image": images}, specs, Labelled({"image": test}, labels))
print(done.report.as_text())
"""

from pimc.compress.channels import remove_constant_channels
from pimc.compress.flow import Compressed, Labelled, compress
from pimc.compress.report import Accuracy, CompressionReport, LayerReport
from pimc.compress.spec import Spec, parse_compression

__all__ = [
    "Accuracy",
    "Compressed",
    "CompressionReport",
    "Labelled",
    "LayerReport",
    "Spec",
    "compress",
    "parse_compression",
    "remove_constant_channels",
]
