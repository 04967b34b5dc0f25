"""A `pimc` command as a process of its own: what it answers, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

PASSED = (0, 1)  # done; done, and the answer is no


class Ran(NamedTuple):
    """One command. document: of --json. cpu_s: user and system time. peak_mib: resident set."""

    code: int
    document: dict[str, Any]
    messages: str
    cpu_s: float
    peak_mib: float

    @property
    def first_error(self) -> str:
        """The first error among the messages, or where they end."""
        lines = self.messages.splitlines()
        return next((line for line in lines if line.startswith("error")), self.messages[-200:])


def attempt(*arguments: str) -> Ran:
    """Run ``pimc ARGUMENTS --json``, whatever comes of it."""
    command = [sys.executable, "-m", "pimc", *arguments, "--json"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stdout=output, stderr=messages)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        text = output.read()
        document = json.loads(text) if text.strip() else {}
        cpu_s = usage.ru_utime + usage.ru_stime
        return Ran(process.returncode, document, messages.read(), cpu_s, usage.ru_maxrss / 1024)


def run(*arguments: str) -> Ran:
    """As `attempt`; a command that fails ends the benchmark with its message."""
    ran = attempt(*arguments)
    if ran.code not in PASSED:
        raise SystemExit(f"pimc {' '.join(arguments)}: {ran.first_error}")
    return ran
