"""The C kernels: optional, limited API, stamped with source hashes (see runtime/kernel.py)."""

from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup


def kernel(name: str, stamp: str) -> Extension:
    """An extension of one C file; ``stamp``: the macro that carries its hash."""
    source = f"runtime/{name}.c"
    digest = sha256(Path(__file__).parent.joinpath(source).read_bytes()).hexdigest()
    macros = [("Py_LIMITED_API", "0x030B0000"), (stamp, f'"{digest}"')]
    return Extension(
        f"runtime.{name}", [source], define_macros=macros, py_limited_api=True, optional=True,
        extra_compile_args=["-O3", "-fno-math-errno"],
    )  # fmt: skip


KERNELS = [kernel("_crossbar", "PIM_SOURCE_SHA256"), kernel("_device", "PIM_DEVICE_SHA256")]
setup(ext_modules=KERNELS, options={"bdist_wheel": {"py_limited_api": "cp311"}})
