"""A real browser without a window: what it says about a page, and the page as it became."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip


class Opened(NamedTuple):
    """messages: of the console, errors of the page and of its policy among them."""

    page: str
    messages: list[str]


def open_page(file: Path, profile: Path, fragment: str = "") -> Opened:
    """Open a page in an empty profile; its text after its script has run."""
    assert BROWSER is not None
    result = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", f"{file.as_uri()}{fragment}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    messages = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Opened(result.stdout, messages)
