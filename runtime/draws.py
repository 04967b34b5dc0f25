"""Random numbers that depend on a key and a counter only, never on the order of execution.

Cells are drawn once per matrix by NumPy's Philox. Read noise is drawn by Philox4x32-10 (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which the C kernel computes, too.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

POOL: Final = 1 << 16  # normal numbers of the pool; an offset into it has 16 bits
POOL_FRACTION: Final = 12  # fraction bits of a pool entry; the largest is 4.3 * 2^12 < 2^15

_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS: Final = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_ROUNDS: Final = 10


def key_of(seed: int, *names: object) -> int:
    """128 bits that stand for a seed and what is drawn with it."""
    text = "\0".join(str(part) for part in (seed, *names))
    return int.from_bytes(sha256(text.encode()).digest()[:16], "little")


def generator(key: int) -> np.random.Generator:
    """NumPy's generator of a key; an array drawn from it is a function of key and index."""
    return np.random.Generator(np.random.Philox(key=key))


def philox(counter: tuple[object, ...], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10: four words of 32 bits for each counter, uint64 [..., 4].

    counter: four integer arrays below 2^32 that broadcast. key: two integers below 2^32.
    """
    words = [np.asarray(c, np.uint64) for c in counter]
    c0, c1, c2, c3 = np.broadcast_arrays(*words)
    k0, k1 = (np.uint64(k) for k in key)
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1)


def bit_offsets(counter: tuple[object, ...], key: tuple[int, int]) -> NDArray[np.int64]:
    """Where each of eight input bits starts to read the pool, int64 [..., 8], below POOL."""
    words = philox(counter, key)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=-1)
    return halves.reshape(*words.shape[:-1], 8).astype(np.int64)


@lru_cache(maxsize=1)
def normal_pool() -> NDArray[np.int16]:
    """The POOL quantiles of the normal distribution in a fixed random order, int16 [POOL].

    An entry is ``rint(z * 2^POOL_FRACTION)``. Any 16-bit offset is as likely as any other, so a
    number read at one has the normal distribution to 2^-16 in probability.
    """
    normal = NormalDist()
    upper = [normal.inv_cdf((i + 0.5) / POOL) for i in range(POOL // 2, POOL)]
    half = np.rint(np.array(upper) * (1 << POOL_FRACTION)).astype(np.int16)
    quantiles = np.concatenate([-half[::-1], half])
    order = np.argsort(np.random.Philox(key=0).random_raw(POOL), kind="stable")
    pool: NDArray[np.int16] = quantiles[order]
    pool.flags.writeable = False
    return pool
