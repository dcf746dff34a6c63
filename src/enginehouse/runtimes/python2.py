"""Environments of Python 2.7, for which there is neither uv nor venv: virtualenv makes them, pip fills them.

uv still brings the virtualenv, the last that makes environments of Python 2.7; that one has the last pip for it on
board. A package's dependencies are resolved by that pip, so that old trainers get what they got then.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from enginehouse.runtimes.cache import MARKER_FILE, Environment, Progress
from enginehouse.runtimes.catalogue import Resolution
from enginehouse.runtimes.errors import PackageError, RuntimeBuildError, RuntimesError
from enginehouse.runtimes.installer import Changes
from enginehouse.runtimes.requirements import normalise
from enginehouse.runtimes.uvtool import Uv, run_tool, settings_for_pip

VIRTUALENV = "virtualenv==20.21.1"
_SITE = "lib/python2.7/site-packages"
_SUMMARY = re.compile(r"(Downloading|Building wheel|Installing collected)\b")
_INSTALLED = re.compile(r"Successfully installed (.+)")


class PipInstaller:
    """The installer for Python 2.7."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv

    def create(self, environment: Path, interpreter: Path, *, doing: str) -> None:
        tool = ("tool", "run", "--quiet", "--no-python-downloads", "--from", VIRTUALENV)
        make = ("virtualenv", "--quiet", "--no-download", "--no-periodic-update", "--python", interpreter)
        self._uv.run(*tool, *make, environment, doing=doing, directory=environment.parent)

    def install_lock(self, environment: Path, resolution: Resolution, *, doing: str, progress: Progress) -> None:
        install = ("install", "--require-hashes", "--no-deps", "--no-compile", "-r", resolution.lock)
        python = environment / "bin" / "python"
        _pip(python, *install, doing=doing, directory=environment, progress=progress)

    def build_wheel(
        self, source: Path, wheels: Path, environment: Environment, *, isolated: bool, doing: str
    ) -> None:
        wheel = ("wheel", "--no-deps", "--wheel-dir", wheels, source)  # isolation is pip's own decision
        _pip(environment.python, *wheel, doing=doing, directory=environment.directory, error=PackageError)

    def install_package(self, package: Path, site: Path, environment: Environment, *, doing: str) -> None:
        self._install(("--force-reinstall", "--no-deps", package), site, environment, doing, None, PackageError)

    def install_missing(
        self, needed: Sequence[str], site: Path, environment: Environment, *, doing: str, progress: Progress
    ) -> Changes:
        progress(f"Running command: pip install --user {' '.join(needed)}")
        lines = self._install(needed, site, environment, doing, progress, RuntimeBuildError)
        said = next((match[1] for line in reversed(lines) if (match := _INSTALLED.match(line))), "")
        split = (text.rpartition("-") for text in said.split())
        added = {normalise(name): version for name, _, version in split}
        return Changes(added, {name: old for name, old in environment.packages.items() if name in added})

    def _install(
        self,
        what: Sequence[str | Path],
        site: Path,
        environment: Environment,
        doing: str,
        progress: Progress | None,
        error: type[RuntimesError],
    ) -> list[str]:
        """`pip install --user` as the service did it: over the runtime, with `site` for the user's site directory.

        The base interpreter does it, to which the runtime lies on the path: in a virtual environment pip would not
        put one version before another, and with --target or --prefix it would not see, or remove, what is there.
        """
        user = site.with_name("user")
        (user / _SITE).parent.mkdir(parents=True, exist_ok=True)
        for name, target in ((_SITE, site), ("bin", site / "bin")):
            target.mkdir(exist_ok=True)
            if not (user / name).exists():
                (user / name).symlink_to(target)
        base = Path(json.loads((environment.directory / MARKER_FILE).read_bytes())["interpreter"])
        paths = os.pathsep.join([str(site), str(environment.directory / _SITE)])
        variables = {"PYTHONPATH": paths, "PYTHONUSERBASE": str(user)}
        lines = _pip(
            base, "install", "--user", *what, doing=doing, directory=site.parent, progress=progress, error=error,
            variables=variables,
        )  # fmt: skip
        name_interpreter(site / "bin", base, environment.python)
        return lines

    def compile(self, environment: Path, place: Path, skip: str) -> list[str]:
        return ["-E", "-s", "-m", "compileall", "-q", "-x", skip, "-d", str(place / _SITE), str(environment / _SITE)]


def name_interpreter(folder: Path, old: Path, new: Path) -> None:
    """Let the scripts in `folder` that are run by something below `old` be run by the same below `new`."""
    for script in folder.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text, start = script.read_bytes(), b"#!" + os.fsencode(old)
        if text.startswith(start):
            script.write_bytes(b"#!" + os.fsencode(new) + text[len(start) :])


def _pip(
    python: Path,
    *arguments: str | Path,
    doing: str,
    directory: Path,
    progress: Progress | None = None,
    error: type[RuntimesError] = RuntimeBuildError,
    variables: dict[str, str] | None = None,
) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    quiet = {"PIP_NO_PYTHON_VERSION_WARNING": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}
    environ = {**settings_for_pip(kept), **kept, **quiet, "PYTHONDONTWRITEBYTECODE": "1", **(variables or {})}
    command = [python, "-m", "pip", "--no-input", *arguments]
    return run_tool(command, environ, doing, directory, _SUMMARY, progress, error)
