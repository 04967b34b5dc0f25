"""The C kernels under AddressSanitizer, UndefinedBehaviorSanitizer and valgrind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from runtime.kernel_source import EXTENSIONS, FLAGS, FOLDER, source_files

ROOT = FOLDER.parent
TESTS = (
    "tests/runtime/test_crossbar.py",
    "tests/runtime/test_kernel_fuzz.py",
    "tests/runtime/test_engine.py",
    "tests/runtime/test_engine_errors.py",
    "tests/runtime/test_device_kernel.py",
)
BUILD = "-O1 -g -fno-omit-frame-pointer -shared -fPIC -DPy_LIMITED_API=0x030B0000"
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
pytestmark = [pytest.mark.long, needs_gcc]


def build(folder: Path, flags: str) -> None:
    """A copy of the runtime package in ``folder`` whose extensions were built with ``flags``."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(FOLDER, folder / "runtime", ignore=ignored)
    include = sysconfig.get_path("include")
    for name in EXTENSIONS:
        sources = [str(file) for file in source_files(name) if file.suffix == ".c"]
        output = str(folder / "runtime" / f"{name}.abi3.so")
        command = [
            "gcc",
            *BUILD.split(),
            *FLAGS,
            *flags.split(),
            f"-I{include}",
            *sources,
            "-o",
            output,
        ]
        subprocess.run([*command, "-lm"], check=True)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = os.pathsep.join((str(folder), str(ROOT), str(ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONMALLOC": "malloc", **variables}


def tail(result: subprocess.CompletedProcess[str]) -> str:
    return (result.stdout + result.stderr)[-4000:]


def runtime_of(text: str) -> str:
    """The line by which the subprocess says whose extension it tested."""
    return next(line for line in text.splitlines() if line.startswith("extension "))


def test_the_kernel_tests_pass_under_address_and_undefined_behaviour_sanitizers(
    tmp_path: Path,
) -> None:
    build(tmp_path, SANITIZE)
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    code = (
        "import sys, pytest, runtime._crossbar as c; print('extension', c.__file__);"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    arguments = ["-n", "0", "-q", "-x", "-p", "no:cacheprovider", "-k", "not compiled_kernel"]
    # the tests import from the root, where the ordinary build lies: the copy must come first
    arguments += ["-o", f"pythonpath={tmp_path} {ROOT} {ROOT / 'tests'}"]
    variables = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments, *TESTS],
        cwd=ROOT,
        env=environment(tmp_path, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, tail(result)
    assert str(tmp_path) in runtime_of(result.stdout), "another build was tested"
    assert " passed" in result.stdout


def test_the_sanitizers_see_an_overflow(tmp_path: Path) -> None:
    """The guard of the guard: a wrong read must end the instrumented build."""
    source = tmp_path / "wrong.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int main(int n, char **a) { (void)a; char *p = malloc(4); return p[n + 3]; }\n"
    )
    program = str(tmp_path / "wrong")
    subprocess.run(["gcc", *SANITIZE.split(), str(source), "-o", program], check=True)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


DRIVER = """
import os
import numpy as np
from runtime import _crossbar as c
from runtime.crossbar import block_product
from runtime.paths import make_plan, pack_weights
from isa.matrix import fold
from support.layers import layer_of, small_target
from support.programs import two_cores
from passes.ou_tile import ou_tile
from isa.target import load_target
from runtime.machine import Machine

print("extension", c.__file__)
rng = np.random.default_rng(0)
weights = rng.integers(-128, 128, (40, 7))
blocks = ou_tile(layer_of(weights[None]), small_target(9, 8, 1))
for windows in (1, 37):
    u = rng.integers(0, 256, (windows, 40)).astype(np.uint8)
    expected, clipped = block_product(u, blocks, 3)
    for level in (0, 1):  # valgrind knows no AVX-512
        out = np.empty((windows, 7), np.int32)
        c.gemm(u, pack_weights(weights.astype(np.int32)), out, level)
        assert (out == u.astype(int) @ weights).all()
        plan = make_plan(c, blocks, 3)
        for method in ("excess", "auto", "sliced", "table", "popcount"):
            out[:] = u.astype(int) @ fold(blocks)
            assert c.serial(plan, u, out, method, level) == clipped
            assert (out == expected).all()
image = {"image": np.zeros((2, 4, 4, 1), np.int8)}
for level in ("0", "1"):
    os.environ["PIMC_LEVEL"] = level
    machine = Machine(two_cores(), load_target("tiny"))
    assert set(machine.run(image).outputs) == set(machine.run(image, trace=True).outputs)
print("done")
"""


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind")
def test_valgrind_finds_no_wrong_access_and_no_leak_of_the_kernel(tmp_path: Path) -> None:
    build(tmp_path, "")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    log = tmp_path / "valgrind.log"
    result = subprocess.run(
        ["valgrind", "--tool=memcheck", f"--log-file={log}", "--leak-check=full",
         "--errors-for-leak-kinds=definite", sys.executable, str(driver)],
        env=environment(tmp_path, OPENBLAS_NUM_THREADS="1", OPENBLAS_CORETYPE="Haswell",
                        ),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "done" in result.stdout, tail(result)
    assert str(tmp_path) in runtime_of(result.stdout), "another build was tested"
    found = log.read_text()
    assert "ERROR SUMMARY" in found
    ours = [part for part in found.split("==\n") if "_crossbar" in part]
    assert not ours, "\n".join(ours)[:4000]
