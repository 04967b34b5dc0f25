"""Interrupts: Ctrl-C ends a command in one line, whatever is running, loading or half written.

A KeyboardInterrupt is not safe everywhere. C libraries that import modules while they are loaded
crash on it, or lose it, and Python drops what a callback of the garbage collection raises. There
the signal waits, and comes again a moment later.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

EXIT_CODE = 130
MESSAGE = "interrupted"
AGAIN_S = 0.002
seen = False  # also when a library turned the KeyboardInterrupt into something else
_IMPORT = "<frozen importlib."  # the files of the frames that run an import


def watch() -> None:
    """Note every Ctrl-C of this process; it raises KeyboardInterrupt where that is safe."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    sys.unraisablehook = _lost


def ignore() -> None:
    """From here on the process only ends."""
    for number in (signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    global seen
    seen = True
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT):
            _come_again()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _come_again()
    elif not seen:  # else it is about what the interrupt left half made
        sys.__unraisablehook__(unraisable)


def _come_again() -> None:
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
