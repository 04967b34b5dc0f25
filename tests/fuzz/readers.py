"""What is fuzzed: each reader with a way to feed it bytes, seeds and a way to damage them."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isa.assembly import parse_program
from isa.container import load
from isa.diagnostics import PimError
from isa.target import Target, load_target

CORPUS: Final = Path(__file__).with_name("corpus")
FOUND: Final = CORPUS / "found"
CONTAINER: Final = CORPUS / "container"
FILES: Final = ("program.pim", "arrays.npz", "target.json", "host/part.onnx", "phases.json")
EXTREMES: Final = [b"0", b"-1", b"99999999999999999999", b"1e999", b"nan", b"", b"2147483648"]
_WORD: Final = re.compile(rb"[0-9]+|[A-Za-z_.]+|[^\sA-Za-z0-9]")
_FOLDER: Final = tempfile.TemporaryDirectory(prefix="pimc-fuzz-")
_SCRATCH: Final = Path(_FOLDER.name)


@dataclass(frozen=True)
class Fuzzed:
    """One reader. read: raises PimError for what is wrong with the bytes, and nothing else."""

    name: str
    read: Callable[[bytes], object]
    damage: Callable[[random.Random, bytes, list[bytes]], bytes]

    def seeds(self) -> list[bytes]:
        """Sound inputs, and damaged ones that were found to reach other code."""
        if self.name == "network":
            return [bytes(5)]
        found = [file.read_bytes() for file in sorted((FOUND / self.name).glob("*"))]
        if self.name == "container":  # the first byte says which file the others are
            files = [CONTAINER / name for name in FILES]
            sound = [bytes([i]) + f.read_bytes() for i, f in enumerate(files) if f.is_file()]
        else:
            sound = [file.read_bytes() for file in sorted((CORPUS / self.name).iterdir())]
        return sound + found

    def mutate(self, rng: random.Random, seeds: list[bytes]) -> bytes:
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = self.damage(rng, data, seeds)
        return data

    def execute(self, data: bytes) -> None:
        try:
            self.read(data)
        except PimError as error:
            for diagnostic in error.diagnostics:
                diagnostic.render()


def damage_bytes(rng: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Flip, cut, repeat or splice."""
    if not data:
        return rng.randbytes(8)
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 64)))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at] + rng.randbytes(end - at) + data[end:]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:end] * rng.randint(1, 4) + data[end:]
    if kind == 3:
        other = rng.choice(seeds)
        cut = rng.randrange(len(other) + 1)
        return data[:at] + other[cut : cut + 64] + data[end:]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def damage_text(rng: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Exchange, drop or repeat words and lines; now and then damage bytes."""
    kind, words = rng.randrange(5), list(_WORD.finditer(data))
    if kind == 0 or not words:
        return damage_bytes(rng, data, seeds)
    if kind == 1:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        lines[at:at] = [rng.choice(lines)] * rng.randint(1, 3)
        del lines[rng.randrange(len(lines))]
        return b"\n".join(lines)
    word = rng.choice(words)
    new = rng.choice(EXTREMES) if kind < 4 else rng.choice(words)[0]
    return data[: word.start()] + new + data[word.end() :]


def damage_file(rng: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Damage one file of a folder, behind the byte that names it."""
    damage = damage_text if data[0] % len(FILES) in (0, 2, 4) else damage_bytes
    return data[:1] + damage(rng, data[1:], [seed[1:] for seed in seeds])


def damage_model(rng: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Change one field of a model; now and then damage bytes, or what is no model any more."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return damage_bytes(rng, data, seeds)
    if rng.random() < 0.2:
        return damage_bytes(rng, data, seeds)
    with suppress(TypeError, ValueError):  # a value that protobuf itself does not take
        damage_field(rng, model)
    return model.SerializeToString()


def damage_field(rng: random.Random, message: Any) -> None:
    """Walk down from a message to one of its fields and change it."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    repeated = not isinstance(value, str | bytes) and hasattr(value, "__len__")
    if repeated and len(value):
        at = rng.randrange(len(value))
        kind = rng.randrange(6)
        if kind == 0:
            del value[at]
        elif kind == 1:
            value.append(value[at])
        elif field.message_type is not None:
            damage_field(rng, value[at])
        else:
            value[at] = other_value(rng, value[at])
    elif field.message_type is not None:
        damage_field(rng, value)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, other_value(rng, value))


def other_value(rng: random.Random, value: Any) -> Any:
    if isinstance(value, str):
        return rng.choice(["", "x", "y", "w", "Conv", "Loop", "../x", "\x00", value + "é"])
    if isinstance(value, bytes):
        return damage_bytes(rng, value, [value])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, 1e38, float("inf"), float("nan")])
    return rng.choice([0, 1, 2, 3, 7, 13, 127, -1, 1 << 20, (1 << 31) - 1, value + 1])


def read_container(data: bytes) -> None:
    folder = _SCRATCH / "net.pim"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(CONTAINER, folder)
    name = FILES[data[0] % len(FILES)] if data else FILES[0]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data[1:])
    from isa.container import load_phases

    (load_phases if name == "phases.json" else load)(folder)


def read_data_file(data: bytes) -> None:
    """A damaged archive, and an archive whose checksums are right and whose member is damaged."""
    from pimc.data import read_data

    file = _SCRATCH / "data.npz"
    if data.startswith(b"PK"):
        file.write_bytes(data)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("image.npy", data)
    read_data(file)


def read_target(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if text.startswith("{"):
        Target.from_json(text)
        return
    file = _SCRATCH / "target.toml"
    file.write_bytes(data)
    load_target(file)


def read_model(data: bytes) -> None:
    from pimc.frontend.build import import_model

    import_model(data)


def read_network(data: bytes) -> None:
    """The bytes are the seed and the size of a network."""
    from fuzz.judge import judge

    judge(int.from_bytes(data[1:]), 1 + data[0] % 8)


READERS: Final = {
    each.name: each
    for each in (
        Fuzzed("isa", lambda data: parse_program(data.decode("utf-8", "replace")), damage_text),
        Fuzzed("container", read_container, damage_file),
        Fuzzed("npz", read_data_file, damage_bytes),
        Fuzzed("target", read_target, damage_text),
        Fuzzed("onnx", read_model, damage_model),
        Fuzzed("network", read_network, lambda rng, data, seeds: rng.randbytes(5)),
    )
}
