"""Whether a refactoring changed any program: hashes of what two commits emit for the same models.

    python -m benchmarks.replay [OLD [NEW]] [--json]

OLD: a commit, HEAD by default. NEW: another one; the work tree as it is by default. Each commit is
checked out into a temporary folder and compiles every case by its own code; a hash covers the text
and all arrays. Exit code 1 when a hash differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
CALIBRATION = MODELS / "fmnist_calib.npz"
CASES = [
    (model, mapping)
    for model in ("lenet5_fmnist", "resnet8_fmnist", "resnet8_pp4_fmnist")
    for mapping in ("ou-tile", "pattern-dedup", "row-compress", "plane-skip")
]
EMIT = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
import pimc
model, calibration, mapping = sys.argv[1:]
samples = {k: v for k, v in np.load(calibration).items() if k != "labels"}
program = pimc.compile(model, calibration=samples, mapping=mapping)
digest = hashlib.sha256(program.text().encode())
def add(name, array):
    digest.update(f"{name} {array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
for core in program.program.cores:
    for matrix in core.matrices:
        blocks = matrix.blocks
        for owner in (blocks, blocks.routes, blocks.spans):
            for name, value in sorted(vars(owner).items()):
                if isinstance(value, np.ndarray):
                    add(f"{core.index} {matrix.name} {name}", value)
for table in program.program.tables:
    add(table.name, table.values)
print(digest.hexdigest())
"""


@contextmanager
def checked_out(commit: str | None) -> Iterator[Path]:
    """A folder with the files of ``commit``; the work tree itself for None."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def emitted(tree: Path, model: str, mapping: str) -> str:
    """The hash of a program, or the last line of the error where a commit cannot compile it."""
    path = f"{MODELS / model}.onnx"
    result = subprocess.run(
        [sys.executable, "-P", "-c", EMIT, path, str(CALIBRATION), mapping],
        env={**os.environ, "PYTHONPATH": str(tree), "PIMC_KERNEL": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        return "error: " + (result.stderr.strip().splitlines() or ["?"])[-1]
    return result.stdout.strip()


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("old", default="HEAD")
@click.argument("new", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def main(old: str, new: str | None, as_json: bool) -> None:
    rows = []
    with checked_out(old) as before, checked_out(new) as after:
        for model, mapping in CASES:
            hashes = [emitted(tree, model, mapping) for tree in (before, after)]
            rows.append({"model": model, "mapping": mapping, "old": hashes[0], "new": hashes[1]})
    changed = [row for row in rows if row["old"] != row["new"]]
    if as_json:
        print(json.dumps({"old": old, "new": new, "programs": rows, "changed": len(changed)}))
    else:
        for row in rows:
            same = "same   " if row not in changed else "CHANGED"
            print(
                f"{same}  {row['model']:22}{row['mapping']:16}{row['old'][:16]}  {row['new'][:16]}"
            )
        print(f"{len(changed)} of {len(rows)} programs changed")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
