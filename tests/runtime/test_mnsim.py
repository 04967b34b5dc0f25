"""Our reading of MNSIM 2.0 gives the figures that a run of it printed (cost-models.md 1.1)."""

from __future__ import annotations

import pytest

from isa.target import load_target
from runtime.mnsim import LayerResult, NetLayer, evaluate

Published = list[tuple[float, float, float] | None]  # start us, finish us, energy uJ


def conv(  # type: ignore[no-untyped-def]
    inputs, outputs, size, kernel=3, stride=1, padding=1, before=(1,)
) -> NetLayer:
    out = (size + 2 * padding - kernel) // stride + 1
    return NetLayer("conv", inputs, outputs, out, kernel, stride, padding, size, before)


def pool(channels: int, size: int) -> NetLayer:
    return NetLayer("pool", channels, channels, size // 2, 2, 2, 0, size)


def add(channels: int, size: int, *before: int) -> NetLayer:
    return NetLayer("add", channels, channels, size, before=before)


def fc(inputs: int, outputs: int) -> NetLayer:
    return NetLayer("fc", inputs, outputs)


def block(inputs: int, outputs: int, size: int) -> list[NetLayer]:
    """A residual block; with a convolution beside it where it halves the size."""
    half = size // 2
    if inputs == outputs:
        pair = [conv(inputs, outputs, size), conv(outputs, outputs, size)]
        return [*pair, add(outputs, size, 1, 3)]
    return [
        conv(inputs, outputs, size, stride=2),
        conv(outputs, outputs, half),
        conv(inputs, outputs, size, stride=2, before=(3,)),
        add(outputs, half, 1, 2),
    ]


LENET = [
    conv(3, 6, 32, 5, padding=0), pool(6, 28), conv(6, 16, 14, 5, padding=0), pool(16, 10),
    conv(16, 120, 5, 5, padding=0), fc(120, 84), fc(84, 10),
]  # fmt: skip
VGG8 = [
    conv(3, 128, 32), conv(128, 128, 32), pool(128, 32), conv(128, 256, 16), conv(256, 256, 16),
    pool(256, 16), conv(256, 512, 8), conv(512, 512, 8), pool(512, 8),
    conv(512, 1024, 4, padding=0), pool(1024, 2), fc(1024, 10),
]  # fmt: skip
VGG16 = [
    conv(3, 64, 32), conv(64, 64, 32), pool(64, 32), conv(64, 128, 16), conv(128, 128, 16),
    pool(128, 16), conv(128, 256, 8), *[conv(256, 256, 8)] * 2, pool(256, 8), conv(256, 512, 4),
    *[conv(512, 512, 4)] * 2, pool(512, 4), *[conv(512, 512, 2)] * 3, fc(2048, 10),
]  # fmt: skip
RESNET18 = [
    conv(3, 64, 32), pool(64, 32), *block(64, 64, 16), *block(64, 64, 16), *block(64, 128, 16),
    *block(128, 128, 8), *block(128, 256, 8), *block(256, 256, 4), *block(256, 512, 4),
    *block(512, 512, 2), fc(2048, 512), fc(512, 10),
]  # fmt: skip

LENET_RUN: Published = [
    (0.0, 330.3, 4.41), (14.0, 330.7, 0.12), (111.7, 332.1, 1.95), (137.3, 332.8, 0.03),
    (332.8, 337.7, 0.30), (337.7, 340.6, 0.07), (340.6, 341.5, 0.01),
]  # fmt: skip
VGG8_RUN: Published = [
    (0.0, 3505.5, 90.97), (117.1, 4443.1, 717.29), (266.2, 4447.5, 1.56), (549.0, 4607.7, 591.96),
    (836.9, 4798.0, 1183.93), (1126.2, 4807.4, 0.78), (1694.4, 4941.8, 592.82),
    (2266.6, 5074.0, 1126.35), (2838.6, 5095.2, 0.39), (4855.2, 5112.8, 142.61),
    (5112.8, 5149.8, 0.05), (5149.8, 5151.9, 0.13),
]  # fmt: skip
VGG16_RUN: Published = [
    (0.0, 1846.6, 45.96), (62.0, 2461.6, 223.17), (147.1, 2463.8, 0.78), (303.6, 2542.1, 107.85),
    (462.5, 2664.4, 179.75), (623.3, 2669.2, 0.39), (938.0, 2765.5, 148.20),
    (1257.5, 2898.8, 296.41), (1580.0, 3024.3, 296.41), (1903.2, 3034.2, 0.20),
    (2535.1, 3119.2, 148.63), (2837.3, 3227.1, 282.40), (3064.4, 3313.6, 282.40),
    (3160.1, 3334.9, 0.10), (3334.9, 3413.9, 71.00), (3413.9, 3498.5, 71.00),
    (3498.5, 3573.8, 71.00), (3573.8, 3576.0, 0.26),
]  # fmt: skip
RESNET18_RUN: Published = [
    (0.0, 1787.6, 45.96), (60.0, 1789.8, 0.78), (177.3, 1834.7, 56.05), (295.0, 1915.6, 56.05),
    None, (415.7, 1964.2, 56.05), (533.5, 2035.3, 56.05), None,
    (654.1, 2042.4, 28.37), (889.3, 2105.8, 45.15), (654.1, 2044.3, 28.37), None,
    (1129.7, 2161.3, 45.15), (1365.1, 2228.5, 45.15), None,
    (1605.0, 2242.4, 37.64), (1965.0, 2356.5, 74.31), (1605.0, 2249.5, 37.64), None,
    (2164.4, 2431.9, 74.31), (2289.4, 2545.4, 74.31), None,
    (2399.2, 2569.8, 37.72), (2569.8, 2666.4, 71.00), (2399.2, 2574.9, 37.72), None,
    (2683.7, 2765.5, 71.00), (2765.5, 2878.8, 71.00), None,
    (2893.1, 2910.1, 7.67), (2910.1, 2912.2, 0.07),
]  # fmt: skip
ADDS_FINISH = (1917.1, 2037.2, 2109.5, 2232.1, 2364.2, 2553.9, 2683.7, 2893.1)


@pytest.mark.parametrize(
    ("layers", "run", "latency_ms", "energy_mj"),
    [
        (LENET, LENET_RUN, 0.3415, 0.00688),
        (VGG8, VGG8_RUN, 5.1519, 4.4488),
        (VGG16, VGG16_RUN, 3.5760, 2.2259),
        (RESNET18, RESNET18_RUN, 2.9122, 1.0575),
    ],
    ids=["lenet", "vgg8", "vgg16", "resnet18"],
)
def test_every_layer_has_the_latency_and_energy_that_mnsim_printed(
    layers: list[NetLayer], run: Published, latency_ms: float, energy_mj: float
) -> None:
    found = evaluate(layers, load_target("mnsim"))
    for ours, theirs in zip(found, run, strict=True):
        if theirs is not None:
            start, finish, energy = theirs
            assert ours.start_us == pytest.approx(start, rel=1e-3, abs=0.06)
            assert ours.finish_us == pytest.approx(finish, rel=1e-3, abs=0.06)
            assert ours.energy_uj == pytest.approx(energy, rel=1e-3, abs=0.006)
    assert found[-1].finish_us * 1e-3 == pytest.approx(latency_ms, rel=1e-3)
    assert sum(layer.energy_uj for layer in found) * 1e-3 == pytest.approx(energy_mj, rel=2e-3)


def test_sums_of_branches_finish_when_mnsim_says_and_are_free() -> None:
    adds: list[LayerResult] = [
        result
        for layer, result in zip(RESNET18, evaluate(RESNET18, load_target("mnsim")), strict=True)
        if layer.kind == "add"
    ]
    assert [result.finish_us for result in adds] == pytest.approx(ADDS_FINISH, rel=1e-3)
    assert all(result.energy_uj == 0 for result in adds)


def test_small_units_make_mnsim_slow() -> None:
    # DAC_Num 9, ADC_Num 8, a 4-bit ADC of 0.7 mW: its own run says 84.1 ms for VGG8 (1.2)
    changes = {"ou.rows": "9", "ou.columns": "8", "adc.bits": "4", "adc.per_crossbar": "8"}
    found = evaluate(VGG8, load_target("mnsim", changes))
    assert found[-1].finish_us * 1e-3 == pytest.approx(84.1, rel=0.01)
