"""Entry of the runner's process: makes `enginehouse` importable without site-packages and hands over."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Appended: where the package is installed this is site-packages, which must not shadow the standard library.
    sys.path.append(__file__.rsplit("/", 3)[0])
    from enginehouse.replica.runner import main

    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # nothing is left to be done, and who waits for the lock waits for the interpreter's end
