"""pimc: an open compiler from ONNX to processing-in-memory programs that run and are proved.

program = pimc.compile("model.onnx", target="ou9x8", calibration={"image": samples})
program.run({"image": samples})["logits"]
program.verify({"image": samples})["equal"]
program.save("model.pim"); pimc.load("model.pim")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pimc.version import VERSION

if TYPE_CHECKING:
    from pimc.api import CompiledProgram as Program
    from pimc.api import compile, load, verify
    from pimc.api_shapes import CompiledShapes as Shapes
    from pimc.api_shapes import compile_shapes, load_shapes

__version__ = VERSION
__all__ = [
    "Program", "Shapes", "__version__", "compile", "compile_shapes", "load", "load_shapes",
    "verify",
]  # fmt: skip

_LATE = {
    "Program": ("api", "CompiledProgram"),
    "Shapes": ("api_shapes", "CompiledShapes"),
    "compile": ("api", "compile"),
    "compile_shapes": ("api_shapes", "compile_shapes"),
    "load": ("api", "load"),
    "load_shapes": ("api_shapes", "load_shapes"),
    "verify": ("api", "verify"),
}


def __getattr__(name: str) -> Any:
    """Import the compiler on first use, so that `import pimc` and `pimc --help` stay quick."""
    if name in _LATE:
        module, attribute = _LATE[name]
        return getattr(import_module(f"pimc.{module}"), attribute)
    raise AttributeError(f"module 'pimc' has no attribute {name!r}")
