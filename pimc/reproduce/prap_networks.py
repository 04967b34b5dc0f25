"""PRAP-PIM's networks: layer shapes and kept shares, read from `prap_networks.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any, Final

TILE_OUTPUT: Final = 8  # a replica of a layer makes an output of at most 8x8 positions


@dataclass(frozen=True)
class Layer:
    """A convolution, or a fully connected layer with ``kernel`` 0.

    size: output height and width. Weights are 8 bits, one byte an activation.
    """

    inputs: int
    outputs: int
    kernel: int = 0
    size: int = 1
    stride: int = 1

    @property
    def is_dense(self) -> bool:
        """Whether the layer is fully connected."""
        return self.kernel == 0

    @property
    def rows(self) -> int:
        """Rows of the layer's weight matrix."""
        return self.inputs * max(1, self.kernel) ** 2

    @property
    def multiple(self) -> int:
        """Replicas of the layer along one axis; there are ``multiple ** 2``."""
        return replicas(self.size)

    @property
    def windows(self) -> int:
        """Output positions that one replica computes."""
        return (self.size // self.multiple) ** 2

    @property
    def input_bytes(self) -> int:
        """Bytes of the layer's input feature map."""
        return self.inputs * (self.size * self.stride) ** 2

    @property
    def output_bytes(self) -> int:
        """Bytes of the layer's output feature map."""
        return self.outputs * self.size**2

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.rows * self.outputs


@dataclass(frozen=True)
class Network:
    """A network of the paper and what the paper says of its dense mapping.

    keep, corrected: list name -> share kept for each layer; `corrected` has only the lists in
    which the authors' one is at fault.
    """

    name: str
    layers: tuple[Layer, ...]
    pools: tuple[int, ...]
    additions: int
    keep: dict[str, tuple[Fraction, ...]]
    corrected: dict[str, tuple[Fraction, ...]]
    published: dict[str, float]

    def kept(self, name: str | None, corrected: bool) -> tuple[Fraction, ...]:
        """Return the shares of list `name` for each layer; all of everything for None."""
        if name is None:
            return (Fraction(1),) * len(self.layers)
        return self.corrected.get(name, self.keep[name]) if corrected else self.keep[name]


def replicas(size: int) -> int:
    """Return how many replicas along one axis an output of `size` positions asks for."""
    return -(-size // TILE_OUTPUT)


def load_networks() -> dict[str, Network]:
    """Return the four networks by name, in the order of the paper's table."""
    text = files(__package__).joinpath("prap_networks.toml").read_text(encoding="utf-8")
    return {name: _network(name, data) for name, data in tomllib.loads(text).items()}


def _network(name: str, data: dict[str, Any]) -> Network:
    layers = tuple(Layer(*shape) for shape in data["layers"])
    keep, corrected = (
        {key: _shares(text) for key, text in data.get(section, {}).items()}
        for section in ("keep", "corrected")
    )
    for key, shares in [*keep.items(), *corrected.items()]:
        assert len(shares) == len(layers), f"{name}.{key}: {len(shares)} for {len(layers)} layers"
    return Network(
        name, layers, tuple(data["pools"]), data["additions"], keep, corrected, data["published"]
    )


def _shares(text: str) -> tuple[Fraction, ...]:
    """Read ``8/9*3 0.25``: exact fractions, since the model takes floors and ceilings of them."""
    shares: list[Fraction] = []
    for token in text.split():
        value, _, count = token.partition("*")
        shares += [Fraction(value)] * int(count or 1)
    return tuple(shares)
