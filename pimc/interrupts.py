"""Interrupts: Ctrl-C ends a command in one line, whatever is running, loading or half written."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_CODE = 130
MESSAGE = "interrupted"
seen = False  # also when a library turned the KeyboardInterrupt into something else


def watch() -> None:
    """Note the first Ctrl-C of this process; it still raises KeyboardInterrupt."""
    signal.signal(signal.SIGINT, _stop)


def ignore() -> None:
    """From here on the process only ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    global seen
    seen = True
    raise KeyboardInterrupt
