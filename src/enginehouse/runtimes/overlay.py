"""Installs users' packages beside a runtime: a directory for PYTHONPATH, made once for the same content.

In come a built environment and archives in their order, out comes `OVERLAYS/<key>/site`. Each package is installed
itself, then what they need; what the runtime has already is not installed again. Packages that are plain are copied;
the others, and dependencies, go through the installer.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.core.files import FileLock, atomic_write_json
from enginehouse.runtimes.archives import content_hash, write_members
from enginehouse.runtimes.builder import sweep
from enginehouse.runtimes.cache import Environment, Progress
from enginehouse.runtimes.errors import RuntimeBuildError
from enginehouse.runtimes.installer import installer_for
from enginehouse.runtimes.packages import Package, inspect_package
from enginehouse.runtimes.requirements import is_satisfied, requirement_name
from enginehouse.runtimes.uvtool import Uv

MARKER_FILE = "overlay.json"
"""Beside `site`: {"runtime": key of the environment, "packages": {name: version}, "modules": [dotted names],
"dependencies": {name: version}}."""

_RECIPE = "1"


def ensure_overlay(root: Path, environment: Environment, paths: Sequence[Path], uv: Uv, progress: Progress) -> Path:
    """See `RuntimeCache.ensure_overlay`."""
    packages = [inspect_package(path, environment.python_version) for path in paths]
    digest = hashlib.sha256(f"{_RECIPE}\0{environment.key}\0".encode())
    for package in packages:
        # A wheel's name says where it fits; an sdist's name says nothing that its content does not.
        digest.update(f"{package.path.name if package.is_wheel else ''}\0{content_hash(package.members)}\0".encode())
    directory = root / "overlays" / digest.hexdigest()[:24]
    if not (directory / MARKER_FILE).exists():
        lock = FileLock(directory.with_name(f".{directory.name}.lock"))
        try:
            with lock.held():
                if not (directory / MARKER_FILE).exists():
                    _Overlay(environment, packages, uv, progress).build(directory)
        except OSError as error:
            raise RuntimeBuildError(f"The packages could not be installed in {directory}: {error}") from error
    return directory / "site"


class _Overlay:
    """One overlay in the making."""

    def __init__(self, environment: Environment, packages: Sequence[Package], uv: Uv, progress: Progress) -> None:
        self._environment = environment
        self._packages = packages
        self._installer = installer_for(environment.python_version, uv)
        self._progress = progress
        self._installed: list[Package] = []

    def build(self, directory: Path) -> None:
        sweep(directory)
        building = directory.with_name(f".building-{directory.name}-{uuid.uuid4().hex[:8]}")
        site = building / "site"
        try:
            site.mkdir(parents=True)
            for package in self._packages:
                self._install(package, building)
            added = self._install_dependencies(building)
            marker = {
                "runtime": self._environment.key,
                "packages": {package.name: package.version for package in self._installed},
                "modules": sorted({module for package in self._installed for module in package.modules}),
                "dependencies": added,
            }
            atomic_write_json(building / MARKER_FILE, marker)
            shutil.rmtree(building / "user", ignore_errors=True)
            building.rename(directory)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise

    def _install(self, package: Package, building: Path) -> None:
        """Install one package itself, over what is there, without what it needs."""
        site = building / "site"
        if package.files is None and not package.is_wheel:
            package = self._build_wheel(package, building)
        if package.files is not None:
            write_members(package.files, site)
        else:
            doing = f"Installing {package.path.name}"
            self._installer.install_package(package.path, site, self._environment, doing=doing)
        if package.path.parent == building:  # it was built here
            package.path.unlink()
        self._installed.append(package)
        self._progress(f"Successfully installed {package.name}-{package.version}")

    def _build_wheel(self, package: Package, building: Path) -> Package:
        """Run the package's own build. With setuptools in the runtime, in the runtime, as the service did."""
        source = building / "source"
        write_members(package.members, source)
        folder = next(source.iterdir())
        wheels = building / "wheels"
        self._progress(f"Building the package: {package.path.name}")
        self._installer.build_wheel(
            folder,
            wheels,
            self._environment,
            isolated=self._needs_isolation(package),
            doing=f"Building {package.path.name}",
        )
        wheel = next(wheels.glob("*.whl"))
        built = wheel.rename(building / wheel.name)
        shutil.rmtree(source)
        shutil.rmtree(wheels)
        return inspect_package(built, self._environment.python_version)

    def _needs_isolation(self, package: Package) -> bool:
        """Whether the build asks for more than the runtime has."""
        name = next((name for name in package.members if re.fullmatch("[^/]+/pyproject.toml", name)), None)
        text = package.members[name].data if name else b""
        try:
            wanted = tomllib.loads(text.decode()).get("build-system", {}).get("requires", ["setuptools"])
        except ValueError:
            wanted = ["setuptools"]  # the build will say what is wrong with the file
        have = self._environment.packages
        return not all(is_satisfied(text, have, self._environment.python_version) for text in wanted)

    def _install_dependencies(self, building: Path) -> dict[str, str]:
        """Install what the packages need and neither the runtime nor a package has. Returns name → version."""
        needed = self._unsatisfied()
        if not needed:
            return {}
        doing = "Installing what the packages need (" + ", ".join(needed) + ")"
        site = building / "site"
        changes = self._installer.install_missing(
            needed, site, self._environment, doing=doing, progress=self._progress
        )
        if changes.added:
            names = " ".join(f"{name}-{version}" for name, version in changes.added.items())
            self._progress(f"Successfully installed {names}")
        for name, version in sorted(changes.replaced.items()):
            self._progress(
                f"{name} {changes.added[name]} goes before the runtime's {version}, since the packages ask for it."
            )
        return dict(changes.added)

    def _unsatisfied(self) -> list[str]:
        """The requirements that are not certainly met."""
        given: Mapping[str, str] = {package.name: package.version for package in self._installed}
        have = {**self._environment.packages, **given}
        needed: list[str] = []
        for requirement in dict.fromkeys(text for package in self._installed for text in package.requires):
            met = is_satisfied(requirement, have, self._environment.python_version)
            # A package that was given meets what asks for it unless its version certainly does not.
            if met or (met is None and requirement_name(requirement) in given):
                continue
            needed.append(requirement)
        return needed
