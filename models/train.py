"""Train the networks of this folder again, with torch: `pip install -e '.[torch]'`.

    python models/train.py data                # the npz files, from Fashion-MNIST's idx files
    python models/train.py lenet5              # also vggs, resnet8, resnet8_pp4, lenet5_mnist5k
    python models/train.py resnet8 --epochs 1 --limit 256 --output /tmp    # a smoke run

Fashion-MNIST: `apt-get install dataset-fashion-mnist`, or any folder with the four idx .gz files
(`--dataset`). The MNIST subset: `python models/fetch.py`. AdamW, OneCycle, random horizontal flips
(not for digits), inputs in 0..1, one torch thread. The networks in the repository came from this
recipe; weights trained again differ in their bits, so the manifest changes with them.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
BATCH = 128
SEED = 0
KEPT, PATTERNS = 4, 8  # of the 9 weights of a 3x3 kernel; distinct patterns of a layer
CALIBRATION_IMAGES, EXTRA_IMAGES, TEST_IMAGES = 256, 1000, 500
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Set = tuple[Images, Labels]


# ------------------------------------------------------------------ data


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped idx file of bytes: magic 0, 0, 8, rank; then the sizes, big-endian."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: not an idx file of bytes")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(tuple(shape))


def read_fashion(folder: Path, part: str) -> Set:
    """Return images [n,1,28,28] in 0..1 and labels [n]; part: `train` or `t10k`."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return images[:, None].astype(np.float32) / 255.0, labels.astype(np.int64)


def read_mnist5k() -> tuple[Set, Set]:
    """Return 4000 training and 1000 test images of the MNIST subset in models/fetched."""
    path = HERE / "fetched" / "mnist_5k.csv.gz"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run `python models/fetch.py`")
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    order = np.random.default_rng(SEED).permutation(len(table))
    images = (table[order, :784].reshape(-1, 1, 28, 28) / 255.0).astype(np.float32)
    labels = table[order, 784]
    return (images[:4000], labels[:4000]), (images[4000:], labels[4000:])


def write_data(folder: Path, output: Path) -> None:
    """Write the npz files: calibration and further training images, and the first test images."""
    images, labels = read_fashion(folder, "train")
    order = np.random.default_rng(SEED).permutation(len(images))
    calibration = order[:CALIBRATION_IMAGES]
    extra = order[CALIBRATION_IMAGES : CALIBRATION_IMAGES + EXTRA_IMAGES]
    for name, chosen in (("calib", calibration), ("train1000", extra)):
        path = output / f"fmnist_{name}.npz"
        np.savez_compressed(path, image=images[chosen], labels=labels[chosen])
    images, labels = read_fashion(folder, "t10k")
    path = output / f"fmnist_test{TEST_IMAGES}.npz"
    np.savez_compressed(path, image=images[:TEST_IMAGES], labels=labels[:TEST_IMAGES])


# ------------------------------------------------------------------ networks


class LeNet5(nn.Module):  # type: ignore[misc,unused-ignore]  # torch may be absent
    """5x5 conv 6 and 16 with pools; 400-120-84-10."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.f1, self.f2, self.f3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, image: Tensor) -> Tensor:
        """[n,1,28,28] -> [n,10]."""
        x = torch.max_pool2d(torch.relu(self.c1(image)), 2)
        x = torch.max_pool2d(torch.relu(self.c2(x)), 2).flatten(1)
        logits: Tensor = self.f3(torch.relu(self.f2(torch.relu(self.f1(x)))))
        return logits


def conv_bn(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution with same padding and its batch normalization."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class VggS(nn.Module):  # type: ignore[misc,unused-ignore]  # torch may be absent
    """3x3 conv 16, 16, 32, 32, 64, 64 with three pools; 576-128-10."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width in (16, 32, 64):
            for _ in range(2):
                layers += [*conv_bn(inputs, width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.f = nn.Sequential(*layers)
        self.h = nn.Sequential(nn.Linear(576, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, image: Tensor) -> Tensor:
        """[n,1,28,28] -> [n,10]."""
        logits: Tensor = self.h(self.f(image).flatten(1))
        return logits


class Block(nn.Module):  # type: ignore[misc,unused-ignore]  # torch may be absent
    """Residual block: two 3x3 convolutions, a 1x1 one beside them where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Sequential(*conv_bn(inputs, outputs, stride=stride), nn.ReLU())
        self.b = nn.Sequential(*conv_bn(outputs, outputs))
        same = inputs == outputs and stride == 1
        self.d = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """[n,inputs,h,w] -> [n,outputs,h/stride,w/stride]."""
        return torch.relu(self.b(self.a(x)) + self.d(x))


class ResNet8(nn.Module):  # type: ignore[misc,unused-ignore]  # torch may be absent
    """A 3x3 stem, residual blocks of 16, 32, 64 channels, global average pool, 64-10."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Sequential(*conv_bn(1, 16), nn.ReLU())
        self.l = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.p = nn.AdaptiveAvgPool2d(1)
        self.h = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """[n,1,28,28] -> [n,10]."""
        logits: Tensor = self.h(self.p(self.l(self.s(image))).flatten(1))
        return logits


# ------------------------------------------------------------------ training


def train(
    net: nn.Module,
    data: Set,
    epochs: int,
    *,
    flip: bool,
    rate: float = 3e-3,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train `net` in place; `after_step` may force its weights back into a constraint."""
    images, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    net.train()
    for epoch in range(epochs):
        loss = torch.zeros(())
        for chosen in torch.randperm(len(images)).split(BATCH):
            batch = images[chosen]
            if flip:
                mirrored = torch.rand(len(batch)) < 0.5
                batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            loss = nn.functional.cross_entropy(net(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            after_step()
        print(f"epoch {epoch + 1}/{epochs}: loss of the last batch {loss.item():.3f}", flush=True)
    net.eval()


def accuracy(net: nn.Module, data: Set) -> float:
    """Return the percentage of images whose largest logit is the label's."""
    correct = 0
    with torch.no_grad():
        for start in range(0, len(data[0]), 500):
            logits = net(torch.from_numpy(data[0][start : start + 500]))
            labels = torch.from_numpy(data[1][start : start + 500])
            correct += int((logits.argmax(1) == labels).sum())
    return 100.0 * correct / len(data[0])


def pattern_mask(weight: Tensor) -> Tensor:
    """Return the mask [o,i,3,3] that holds each 3x3 kernel to one of `PATTERNS` patterns.

    The patterns are those that most kernels would choose for their `KEPT` largest weights; each
    kernel takes the one of them that keeps the most of its energy.
    """
    energy = weight.detach().reshape(-1, 9) ** 2
    largest = energy.topk(KEPT, dim=1).indices
    favourites = torch.zeros_like(energy).scatter_(1, largest, 1.0)
    patterns, votes = favourites.unique(dim=0, return_counts=True)
    patterns = patterns[votes.argsort(descending=True)[:PATTERNS]]
    return patterns[(energy @ patterns.T).argmax(dim=1)].reshape(weight.shape)


def hold_patterns(net: nn.Module) -> Callable[[], None]:
    """Mask every 3x3 kernel of `net`, and return what masks them again after a training step."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    weights = [conv.weight for conv in convolutions if conv.kernel_size == (3, 3)]
    masks = [pattern_mask(weight) for weight in weights]

    def mask() -> None:
        with torch.no_grad():
            for weight, kept in zip(weights, masks, strict=True):
                weight.mul_(kept)

    mask()
    return mask


# ------------------------------------------------------------------ export


def export(net: nn.Module, path: Path) -> None:
    """Write ONNX, opset 17: `image` [batch,1,28,28] -> `logits`; eval mode folds the norms."""
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def quantize(source: Path, path: Path, images: Images, *, per_channel: bool) -> None:
    """Write the int8 QDQ form of a network: u8 activations, s8 weights, min-max ranges."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Hands out the calibration images in one batch."""

        def __init__(self) -> None:
            self.left = iter([{"image": images}])

        def get_next(self) -> dict[str, Images] | None:
            """Return the next feed, or None."""
            return next(self.left, None)

    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )


# ------------------------------------------------------------------ recipes


@dataclass(frozen=True)
class Recipe:
    """How one network comes about; `qdq`: suffix and granularity of its quantized twin."""

    net: Callable[[], nn.Module]
    epochs: int
    qdq: tuple[str, bool] | None = None
    pattern_epochs: int = 0


RECIPES = {
    "lenet5": Recipe(LeNet5, 12, ("_qdq", False)),
    "vggs": Recipe(VggS, 3),
    "resnet8": Recipe(ResNet8, 5, ("_qdq_pc", True)),
    "resnet8_pp4": Recipe(ResNet8, 5, pattern_epochs=3),
    "lenet5_mnist5k": Recipe(LeNet5, 15),
}


def make(name: str, options: argparse.Namespace) -> None:
    """Train, measure and write one network, and its quantized twin where it has one."""
    recipe = RECIPES[name]
    is_mnist = name.endswith("mnist5k")
    if is_mnist:
        learn, test = read_mnist5k()
    else:
        learn, test = (read_fashion(options.dataset, part) for part in ("train", "t10k"))
    learn, test = ((x[: options.limit], y[: options.limit]) for x, y in (learn, test))
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # two threads on a busy machine were many times slower
    net = recipe.net()
    train(net, learn, options.epochs or recipe.epochs, flip=not is_mnist)
    if recipe.pattern_epochs:
        hold = hold_patterns(net)
        epochs = options.epochs or recipe.pattern_epochs
        train(net, learn, epochs, flip=True, rate=1e-3, after_step=hold)
    path = options.output / (f"{name}.onnx" if is_mnist else f"{name}_fmnist.onnx")
    export(net, path)
    print(f"{path}: {accuracy(net, test):.2f} % of {len(test[0])} test images")
    if recipe.qdq:
        suffix, per_channel = recipe.qdq
        calibration = np.load(HERE / "fmnist_calib.npz")["image"]
        twin = path.with_stem(path.stem + suffix)
        quantize(path, twin, calibration, per_channel=per_channel)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["data", *RECIPES])
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--epochs", type=int, default=0, help="0: as the recipe says")
    parser.add_argument("--limit", type=int, default=None, help="images to use, for a smoke run")
    options = parser.parse_args()
    if options.what == "data":
        write_data(options.dataset, options.output)
    else:
        make(options.what, options)


if __name__ == "__main__":
    main()
