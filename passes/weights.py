"""Integer weights of a layer as the mapping passes see them: sections of rows and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.graph import MatrixNode


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """W* of one layer; a section is one convolution group (one section when ``groups`` is 1).

    inputs: K, the window elements of the whole layer. rows: int32 [sections, Kg], the window
    index ``k = (i * kernel_columns + j) * channels + c`` of each row, in (channel, kernel row,
    kernel column) order, so that neighbouring rows are one kernel of one input channel.
    values: int16 [sections, Kg, Og]. Output ``o`` of section ``s`` is ``s * Og + o``.
    """

    inputs: int
    kernel_size: int
    rows: NDArray[np.int32]
    values: NDArray[np.int16]

    @property
    def outputs(self) -> int:
        return int(self.values.shape[0] * self.values.shape[2])

    def matrix(self) -> NDArray[np.int32]:
        """W* as one matrix, int32 [K, O], zero outside the sections."""
        full = np.zeros((self.inputs, self.outputs), np.int32)
        width = self.values.shape[2]
        for section, rows in enumerate(self.rows):
            full[rows, section * width : (section + 1) * width] = self.values[section]
        return full


def layer_weights(node: MatrixNode) -> LayerWeights:
    """Sections of a Conv, Gemm or MatMul node."""
    outputs, kernel_rows, kernel_columns, per_group = node.weights.shape
    sections, positions = node.groups, kernel_rows * kernel_columns
    channels = per_group * sections
    width = outputs // sections
    values = node.weights.astype(np.int16).reshape(sections, width, positions, per_group)
    channel = np.arange(channels, dtype=np.int32).reshape(sections, per_group, 1)
    rows = channel + np.arange(positions, dtype=np.int32) * channels
    return LayerWeights(
        inputs=positions * channels,
        kernel_size=positions,
        rows=np.ascontiguousarray(rows.reshape(sections, per_group * positions)),
        values=np.ascontiguousarray(
            values.transpose(0, 3, 2, 1).reshape(sections, per_group * positions, width)
        ),
    )
