"""A batch cut into shares of images, each run by a process of its own, with identical results.

Forked processes inherit the programmed machine, so nothing is prepared twice.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from signal import SIG_IGN, SIGINT, signal
from typing import Any, TypeVar

from isa.diagnostics import Diagnostic, PimError
from isa.drafts import uninterrupted

Answer = TypeVar("Answer")


def shares(images: int, jobs: int) -> list[slice]:
    """At most ``jobs`` runs of successive images whose lengths differ by one at most."""
    count = max(1, min(jobs, images))
    bounds = [images * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def in_processes(work: Callable[[slice], Answer], parts: Sequence[slice]) -> list[Answer]:
    """``work`` of every part, each in a forked process, in the order of the parts.

    Raises the PimError of the first part that has one, and R721 where a process ends without an
    answer, as it does when memory runs out.
    """
    context = get_context("fork")
    processes, receivers = [], []
    try:
        for part in parts:
            receiver, sender = context.Pipe(duplex=False)
            receivers.append(receiver)
            process = context.Process(target=_answer, args=(work, part, sender))
            with uninterrupted():
                process.start()
                processes.append(process)
            sender.close()
        return [_received(receiver) for receiver in receivers]
    finally:
        for receiver in receivers:
            receiver.close()  # a process that still writes ends with a broken pipe
        for process in processes:
            process.terminate()
            process.join()


def _answer(work: Callable[[slice], object], part: slice, sender: Connection) -> None:
    gc.freeze()  # what the parent has left over may wait, at its end, for threads of the parent
    signal(SIGINT, SIG_IGN)  # Ctrl-C reaches all; the parent ends its children
    with suppress(BrokenPipeError):  # the parent wants it no more
        try:
            sender.send(work(part))
        except PimError as error:
            sender.send(error)


def _received(receiver: Connection) -> Any:
    try:
        answer = receiver.recv()
    except EOFError:
        diagnostic = Diagnostic(
            "R721",
            "a process of --jobs ended before its images were done",
            hint="try fewer jobs: each takes memory for its images",
        )
        raise PimError(diagnostic) from None
    if isinstance(answer, PimError):
        raise answer
    return answer
