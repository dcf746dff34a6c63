"""Makes environments and installs into them: with uv for Python 3; uv knows no Python 2 (`runtimes.python2` does).

Called by `runtimes.builder` and `runtimes.overlay`, under their locks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enginehouse.runtimes.cache import Environment, Progress
from enginehouse.runtimes.catalogue import Resolution, is_python_2
from enginehouse.runtimes.errors import PackageError, RuntimeBuildError
from enginehouse.runtimes.uvtool import Uv

_CHANGE = re.compile(r" ([+-]) (\S+?)(?:==(\S+)| @ (\S+))$")


@dataclass(frozen=True)
class Changes:
    """What packages brought along: version by name, and the runtime's versions that these go before."""

    added: Mapping[str, str]
    replaced: Mapping[str, str]


class Installer(Protocol):
    """One way to install. All methods raise `RuntimeBuildError` or `PackageError` with the tool's own words."""

    def create(self, environment: Path, interpreter: Path, *, doing: str) -> None:
        """Make an empty environment that may be renamed later."""
        ...

    def install_lock(self, environment: Path, resolution: Resolution, *, doing: str, progress: Progress) -> None:
        """Install exactly what the runtime's lock says."""
        ...

    def build_wheel(
        self, source: Path, wheels: Path, environment: Environment, *, isolated: bool, doing: str
    ) -> None:
        """Run a source tree's own build in the runtime's Python.

        Args:
            isolated: with the tools that its pyproject.toml asks for, not those of the runtime.
        """
        ...

    def install_package(self, package: Path, site: Path, environment: Environment, *, doing: str) -> None:
        """Install one wheel into `site`, over what is there, without what it needs."""
        ...

    def install_missing(
        self, needed: Sequence[str], site: Path, environment: Environment, *, doing: str, progress: Progress
    ) -> Changes:
        """Install into `site` what `needed` asks for and the runtime does not have."""
        ...

    def compile(self, environment: Path, place: Path, skip: str) -> list[str]:
        """The arguments of Python that write the bytecode of `environment`, for tracebacks that name `place`."""
        ...


def installer_for(python_version: str, uv: Uv) -> Installer:
    """The installer for a Python."""
    if is_python_2(python_version):
        from enginehouse.runtimes.python2 import PipInstaller

        return PipInstaller(uv)
    return UvInstaller(uv, python_version)


class UvInstaller:
    """The installer for Python 3."""

    def __init__(self, uv: Uv, python_version: str) -> None:
        self._uv = uv
        self._minor = int(python_version.partition(".")[2])

    def create(self, environment: Path, interpreter: Path, *, doing: str) -> None:
        # Scripts of a relocatable environment find their interpreter after the rename.
        make = ("venv", "--quiet", "--relocatable", "--no-project", "--no-python-downloads", "--python", interpreter)
        self._uv.run(*make, environment, doing=doing, directory=environment.parent)

    def install_lock(self, environment: Path, resolution: Resolution, *, doing: str, progress: Progress) -> None:
        # A lock is complete; uv would stumble over the metadata of old packages if it looked for what they need.
        install: list[str | Path] = ["pip", "install", "--require-hashes", "--no-deps"]
        install += ["--python", environment / "bin/python", "-r", resolution.lock]
        try:
            self._uv.run(*install, doing=doing, directory=environment, progress=progress)
        except RuntimeBuildError:
            if not (backend := resolution.runtime.torch_backend):
                raise
            self._uv.run(*install, "--torch-backend", backend, doing=doing, directory=environment, progress=progress)

    def build_wheel(
        self, source: Path, wheels: Path, environment: Environment, *, isolated: bool, doing: str
    ) -> None:
        build: list[str | Path] = ["build", "--wheel", *([] if isolated else ["--no-build-isolation"])]
        build += ["--out-dir", wheels, source, "--python", environment.python]
        self._uv.run(*build, doing=doing, directory=environment.directory, error=PackageError)

    def install_package(self, package: Path, site: Path, environment: Environment, *, doing: str) -> None:
        install = ("pip", "install", "--no-deps", "--reinstall", "--target", site, package)
        self._uv.run(
            *install, "--python", environment.python, doing=doing, directory=environment.directory, error=PackageError
        )

    def install_missing(
        self, needed: Sequence[str], site: Path, environment: Environment, *, doing: str, progress: Progress
    ) -> Changes:
        python: list[str | Path] = ["--python", environment.python]
        progress(f"Running command: uv pip install {' '.join(needed)}")
        plan = self._uv.run("pip", "install", "--dry-run", *python, *needed, doing=doing, directory=site.parent)
        changes = [match for line in plan if (match := _CHANGE.match(line))]
        new = [(match[2], match) for match in changes if match[1] == "+"]
        added = {name: match[3] or match[4] for name, match in new}
        pins = [f"{name}=={match[3]}" if match[3] else f"{name} @ {match[4]}" for name, match in new]
        if pins:
            compiled = ["--compile-bytecode"] if self._minor >= 7 else []  # uv can't for older ones
            target: list[str | Path] = ["pip", "install", "--no-deps", *compiled, "--target", site, *python, *pins]
            self._uv.run(*target, doing=doing, directory=site.parent, progress=progress)
        return Changes(added, {match[2]: match[3] for match in changes if match[1] == "-" and match[2] in added})

    def compile(self, environment: Path, place: Path, skip: str) -> list[str]:
        site = next((environment / "lib").glob("python*/site-packages"))
        if self._minor >= 9:
            named = ["-s", str(environment), "-p", str(place)]
        else:
            named = ["-d", str(place / site.relative_to(environment))]
        return ["-I", "-m", "compileall", "-qq", "-j0", "-x", skip, *named, str(site)]
