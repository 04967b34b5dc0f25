"""Public simulators on the work of `kernel.py`, each where it can be imported.

CrossSim (Python package ``simulator``) does the whole job: 8-bit inputs bit by bit, eight slices of
1-bit cells, arrays of nine word lines, a 3-bit ADC that saturates. It holds ``w + 128`` in its
cells and takes the offset off in digital, so -128, which its symmetric range lacks, is raised to
-127 first. What it gives is compared with `offset_product` before it is timed.

aihwkit has no weight slices and no conversion for each input bit. Its row is the nearest it can
do: one analog cell a weight, arrays of nine word lines, one 3-bit conversion for each column of
each array. That is an eighth of an eighth of the conversions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PEERS = {"CrossSim": "simulator", "aihwkit": "aihwkit"}  # what is imported
LINES, ADC_TOP, BITS = 9, 7, 8
NOISY_WINDOWS = 16  # CrossSim draws every cell anew for each: 1,024 would take a minute

CROSSSIM = {
    "core.style": "BITSLICED",
    "core.bit_sliced.style": "OFFSET",
    "core.bit_sliced.num_slices": BITS,
    "core.offset.style": "DIGITAL_OFFSET",
    "core.weight_bits": BITS,
    "core.rows_max": LINES,
    "core.mapping.weights.row_partition_strategy": "MAX",
    "core.mapping.weights.percentile": None,
    "core.mapping.weights.min": -127.0,
    "core.mapping.weights.max": 127.0,
    "core.mapping.inputs.mvm.min": 0.0,
    "core.mapping.inputs.mvm.max": 255.0,
    "xbar.device.infinite_on_off_ratio": True,
    "xbar.device.cell_bits": 1,
    "xbar.dac.mvm.model": "QuantizerDAC",
    "xbar.dac.mvm.signed": False,
    "xbar.dac.mvm.bits": BITS,
    "xbar.dac.mvm.input_bitslicing": True,
    "xbar.dac.mvm.slice_size": 1,
    "xbar.adc.mvm.model": "QuantizerADC",
    "xbar.adc.mvm.signed": False,
    "xbar.adc.mvm.calibrated_range": [[0.0, float(ADC_TOP)]] * BITS,
    "xbar.adc.mvm.adc_range_option": "CALIBRATED",
    "xbar.adc.mvm.adc_per_ibit": True,
    "xbar.adc.mvm.bits": 3,
}
STATIC = {
    "xbar.device.programming_error.enable": True,
    "xbar.device.programming_error.model": "NormalIndependentDevice",
    "xbar.device.programming_error.magnitude": 0.05,
}
READ = {
    "xbar.device.read_noise.enable": True,
    "xbar.device.read_noise.model": "NormalIndependentDevice",
    "xbar.device.read_noise.magnitude": 0.1,
}


@dataclass(frozen=True)
class PeerCall:
    """One contender: ``call`` makes the products of ``windows`` windows."""

    contender: str
    windows: int
    call: Callable[[], object]


def is_installed(peer: str) -> bool:
    """Whether the package of a peer can be imported."""
    return importlib.util.find_spec(PEERS[peer]) is not None


def peer_calls(weights: NDArray[np.int32], u: NDArray[np.uint8]) -> Iterator[PeerCall]:
    """The contenders that are installed, on weights [inputs, outputs] and u [windows, inputs]."""
    if is_installed("CrossSim"):
        yield from crosssim_calls(np.maximum(weights, -127), u)
    if is_installed("aihwkit"):
        yield from aihwkit_calls(weights, u)


def crosssim_calls(weights: NDArray[np.int32], u: NDArray[np.uint8]) -> Iterator[PeerCall]:
    """CrossSim: ideal, with static error, with noise. Its result is checked in double precision
    and timed in single, which is quicker and exact to 24 bits."""
    x = np.ascontiguousarray(u.T, np.float32)
    core = crosssim_core(weights, CROSSSIM)
    expected = offset_product(u[:64], weights)
    exact = np.asarray(crosssim_core(weights, CROSSSIM, np.float64) @ u[:64].T.astype(float)).T
    timed = np.asarray(core @ np.ascontiguousarray(x[:, :64])).T
    if np.abs(exact - expected).max() > 1e-3 or np.abs(timed - exact).max() > 1e-6 * 2**24:
        raise SystemExit("CrossSim does not compute what benchmarks/peers.py asks it for")
    yield PeerCall("CrossSim", len(u), lambda: core @ x)
    static = crosssim_core(weights, CROSSSIM | STATIC)
    yield PeerCall("CrossSim, static 5 %", len(u), lambda: static @ x)
    noisy = crosssim_core(weights, CROSSSIM | STATIC | READ)
    few = np.ascontiguousarray(x[:, :NOISY_WINDOWS])
    yield PeerCall("CrossSim, read noise 10 %", few.shape[1], lambda: noisy @ few)


def crosssim_core(  # type: ignore[no-untyped-def]
    weights: NDArray[np.int32], values: dict[str, object], precision: type = np.float32
):
    """CrossSim's array of these weights. Setting a model replaces the object that holds it, so
    each value is set by its whole path, models first."""
    from simulator import AnalogCore, CrossSimParameters  # type: ignore[import-not-found]
    from simulator.parameters.core_parameters import (  # type: ignore[import-not-found]
        PartitionStrategy,
    )

    parameters = CrossSimParameters()
    for path, value in values.items():
        *owners, name = path.split(".")
        owner = parameters
        for part in owners:
            owner = getattr(owner, part)
        is_strategy = name == "row_partition_strategy"
        setattr(owner, name, PartitionStrategy[value] if is_strategy else value)
    return AnalogCore(weights.T.astype(precision), params=parameters)


def offset_product(u: NDArray[np.uint8], weights: NDArray[np.int32]) -> NDArray[np.int64]:
    """What an offset-coded array of nine word lines gives: min(sum, 7) for each input bit, weight
    bit and group. [windows, outputs]."""
    pad = -len(weights) % LINES
    cells = (np.pad(weights + 128, ((0, pad), (0, 0)))[..., None] >> np.arange(BITS)) & 1
    cells = cells.reshape(-1, LINES, weights.shape[1], BITS)
    lines = np.pad(u, ((0, 0), (0, pad))).reshape(len(u), -1, LINES)
    out = np.zeros((len(u), weights.shape[1]), np.int64)
    for bit in range(BITS):
        sums = np.einsum("bgr,grns->bgns", (lines >> bit) & 1, cells)
        out += (np.minimum(sums, ADC_TOP).sum(1) << np.arange(BITS)).sum(-1) << bit
    return out - 128 * u.sum(1, keepdims=True, dtype=np.int64)


def aihwkit_calls(weights: NDArray[np.int32], u: NDArray[np.uint8]) -> Iterator[PeerCall]:
    """aihwkit's C++ tiles of nine inputs, without and with noise at the output and the weights."""
    import torch  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    x = torch.from_numpy(u.astype(np.float32) / 255)
    for name, noise in (("", 0.0), (", with noise", 0.1)):
        layer = aihwkit_layer(weights, noise)
        yield PeerCall(f"aihwkit, no bits or slices{name}", len(u), _without_gradient(layer, x))


def aihwkit_layer(weights: NDArray[np.int32], noise: float):  # type: ignore[no-untyped-def]
    """A linear layer in tiles of nine lines with a 3-bit ADC, signed, that ends at 2."""
    import torch
    from aihwkit.nn import AnalogLinearMapped  # type: ignore[import-not-found]
    from aihwkit.simulator.configs import (  # type: ignore[import-not-found]
        BoundManagementType,
        InferenceRPUConfig,
        NoiseManagementType,
        WeightNoiseType,
    )

    config = InferenceRPUConfig()
    config.mapping.max_input_size, config.mapping.max_output_size = LINES, 0
    config.mapping.digital_bias = True
    forward = config.forward
    forward.inp_res, forward.out_res, forward.out_bound = 1 / 254, 1 / 6, 2.0
    forward.out_noise = forward.w_noise = noise
    forward.w_noise_type = WeightNoiseType.ADDITIVE_CONSTANT if noise else WeightNoiseType.NONE
    forward.bound_management = BoundManagementType.NONE
    forward.noise_management = NoiseManagementType.NONE
    layer = AnalogLinearMapped(*weights.shape, bias=False, rpu_config=config)
    layer.set_weights(torch.from_numpy(weights.T.astype(np.float32) / 128), None)
    return layer.eval()


def _without_gradient(layer: Callable[[object], object], x: object) -> Callable[[], object]:
    import torch

    def call() -> object:
        with torch.no_grad():
            return layer(x)

    return call
