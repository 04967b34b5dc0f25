"""Which kernel runs: the C extension or NumPy, and what the environment forces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from isa.diagnostics import Diagnostic, PimError
from runtime.kernel_source import source_hash

LEVELS: Final = ("portable C", "AVX2", "AVX-512 VNNI")
KERNELS: Final = ("auto", "numpy", "c")
STREAMS: Final = ("auto", "python", "c")
PATHS: Final = ("auto", "proved", "excess", "sliced", "table", "popcount")


@dataclass(frozen=True)
class Kernel:
    """The choice for one machine.

    extension: the C module, None for NumPy. level: index into LEVELS. path: one of PATHS.
    streams: "python" where each instruction is to be executed in Python, products excepted; "c"
    where a program that C does not take as a whole is to be refused.
    """

    extension: ModuleType | None
    level: int
    path: str
    streams: str = "auto"

    @property
    def name(self) -> str:
        return "numpy" if self.extension is None else "c"


def choose_kernel(environment: Mapping[str, str] | None = None) -> Kernel:
    """The kernel that PIMC_KERNEL, PIMC_PATH, PIMC_LEVEL and PIMC_STREAMS ask for.

    All are "auto" when unset. Raises PimError R720 for an unknown word or a kernel
    that is not there.
    """
    environment = os.environ if environment is None else environment
    kernel = _word(environment, "PIMC_KERNEL", KERNELS)
    path = _word(environment, "PIMC_PATH", PATHS)
    streams = _word(environment, "PIMC_STREAMS", STREAMS)
    extension = None if kernel == "numpy" else load_extension()
    if kernel == "c" and extension is None:
        raise PimError(
            Diagnostic(
                "R720",
                "PIMC_KERNEL=c, but the C kernel is not built",
                hint="install pimc where a C compiler is: `pip install -e .`",
            )
        )
    if extension is not None and not hasattr(extension, "engine"):
        message = "the C kernel was built from sources before those that are here"
        raise PimError(Diagnostic("R720", message, hint="build it again: `pip install -e .`"))
    best = extension.best_level() if extension is not None else 0
    levels = ("auto", *(str(level) for level in range(best + 1)))
    level = _word(environment, "PIMC_LEVEL", levels)
    return Kernel(extension, best if level == "auto" else int(level), path, streams)


def _word(environment: Mapping[str, str], variable: str, allowed: tuple[str, ...]) -> str:
    """The value of an environment variable that must be one of ``allowed``."""
    word = environment.get(variable, "") or "auto"
    if word not in allowed:
        message = f"{variable}={word}: expected one of {', '.join(allowed)}"
        raise PimError(Diagnostic("R720", message))
    return word


def load_extension() -> ModuleType | None:
    """The C kernel, or None where it was not built."""
    try:
        return import_module("runtime._crossbar")
    except ImportError:
        return None


def describe_kernel() -> dict[str, Any]:
    """What `pimc doctor` shows: kernel, CPU level, and whether the build is that of the source.

    stale: the compiled kernel comes from another source file; None where either is missing.
    """
    try:
        extension = import_module("runtime._crossbar")
    except ImportError as error:  # not built, or built for something else: the reason says which
        return {"kernel": "numpy", "reason": str(error), "stale": None}
    built = extension.source_hash()
    present = source_hash("_crossbar")
    return {
        "kernel": "c",
        "file": str(extension.__file__),
        "level": LEVELS[extension.best_level()],
        "source_sha256": built,
        "stale": None if present is None else present != built,
    }
