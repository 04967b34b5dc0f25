"""Settings that all tests share: how many examples hypothesis draws."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=20, **_COMMON)  # type: ignore[arg-type]
settings.register_profile(  # the same examples on every machine, so that red means red everywhere
    "ci",
    max_examples=50,
    derandomize=True,
    print_blob=True,
    **_COMMON,  # type: ignore[arg-type]
)
settings.register_profile("nightly", max_examples=5000, **_COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))
