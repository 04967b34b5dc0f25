"""95 % confidence intervals: of a share of samples, and of the mean of a few trials."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

_Z = NormalDist().inv_cdf(0.975)
# Student's t at 97.5 % for 1..10 degrees of freedom; above, the expansion below is good to 0.0001
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def wilson(right: int, samples: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, JASA 1927): between 0 and 1, also at the ends."""
    share, z2 = right / samples, _Z * _Z
    center = share + z2 / (2 * samples)
    half = _Z * (share * (1 - share) / samples + z2 / (4 * samples * samples)) ** 0.5
    scale = 1 + z2 / samples
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def student(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's interval of the mean of independent trials; None for a single one."""
    if len(values) < 2:
        return None
    half = _t(len(values) - 1) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def _t(degrees: int) -> float:
    """The 97.5 % quantile (Abramowitz and Stegun 26.7.5)."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z, n = _Z, float(degrees)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
