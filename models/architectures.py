"""Architectures: well-known networks with seeded random weights, exported by torch.

    pip install -e '.[torch]'
    python models/architectures.py resnet18 bert -o /tmp/networks        # all without a name

Weights are torch's own initialization under one seed. Of the first ten the batch is dynamic, and
so is the sequence of the two language networks; the others, at the widths of their papers and
with fewer layers, have fixed shapes; the last ones are small, and of kinds that the others lack.
They are made to be tried, not committed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers as hub
from torch import Tensor, nn

SEED = 0


@dataclass(frozen=True)
class Example:
    """A network ready for export. dynamic: input name -> names of its dynamic axes."""

    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)


class Logits(nn.Module):
    """A network of the transformers package, reduced to its inputs and one tensor out.

    names: its parameters that are fed, where there are several.
    """

    def __init__(self, network: nn.Module, *names: str) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *x: Tensor) -> Tensor:
        out = (
            self.network(**dict(zip(self.names, x, strict=True)))
            if self.names
            else self.network(*x)
        )
        return out.logits if hasattr(out, "logits") else out.last_hidden_state


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


def image(network: nn.Module, side: int = 224) -> Example:
    """A network that reads images of 3 channels."""
    return Example(network, {"image": torch.rand(2, 3, side, side)}, {"image": {0: "batch"}})


def tokens(network: nn.Module, vocabulary: int) -> Example:
    """A network that reads sentences of token numbers."""
    sentence = torch.randint(0, vocabulary, (2, 32))
    return Example(network, {"tokens": sentence}, {"tokens": {0: "batch", 1: "sequence"}})


def fixed(network: nn.Module, *shape: int) -> Example:
    """A network that reads one input of a fixed shape: numbers, or tokens where it has two axes."""
    is_text = len(shape) == 2 and shape[1] < 1000
    sample = torch.randint(0, 5000, shape) if is_text else torch.rand(shape)
    return Example(network, {"x": sample})


def style_transfer() -> Example:
    """Convolutions with InstanceNorm down, two residual blocks, and up again, at 128 x 128."""

    def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        pad = nn.ReflectionPad2d(kernel // 2)
        norm = nn.InstanceNorm2d(outputs, affine=True)
        return [pad, nn.Conv2d(inputs, outputs, kernel, stride), norm, nn.ReLU()]

    layers = [*layer(3, 32, 9), *layer(32, 64, 3, 2), *layer(64, 128, 3, 2)]
    layers += [Residual(nn.Sequential(*layer(128, 128, 3), *layer(128, 128, 3)[:-1]))] * 2
    for inputs, outputs in ((128, 64), (64, 32)):
        layers += [nn.Upsample(scale_factor=2), *layer(inputs, outputs, 3)]
    layers += layer(32, 3, 9)[:2]
    return fixed(nn.Sequential(*layers), 1, 3, 128, 128)


def diffusion_block() -> Example:
    return Example(Diffusion(), {"x": torch.rand(1, 4, 32, 32), "time": torch.rand(1, 256)})


def r3d_18() -> Example:
    """ResNet-18 of videos (Tran et al. 2018), 8 frames of 56 x 56."""

    def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return [conv, nn.BatchNorm3d(outputs), nn.ReLU()]

    stem = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm3d(64), nn.ReLU()]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        first = layer(inputs, outputs, 3, stride) + layer(outputs, outputs, 3)[:-1]
        change = nn.Sequential(*layer(inputs, outputs, 1, stride)[:-1]) if stride > 1 else None
        second = layer(outputs, outputs, 3) + layer(outputs, outputs, 3)[:-1]
        layers += [Residual(nn.Sequential(*first), change), Residual(nn.Sequential(*second))]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, 400)]
    return fixed(nn.Sequential(*layers), 1, 3, 8, 56, 56)


def pair(network: nn.Module, first: str, second: str, *inputs: Tensor) -> Example:
    """A network of the transformers package that reads two inputs, as those of two halves do."""
    return Example(Logits(network, first, second), dict(zip((first, second), inputs, strict=True)))


def whisper() -> Example:
    config = hub.WhisperConfig(encoder_layers=1, decoder_layers=1, vocab_size=5000, pad_token_id=0,
                               max_source_positions=200, use_cache=False, bos_token_id=1,
                               eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
    sound, words = torch.randn(1, 80, 400), torch.randint(0, 5000, (1, 16))
    return pair(hub.WhisperModel(config), "input_features", "decoder_input_ids", sound, words)


def t5() -> Example:
    eager = {"attn_implementation": "eager"}
    config = hub.T5Config(num_layers=1, vocab_size=5000, use_cache=False, **eager)
    texts = torch.randint(0, 5000, (1, 32)), torch.randint(0, 5000, (1, 16))
    return pair(hub.T5Model(config), "input_ids", "decoder_input_ids", *texts)


def vgg16() -> Example:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = (nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU())
    return image(nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, 1000)))


def densenet121() -> Example:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for block, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            layers.append(DenseLayer(channels))
            channels += 32
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < 3:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
    return image(nn.Sequential(*layers, *tail))


def resnet18() -> Example:
    config = hub.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], num_labels=1000
    )
    return image(Logits(hub.ResNetForImageClassification(config)))


def vit_tiny() -> Example:
    config = hub.ViTConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        num_labels=1000,
        attn_implementation="eager",
    )
    return image(Logits(hub.ViTForImageClassification(config)))


def bert() -> Example:
    config = hub.BertConfig(
        vocab_size=5000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        attn_implementation="eager",
    )
    return tokens(Logits(hub.BertModel(config, add_pooling_layer=False)), 5000)


ARCHITECTURES: dict[str, Callable[[], Example]] = {
    "resnet18": resnet18,
    "vgg16": vgg16,
    "mobilenetv2": lambda: image(
        Logits(hub.MobileNetV2ForImageClassification(hub.MobileNetV2Config(num_labels=1000)))
    ),
    "efficientnet_b0": lambda: image(
        Logits(
            hub.EfficientNetForImageClassification(
                hub.EfficientNetConfig(
                    width_coefficient=1.0,
                    depth_coefficient=1.0,
                    hidden_dim=1280,
                    dropout_rate=0.2,
                    num_labels=1000,
                )
            )
        )
    ),
    "densenet121": densenet121,
    "convnext_tiny": lambda: image(
        Logits(hub.ConvNextForImageClassification(hub.ConvNextConfig(num_labels=1000)))
    ),
    "vit_tiny": vit_tiny,
    "bert": bert,
    "lstm_tagger": lambda: tokens(Tagger(), 5000),
    "unet": lambda: image(UNet(), side=128),
    "bert_base": lambda: fixed(
        Logits(hub.BertModel(hub.BertConfig(), add_pooling_layer=False)), 1, 128
    ),
    "gpt2": lambda: fixed(Logits(hub.GPT2Model(hub.GPT2Config(use_cache=False))), 1, 64),
    "vit_base": lambda: fixed(
        Logits(hub.ViTModel(hub.ViTConfig(), add_pooling_layer=False)), 1, 3, 224, 224
    ),
    "mobilevit_small": lambda: fixed(
        Logits(hub.MobileViTModel(hub.MobileViTConfig())), 1, 3, 256, 256
    ),
    "segformer_b0": lambda: fixed(
        Logits(hub.SegformerModel(hub.SegformerConfig())), 1, 3, 224, 224
    ),
    "style_transfer": style_transfer,
    "diffusion_block": diffusion_block,
    "r3d_18": r3d_18,
    "poolformer": lambda: fixed(
        Logits(hub.PoolFormerModel(hub.PoolFormerConfig())), 1, 3, 224, 224
    ),
    "convnextv2_4": lambda: fixed(
        Logits(hub.ConvNextV2Model(hub.ConvNextV2Config(depths=[1, 1, 1, 1]))), 1, 3, 224, 224
    ),
    "levit_128s": lambda: fixed(Logits(hub.LevitModel(hub.LevitConfig())), 1, 3, 224, 224),
    "regnet_y_040": lambda: fixed(Logits(hub.RegNetModel(hub.RegNetConfig())), 1, 3, 224, 224),
    "whisper_tiny_1": whisper,
    "t5_small_1": t5,
    "deberta_v2_1": lambda: fixed(
        Logits(
            hub.DebertaV2Model(
                hub.DebertaV2Config(
                    hidden_size=384,
                    num_attention_heads=6,
                    intermediate_size=1536,
                    num_hidden_layers=1,
                    vocab_size=5000,
                    relative_attention=True,
                    pos_att_type=["p2c", "c2p"],
                )
            )
        ),
        *(1, 64),
    ),
    "demucs": lambda: fixed(Waves(), 1, 1, 4084),
    "experts": lambda: fixed(Experts(), 1, 16, 64),
    "keypoints": lambda: fixed(Keypoints(), 1, 3, 64, 64),
    "retinanet": lambda: fixed(Pyramid(), 1, 3, 128, 128),
    "dlrm": lambda: Example(
        Clicks(), {"x": torch.rand(1, 13), "numbers": torch.randint(0, 1000, (4, 1, 8))}
    ),
    "wav2vec2_2": lambda: fixed(
        Logits(hub.Wav2Vec2Model(hub.Wav2Vec2Config(num_hidden_layers=2))), 1, 8000
    ),
}


def export(name: str, folder: Path) -> Path:
    """Write `folder/NAME.onnx` with its weights inside, or in a side file beyond 2 GB."""
    torch.manual_seed(SEED)
    example = ARCHITECTURES[name]()
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        example.module.eval(),
        tuple(example.inputs.values()),
        path,
        input_names=list(example.inputs),
        output_names=["output"],
        dynamic_shapes=[shapes(axes) for axes in example.dynamic.values()] or None,
        external_data=False,
        verbose=False,
    )
    return path


def shapes(axes: dict[int, str]) -> dict[int, Any]:
    """Axis names as torch.export wants them."""
    return {axis: torch.export.Dim(name, max=512) for axis, name in axes.items()}


def main() -> None:
    """Export the named architectures, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ARCHITECTURES, []], default=[])
    parser.add_argument("-o", "--folder", type=Path, default=Path())
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.names or ARCHITECTURES:
        print(export(name, chosen.folder), flush=True)


if __name__ == "__main__":
    main()
