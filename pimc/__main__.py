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
        print(interrupts.MESSAGE, file=sys.stderr)
        _leave(interrupts.EXIT_CODE)
    except SystemExit as end:
        if interrupts.seen and isinstance(end.code, int):
            _leave(end.code)
        raise
    finally:
        interrupts.ignore()  # what is done is done


def _leave(code: int) -> None:
    """End with an exit code; Python itself would end by the signal, or tell of what it broke."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
