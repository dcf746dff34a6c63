"""Resolve the runtimes' requirements again: `python tools/lock_runtimes.py [NAME…]`.

Reads `src/enginehouse/runtimes/catalogue/NAME.toml`, writes `NAME.lock` beside it, and `NAME-py2.lock` where Python
2.7 can host the runtime: exact versions with the hashes of all their files and no word of where they came from, so
that a lock is good with any package index. A changed lock makes a new environment on the users' machines (its hash is
part of the environment's key).

For Python 2.7, which uv does not know, its pip resolves, on a host that has such a Python. PyTorch's builds for the
CPU are on no page of PyPI: UV_FIND_LINKS names a folder or a page that has them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import uv

from enginehouse.runtimes.catalogue import Runtime, is_python_2, version_key
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.runtimes.python2 import VIRTUALENV
from enginehouse.runtimes.uvtool import METADATA_REPAIRS

CATALOGUE = Path(__file__).resolve().parents[1] / "src/enginehouse/runtimes/catalogue"


def lock(runtime: Runtime) -> str:
    """The lock file's text for the Pythons 3 of a runtime.

    Raises:
        subprocess.CalledProcessError: uv found no solution; it has said why.
        ValueError: uv's answer names a place.
    """
    oldest = min((each for each in runtime.python_versions if not is_python_2(each)), key=version_key)
    oldest = {"3.7": "3.7.1"}.get(oldest, oldest)  # the first for many packages
    return _compile("\n".join(runtime.requirements), "--python-version", oldest)


def lock_python2(runtime: Runtime) -> str:
    """The lock file's text for Python 2.7: what its pip installs.

    Raises:
        subprocess.CalledProcessError: pip found no solution; it has said why.
        ValueError: this host has no Python 2.7.
    """
    interpreter = Interpreters(Path(uv.find_uv_bin())).find("2.7")
    if interpreter is None:
        raise ValueError("there is no Python 2.7 on this host")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"PIP_NO_PYTHON_VERSION_WARNING": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*command: str | Path) -> str:
        return subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout

    with tempfile.TemporaryDirectory() as scratch:
        make = ("virtualenv", "--quiet", "--no-download", "--python", interpreter, scratch)
        run(uv.find_uv_bin(), "tool", "run", "--quiet", "--from", VIRTUALENV, *make)
        pip = (Path(scratch) / "bin/python", "-m", "pip", "--quiet")
        run(*pip, "install", "--prefer-binary", *runtime.requirements)
        pins = re.findall(r"^\S+==\S+$", run(*pip, "freeze"), re.MULTILINE)
    # uv adds the hashes; it minds no upper limits of Python versions.
    return _compile("\n".join(pins), "--no-deps", "--python-version", "3.6")


def check(runtime: Runtime) -> None:
    """Whether a lock has a file for each Python 3 of this host that can host the runtime.

    Raises:
        subprocess.CalledProcessError: it has not; uv has said which.
    """
    interpreters = Interpreters(Path(uv.find_uv_bin()))
    for version in runtime.python_versions:
        if not is_python_2(version) and (python := interpreters.find(version)):
            command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--dry-run", "--require-hashes", "--no-deps"]
            with tempfile.TemporaryDirectory() as scratch:
                place = ["--target", scratch, "--python", python]
                subprocess.run([*command, *place, "-r", runtime.lock(version)], check=True)


def _compile(requirements: str, *options: str) -> str:
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--fork-strategy", "fewest"]
    command += ["--config-file", str(METADATA_REPAIRS), *options, "-"]
    # uv keeps the pins of an existing output file; piping gives a fresh resolution each time.
    text = subprocess.run(command, input=requirements, stdout=subprocess.PIPE, text=True, check=True).stdout
    if place := re.search(r"\S*(://|file:|--index|--find-links)\S*", text):
        raise ValueError(f"the lock names a place: {place.group()}")
    return text


def main() -> int:
    """Lock the named runtimes, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--python", choices=["2", "3"], help="Lock for this Python alone.")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in CATALOGUE.glob("*.toml"))
    failed = False
    for name in names:
        runtime = Runtime.read(CATALOGUE / f"{name}.toml")
        for python in sorted({each[0] for each in runtime.python_versions} & set(arguments.python or "23")):
            try:
                text = lock_python2(runtime) if python == "2" else lock(runtime)
            except (subprocess.CalledProcessError, ValueError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
                continue
            path = runtime.lock(f"{python}.x")
            path.write_text(text)
            try:
                check(runtime)
            except subprocess.CalledProcessError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
            print(f"{path.name}: {len(re.findall('^[A-Za-z0-9]', text, re.MULTILINE))} packages", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
