"""The entry point of `mle`. Imports nothing at first, so that Ctrl-C never shows a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `mle` on the command line's arguments and leave the process with its exit code."""
    try:
        from enginehouse.cli.tree import run

        code = run()
    except KeyboardInterrupt:
        code = 130

    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would show a traceback if it came while threads are joined
    sys.exit(code)
