"""Processes of ``--jobs``: what they inherit they leave alone."""

from __future__ import annotations

import gc
from typing import ClassVar

from runtime.parallel import in_processes, shares


class _Pool:
    """Like onnxruntime's threads: its end in a forked process would wait for ever."""

    ended: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        self.ended.append(1)


def test_a_process_never_ends_what_its_parent_has_left_over() -> None:
    gc.collect()
    gc.disable()
    try:
        _Pool()

        def collected(part: slice) -> int:
            gc.collect()
            return len(_Pool.ended)

        assert in_processes(collected, shares(2, 2)) == [0, 0]
        gc.collect()
        assert _Pool.ended == [1]
    finally:
        gc.enable()
