"""Small programs whose times can be worked out by hand, and random ones."""

from __future__ import annotations

import numpy as np

from isa.assembly import parse_program
from isa.program import Program

HEAD = """.pim 1
.target tiny
.input  image  s8[2, 4, 1] of="image" shape=[1 2 4] order=[1 2 0] scale=0.1
.output logits s8[2, 1, 1] of="logits" shape=[2] order=[0] scale=0.1
.table bias  s32[1] = [0]
.table scale f32[1] = [1.0]
"""

THREE_LAYERS = """
.channel c0 core 0 -> 1 s8[4, 2] depth=1 @0x0100
.core 0 "conv"
  .matrix a[1, 2] inputs=0..1 outputs=0..2 cell_bits=2:
    group [0]
      at x0[0, 0]
      [1] -> +0
      [2] -> +1
  .buffer rows s8[1, 4, 1]  @0x0000
  .buffer acc  s32[1, 4, 2] @0x0010
  .buffer out  s8[1, 4, 2]  @0x0040
  loop y = 0..2 {
    load    rows, image[y]
    mvm     acc, a, rows
    requant out, acc, bias, scale
    send    c0, out
  }
.core 1 "pool"
  .matrix f[4, 1] inputs=0..2 outputs=0..1 cell_bits=2:
    group [0 1 2 3]
      at x0[0, 0]
      [1 2 3 1] -> +0
  .buffer row  s8[1, 4, 2]  @0x0000
  .buffer half s8[1, 2, 2]  @0x0010
  .buffer sum  s32[1, 1, 1] @0x0020
  .buffer out  s8[1, 1, 1]  @0x0030
  loop y = 0..2 {
    recv    row, c0
    maxpool half, row, kernel=[1 2], stride=2
    mvm     sum, f, half, kernel=[1 2]
    requant out, sum, bias, scale
    store   logits[y], out
  }
"""


def three_layers() -> Program:
    """Convolution on core 0; pool and full connection on core 1; one message per row."""
    return parse_program(HEAD + THREE_LAYERS)


def two_copies() -> Program:
    """As ``three_layers``, with the convolution twice: core 0 has row 0, core 2 has row 1."""
    conv, pool = THREE_LAYERS.split('.core 1 "pool"\n')
    way, conv = conv.split('.core 0 "conv"\n')
    loop = conv.index("  loop")
    head, body = conv[:loop], conv[loop:].splitlines()[1:-1]
    copies = [
        f'.core {core} "conv"\n' + head.replace(".matrix a", f".matrix a{row}")
        + "\n".join(body).replace("[y]", f"[{row}]").replace(" a,", f" a{row},")
                         .replace("c0", f"c{row}") + "\n"
        for row, core in enumerate((0, 2))
    ]  # fmt: skip
    head, body = pool[: pool.index("  loop")], pool[pool.index("  loop") :].splitlines()[1:-1]
    rows = ["\n".join(body).replace("c0", f"c{row}").replace("[y]", f"[{row}]") for row in (0, 1)]
    ways = way + way.replace("c0 core 0", "c1 core 2").replace("@0x0000", "@0x0100")
    lines = [ways, copies[0], f'.core 1 "pool"\n{head}', *rows, copies[1]]
    return parse_program(HEAD + "\n".join(lines))


def overlapping_products() -> Program:
    """As ``three_layers``, with a second product that starts while the first one drains."""
    line = "    mvm     acc, a, rows\n"
    more = "  .buffer acc  s32[1, 4, 2] @0x0010\n"
    text = THREE_LAYERS.replace(line, line + line.replace("acc", "again"))
    return parse_program(HEAD + text.replace(more, more + "  .buffer again s32[1, 4, 2] @0x0080\n"))


def random_program(seed: int) -> Program:
    """Two to six cores in a random acyclic network, each round taking and giving a message."""
    rng = np.random.default_rng(seed)
    cores, rounds = int(rng.integers(2, 7)), int(rng.integers(1, 5))
    places = sorted(rng.choice(16, cores, replace=False).tolist())
    edges = [(a, b) for b in range(1, cores) for a in range(b) if rng.random() < 0.5 or a == b - 1]
    width = int(rng.integers(1, 40))
    lines = [
        ".pim 1\n.target tiny",
        f'.input  image s8[{rounds}, {width}, 4] of="image" shape=[4 1 1] order=[1 2 0] scale=0.1',
        f'.output last s8[{rounds}, {width}, 4] of="last" shape=[4 1 1] order=[1 2 0] scale=0.1',
        ".table bias s32[1] = [0]\n.table scale f32[1] = [1.0]",
    ]
    for a, b in edges:
        place = "global" if rng.random() < 0.2 else "0x0000"
        depth = int(rng.integers(1, 4))
        way = f"core {places[a]} -> {places[b]} s8[{width}, 4]"
        lines.append(f".channel c{a}_{b} {way} depth={depth} @{place}")
    for core in range(cores):
        lines += _core(rng, core, cores, places[core], rounds, width, edges)
    return parse_program("\n".join(lines) + "\n")


def _core(  # type: ignore[no-untyped-def]
    rng, core: int, cores: int, place: int, rounds: int, width: int, edges: list[tuple[int, int]]
) -> list[str]:
    """The text of one core: takes, vector and matrix work in some order, gives."""
    ring = int(rng.integers(1, 4))
    lines = [f'.core {place} "layer{core}"', *_matrix(rng)]
    for name in ("in", "out", "side"):
        lines.append(f"  .buffer {name} s8[ring {ring}, {width}, 4] @0x0000")
    lines.append(f"  .buffer acc s32[1, {width}, 3] @0x0000")
    lines.append(f"  loop y = 0..{rounds} {{")
    takes = [f"recv in[y], c{a}_{b}" for a, b in edges if b == core] or ["load in[y], image[y]"]
    for take in takes:
        lines += [take, "add out[y], in[y], side[y]"]
    work = ["mvm acc, m, in[y]", "requant side[y, *, 0..3], acc, bias, scale"]
    lines += [line for line in (*work, "copy side[y], out[y]") if rng.random() < 0.8]
    lines += [f"send c{a}_{b}, out[y]" for a, b in edges if a == core]
    if core == cores - 1:
        lines.append("store last[y], out[y]")
    return [*lines, "  }"]


def _matrix(rng) -> list[str]:  # type: ignore[no-untyped-def]
    """A matrix of four inputs and three outputs in one to three crossbars."""
    lines = ["  .matrix m[4, 3] inputs=0..4 outputs=0..3 cell_bits=2:", "    group [0 1 2 3]"]
    for crossbar in range(int(rng.integers(1, 4))):
        lines.append(f"      at x{crossbar}[0, 0]")
        for _ in range(int(rng.integers(1, 12))):
            cells = " ".join(str(value) for value in rng.integers(0, 4, 4))
            lines.append(f"      [{cells}] -> +{int(rng.integers(0, 3))}")
    return lines
