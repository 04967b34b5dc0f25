"""Modules of the networks in `architectures.py` that neither torch nor transformers has."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """One layer of DenseNet: its 32 new channels are appended to what it read."""

    def __init__(self, channels: int, growth: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 128, 1, bias=False)),
            *(nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, growth, 3, padding=1, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class UNet(nn.Module):
    """A U-Net of three levels: ConvTranspose2d on the way up, skip connections by Concat."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(map(double, [3, *widths[:-1]], widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(double(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            x = level(x if not skips else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Tagger(nn.Module):
    """A bidirectional LSTM that gives each token of a sentence one of 17 tags."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5000, 100)
        self.lstm = nn.LSTM(100, 128, bidirectional=True, batch_first=True)
        self.tag = nn.Linear(256, 17)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tag(self.lstm(self.embed(tokens))[0])


class Residual(nn.Module):
    """``relu(shortcut + body)`` of images or volumes."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.body(x))


class Diffusion(nn.Module):
    """A block of a diffusion U-Net: GroupNorm, SiLU, a time embedding, and self-attention."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.GroupNorm(32, width) for _ in range(4))
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1)
            for inputs, outputs in ((4, width), (width, width), (width, width), (width, 4))
        )
        self.time = nn.Linear(256, width)
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        silu = nn.functional.silu
        x = self.convs[0](x)
        inner = self.convs[1](silu(self.norms[0](x))) + self.time(silu(time))[:, :, None, None]
        x = x + self.convs[2](silu(self.norms[1](inner)))
        batch, width, rows, columns = x.shape
        places = self.norms[2](x).flatten(2).transpose(1, 2)
        query, key, value = (
            mix(places).reshape(batch, rows * columns, self.heads, -1).transpose(1, 2)
            for mix in self.mixes[:3]
        )
        share = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        mixed = self.mixes[3]((share @ value).transpose(1, 2).flatten(2))
        x = x + mixed.transpose(1, 2).reshape(x.shape)
        return self.convs[3](silu(self.norms[3](x)))


class Waves(nn.Module):
    """A Demucs of two levels: gated 1-D convolutions around an LSTM, transposed ones back."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 8, 4), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1))
            for i, o in ((1, width), (width, 2 * width))
        )
        self.lstm = nn.LSTM(2 * width, 2 * width)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(i, 2 * i, 3, padding=1), nn.GLU(1), nn.ConvTranspose1d(i, o, 8, 4)
            )
            for i, o in ((2 * width, width), (width, 2))
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        x = self.down[1](first)
        x = self.up[0](self.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0) + x)
        return self.up[1](nn.functional.relu(x) + first[..., : x.shape[-1]])


class Experts(nn.Module):
    """A mixture of experts: all of them as one product of many matrices, weighted by a gate."""

    def __init__(self, width: int = 64, experts: int = 8) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.first = nn.Parameter(torch.randn(experts, width, 4 * width) / width**0.5)
        self.second = nn.Parameter(torch.randn(experts, 4 * width, width) / width**0.5 / 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.silu(torch.matmul(x.unsqueeze(1), self.first))
        weights = self.gate(x).softmax(-1).transpose(1, 2).unsqueeze(-1)
        return (torch.matmul(hidden, self.second) * weights).sum(1)


class Keypoints(nn.Module):
    """Places of 17 keypoints: the centers of mass of heat maps, by a softmax over 4,096 places."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(double(3, 32), nn.MaxPool2d(2), double(32, 64))
        self.head = nn.ConvTranspose2d(64, 17, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.head(self.body(x))
        heat = maps.flatten(2).softmax(-1).view_as(maps)
        places = torch.linspace(-1, 1, maps.shape[-1])
        return torch.stack([(heat.sum(axis) * places).sum(-1) for axis in (2, 3)], -1)


class Pyramid(nn.Module):
    """A RetinaNet: features of three scales, heads with shared weights, boxes side by side."""

    def __init__(self, classes: int = 20, anchors: int = 9) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in pairwise(widths)
        )
        self.side = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in widths[2:])
        self.heads = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
                nn.Conv2d(64, anchors * values, 3, padding=1),
            )
            for values in (classes, 4)
        )
        self.values = (classes, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scales: list[Tensor] = []
        x = self.body[0](x)
        for body, side in zip(self.body[1:], self.side, strict=True):
            x = body(x)
            scales.append(side(x))
        for at in (1, 0):
            scales[at] = scales[at] + nn.functional.interpolate(scales[at + 1], scale_factor=2)
        return tuple(
            torch.cat([self.flat(head(scale), values) for scale in scales], 1)
            for head, values in zip(self.heads, self.values, strict=True)
        )

    def flat(self, x: Tensor, values: int) -> Tensor:
        batch, _, rows, columns = x.shape
        return x.view(batch, -1, values, rows, columns).permute(0, 3, 4, 1, 2).flatten(1, 3)


class Clicks(nn.Module):
    """A DLRM: bags of embeddings, products of each with each, an MLP in front and one behind."""

    def __init__(self, tables: int = 4, width: int = 32) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        self.bags = nn.ModuleList(nn.EmbeddingBag(1000, width, mode="sum") for _ in range(tables))
        pairs = tables * (tables + 1) // 2
        self.head = nn.Sequential(nn.Linear(width + pairs, 64), nn.ReLU(), nn.Linear(64, 1))
        first, second = torch.tril_indices(tables + 1, tables + 1, -1)
        self.register_buffer("pairs", first * (tables + 1) + second)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        dense = self.dense(x)
        bags = [bag(numbers[at]) for at, bag in enumerate(self.bags)]
        every = torch.stack([dense, *bags], 1)
        products = (every @ every.transpose(1, 2)).flatten(1)[:, self.pairs]
        return torch.sigmoid(self.head(torch.cat([dense, products], 1)))


def double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
        *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
    )
