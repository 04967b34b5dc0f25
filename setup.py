"""The C kernels: optional, limited API, stamped with source hashes (see runtime/kernel.py)."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).parent))  # an isolated build does not look here

from runtime.kernel_source import EXTENSIONS, FLAGS, source_files, source_hash


def kernel(name: str) -> Extension:
    """The extension ``runtime.<name>`` with the hash of its files compiled in."""
    files = [f"runtime/{file.name}" for file in source_files(name)]
    macros = [("Py_LIMITED_API", "0x030B0000"), ("PIM_SOURCE_SHA256", f'"{source_hash(name)}"')]
    return Extension(
        f"runtime.{name}",
        [file for file in files if file.endswith(".c")],
        depends=files,
        define_macros=macros,
        py_limited_api=True,
        optional=True,
        libraries=[] if sys.platform == "win32" else ["m"],
        extra_compile_args=["-O3", *FLAGS, "-fvisibility=hidden"],
    )


KERNELS = [kernel(name) for name in EXTENSIONS]
setup(ext_modules=KERNELS, options={"bdist_wheel": {"py_limited_api": "cp311"}})
