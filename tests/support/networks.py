"""Networks of cost-models.md section 1: as layer shapes, and LeNet as a graph to compile."""

from __future__ import annotations

from support.graphs import GraphBuilder

from isa.program import Program
from isa.target import Target
from passes.ou_tile import OuTile
from passes.schedule import Schedule
from passes.split import Split
from runtime.closed_form import DenseLayer


def shapes(*layers: tuple[int, int, int]) -> tuple[DenseLayer, ...]:
    return tuple(DenseLayer(*layer) for layer in layers)


LENET = shapes((75, 6, 784), (150, 16, 100), (400, 120, 1), (120, 84, 1), (84, 10, 1))
VGG8 = shapes(
    (27, 128, 1024), (1152, 128, 1024), (1152, 256, 256), (2304, 256, 256), (2304, 512, 64),
    (4608, 512, 64), (4608, 1024, 4), (1024, 10, 1),
)  # fmt: skip
VGG16 = shapes(
    (27, 64, 1024), (576, 64, 1024), (576, 128, 256), (1152, 128, 256), (1152, 256, 64),
    *[(2304, 256, 64)] * 2, (2304, 512, 16), *[(4608, 512, 16)] * 2, *[(4608, 512, 4)] * 3,
    (2048, 10, 1),
)  # fmt: skip
RESNET18 = shapes(
    (27, 64, 1024), *[(576, 64, 256)] * 4, *[(576, 128, 64)] * 2, *[(1152, 128, 64)] * 3,
    *[(1152, 256, 16)] * 2, *[(2304, 256, 16)] * 3, *[(2304, 512, 4)] * 2, *[(4608, 512, 4)] * 3,
    (2048, 512, 1), (512, 10, 1),
)  # fmt: skip


def compiled(builder: GraphBuilder, output: str, target: Target) -> tuple[Program, Target]:
    """The plain program of a graph, one copy of each layer, and the target with cores enough."""
    mapping = Split().run(OuTile(target).run(builder.graph(output)))
    program = Schedule(grow=True).run(mapping)
    return program, target.with_mesh(len(program.cores))


def lenet() -> tuple[GraphBuilder, str]:
    """LeNet of MNSIM: 3 x 32 x 32, five weight layers, random weights."""
    b = GraphBuilder(0, (32, 32, 3))
    x = b.pool("max", b.conv("x", 6, (5, 5)), (2, 2), (2, 2))
    x = b.pool("max", b.conv(x, 16, (5, 5)), (2, 2), (2, 2))
    x = b.conv(x, 120, (5, 5))
    x = b.conv(x, 84)
    return b, b.conv(x, 10)


def resnet18(side: int = 224) -> tuple[GraphBuilder, str]:
    """ResNet-18 for images of ``side`` x ``side``: 21 weight layers, random weights."""
    b = GraphBuilder(0, (side, side, 3))
    x = b.conv("x", 64, (7, 7), (2, 2), pads=(3,) * 4)
    x = b.pool("max", x, (3, 3), (2, 2), (1,) * 4)
    for channels in (64, 128, 256, 512):
        for block in range(2):
            step = (2, 2) if block == 0 and channels > 64 else (1, 1)
            y = b.conv(x, channels, (3, 3), step, pads=(1,) * 4)
            y = b.conv(y, channels, (3, 3), pads=(1,) * 4)
            x = b.binary("add", y, x if step == (1, 1) else b.conv(x, channels, stride=step))
    rows = b.values[x].shape[0]
    return b, b.conv(b.pool("sum", x, (rows, rows)), 1000)
