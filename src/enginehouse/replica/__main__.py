"""Entry of the runner's process: makes `enginehouse` importable without site-packages and hands over."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Appended: where the package is installed this is site-packages, which must not shadow the standard library.
    sys.path.append(__file__.rsplit("/", 3)[0])
    from enginehouse.replica.runner import main

    sys.exit(main(sys.argv[1:]))
