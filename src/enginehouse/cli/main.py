"""The entry point of `mle`. Imports nothing at first, so that Ctrl-C never shows a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `mle` on the command line's arguments and leave the process with its exit code.

    A Ctrl-C that the starter held back while Python started (by its signal mask) is taken here.
    """
    try:
        import signal

        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        from enginehouse.cli.tree import run

        code = run()
    except KeyboardInterrupt:
        code = 130

    import signal  # a Ctrl-C may have come before the line above that does

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would show a traceback if it came while threads are joined
    sys.exit(code)
