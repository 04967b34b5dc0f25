"""Drafts: files and folders are written beside their place and appear whole, or not at all.

Whatever ends the writing (an error, a full disk, Ctrl-C), no draft is left behind and what stood
at the place before still does.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from isa.diagnostics import Diagnostic, Location, PimError

_ELSEWHERE: Final = "choose a place that you may write to"
_HINTS: Final = {
    errno.ENOSPC: "free some space, or choose a place on another disk",
    errno.EDQUOT: "free some space, or choose a place on another disk",
    errno.EFBIG: "the system or a limit (`ulimit -f`) allows no file of this size",
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.ELOOP: "the path is a link to itself; choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def drafted_file(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``file`` at the end, or vanishes.

    A link stays a link: what it names is replaced. Raises PimError C508 when something other than
    a file is there, C509 when the system refuses.
    """
    place = Path(os.path.realpath(file))
    draft = place.with_name(f".pimc-{secrets.token_hex(4)}{place.suffix}")
    try:
        if os.path.lexists(place) and not place.is_file():
            raise PimError(in_the_way(file, "no plain file"))
        yield draft
        draft.replace(place)
    except OSError as error:
        raise PimError(not_written(file, error)) from error
    finally:
        with uninterrupted(), suppress(OSError):
            draft.unlink()


@contextmanager
def drafted_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` at the end, or vanishes. Raises C509."""
    place = Path(os.path.realpath(folder))
    draft = place.with_name(f".pimc-{secrets.token_hex(4)}")
    try:
        draft.mkdir()
        yield draft
        with uninterrupted():
            _replace(place, draft)
    except OSError as error:
        raise PimError(not_written(folder, error)) from error
    finally:
        with uninterrupted():
            shutil.rmtree(draft, ignore_errors=True)


def _replace(folder: Path, draft: Path) -> None:
    """Put ``draft`` in the place of ``folder``; the old one returns when that fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = folder.parent / f"{draft.name}.old"
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        with suppress(OSError):
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the block, which takes moments.

    A handler, not a mask: a mask holds for one thread, and libraries start others, which take the
    signal for the process. Only the main thread is ever interrupted.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    late: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: late.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if late:
            signal.raise_signal(signal.SIGINT)


def in_the_way(path: Path, what: str) -> Diagnostic:
    """C508: something is at the path that is not replaced."""
    hint = "choose another path, or remove it"
    return Diagnostic("C508", f"`{path}` exists and is {what}", Location(str(path)), hint)


def not_written(path: Path, error: OSError) -> Diagnostic:
    """C509: why the system did not write, and what to try."""
    message = f"cannot write `{path}`: {error.strerror or error}"
    hint = _HINTS.get(error.errno or 0)
    return Diagnostic("C509", message, Location(str(path)), hint)
