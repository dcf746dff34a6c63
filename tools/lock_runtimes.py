"""Resolve the runtimes' requirements again: `python tools/lock_runtimes.py [NAME…]`.

Reads `src/enginehouse/runtimes/catalogue/NAME.toml`, writes `NAME.lock` beside it: exact versions with the hashes
of all their files and no word of where they came from, so that a lock is good with any package index. A changed lock
makes a new environment on the users' machines (its hash is part of the environment's key).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import uv

CATALOGUE = Path(__file__).resolve().parents[1] / "src/enginehouse/runtimes/catalogue"


def lock(description: Path) -> str:
    """The lock file's text for one runtime description.

    Raises:
        subprocess.CalledProcessError: uv found no solution; it has said why.
        ValueError: uv's answer names a place.
    """
    runtime = tomllib.loads(description.read_text())
    oldest = min(runtime["python_versions"], key=lambda version: tuple(map(int, version.split("."))))
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--fork-strategy", "fewest"]
    command += ["--python-version", oldest, "-"]
    # uv keeps the pins of an existing output file; piping gives a fresh resolution each time.
    requirements = "\n".join(runtime["requirements"])
    text = subprocess.run(command, input=requirements, stdout=subprocess.PIPE, text=True, check=True).stdout
    if place := re.search(r"\S*(://|file:|--index|--find-links)\S*", text):
        raise ValueError(f"the lock of {description.stem} names a place: {place.group()}")
    return text


def main() -> int:
    """Lock the named runtimes, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or sorted(path.stem for path in CATALOGUE.glob("*.toml"))
    for name in names:
        text = lock(CATALOGUE / f"{name}.toml")
        (CATALOGUE / f"{name}.lock").write_text(text)
        print(f"{name}: {len(re.findall('^[A-Za-z0-9]', text, re.MULTILINE))} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
