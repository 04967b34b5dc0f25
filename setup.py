"""The C kernel: optional, limited API, stamped with its source hash (see runtime/kernel.py)."""

from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "runtime/_crossbar.c"
STAMP = sha256(Path(__file__).with_name("runtime").joinpath("_crossbar.c").read_bytes()).hexdigest()
MACROS = [("Py_LIMITED_API", "0x030B0000"), ("PIM_SOURCE_SHA256", f'"{STAMP}"')]
KERNEL = Extension(
    "runtime._crossbar", [SOURCE], define_macros=MACROS, extra_compile_args=["-O3"],
    py_limited_api=True, optional=True,
)  # fmt: skip
setup(ext_modules=[KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
