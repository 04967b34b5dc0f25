"""The way in: ``pimc`` and ``python -m pimc``; Ctrl-C is answered from the first moment."""

from __future__ import annotations

import os
import sys

from pimc import interrupts


def main() -> None:
    """Run the command line."""
    try:
        interrupts.watch()
        from pimc.cli import main as commands  # late: loading takes a while, too

        commands()
    except KeyboardInterrupt:
        _leave(with_word=True)
    except SystemExit as end:
        if interrupts.seen and end.code:  # click or a library may have called it something else
            _leave(with_word=end.code != interrupts.EXIT_CODE)
        raise
    finally:
        interrupts.ignore()  # what is done is done


def _leave(with_word: bool) -> None:
    """End as interrupted; Python itself would end by the signal, or tell of what it broke."""
    if with_word:
        print(interrupts.MESSAGE, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(interrupts.EXIT_CODE)


if __name__ == "__main__":
    main()
