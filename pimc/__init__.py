"""pimc: an open compiler from ONNX to processing-in-memory programs that run and are proved.

program = pimc.compile("model.onnx", target="ou9x8", calibration={"image": samples})
program.run({"image": samples})["logits"]
program.verify({"image": samples})["equal"]
program.save("model.pim"); pimc.load("model.pim")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pimc.version import VERSION

if TYPE_CHECKING:
    from pimc.api import CompiledProgram as Program
    from pimc.api import compile, load, verify

__version__ = VERSION
__all__ = ["Program", "__version__", "compile", "load", "verify"]

_LATE = {"Program": "CompiledProgram", "compile": "compile", "load": "load", "verify": "verify"}


def __getattr__(name: str) -> Any:
    """Import the compiler on first use, so that `import pimc` and `pimc --help` stay quick."""
    if name in _LATE:
        from pimc import api

        return getattr(api, _LATE[name])
    raise AttributeError(f"module 'pimc' has no attribute {name!r}")
