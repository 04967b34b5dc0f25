"""Architectures: well-known networks with seeded random weights, exported by torch.

    pip install -e '.[torch]'
    python -m models.architectures resnet18 bert -o /tmp/networks        # all without a name

Weights are torch's own initialization under one seed. Of the first ten the batch is dynamic, and
so is the sequence of the two language networks; the others, at the widths of their papers and some
with fewer layers, have fixed shapes; the last ones are small, and of kinds that the others lack.
They are made to be tried, not committed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hub
from torch import Tensor, nn

from models.torch_modules import (
    Clicks,
    DenseLayer,
    Diffusion,
    Experts,
    Keypoints,
    Pyramid,
    Residual,
    Tagger,
    UNet,
    Waves,
)

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
