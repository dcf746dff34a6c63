"""Builds one virtual environment from a lock file. Called by `runtimes.cache` under its lock.

The environment is made in a hidden directory beside its place, its modules are compiled (an import without bytecode
takes two to three times as long), and one rename puts it in place: what is there is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.core.files import atomic_write_json
from enginehouse.core.units import format_elapsed, format_size
from enginehouse.runtimes.cache import MARKER_FILE, Progress
from enginehouse.runtimes.catalogue import Resolution
from enginehouse.runtimes.installer import installer_for
from enginehouse.runtimes.python2 import name_interpreter
from enginehouse.runtimes.requirements import normalise
from enginehouse.runtimes.uvtool import Uv

_REQUIREMENT = re.compile(r"^[A-Za-z0-9]", re.MULTILINE)
_NOT_COMPILED = "/site-packages/.*/tests?/"
"""The packages' own tests: they are nearly half of all files, and nobody imports them."""


def build_environment(resolution: Resolution, directory: Path, interpreter: Path, uv: Uv, progress: Progress) -> None:
    """Build `directory`.

    Raises:
        RuntimeBuildError: uv failed.
        OSError: the disk failed.
    """
    runtime = resolution.runtime
    progress(f"Building runtime {_title(resolution)}: this happens once.")
    began = time.monotonic()
    sweep(directory)
    building = directory.with_name(f".building-{directory.name}-{uuid.uuid4().hex[:8]}")
    installer = installer_for(resolution.python_version, uv)
    try:
        doing = f"Building runtime {runtime.name}"
        building.parent.mkdir(parents=True, exist_ok=True)
        installer.create(building, interpreter, doing=doing)
        if _REQUIREMENT.search(resolution.lock.read_text()):
            installer.install_lock(building, resolution, doing=doing, progress=progress)
            _provide(runtime.provides, site_packages(building))
            _compile(building, installer.compile(building, directory, _NOT_COMPILED), progress)
        name_interpreter(building / "bin", building / "bin", directory / "bin")
        packages = installed_packages(site_packages(building))
        took_s = time.monotonic() - began
        size_bytes = sum(entry.stat(follow_symlinks=False).st_size for entry in building.rglob("*"))
        marker = {
            "runtime": runtime.name,
            "python": resolution.python_version,
            "interpreter": str(interpreter),
            "packages": packages,
            "size_bytes": size_bytes,
            "took_s": round(took_s, 3),
            "built_ns": time.time_ns(),
        }
        atomic_write_json(building / MARKER_FILE, marker)
        if directory.exists():  # its base interpreter is gone
            directory.rename(building.with_name(building.name + "-old"))
        building.rename(directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sweep(directory)
    progress(
        f"Runtime {runtime.name} is ready: {len(packages)} packages, {format_size(size_bytes)}, "
        f"built in {format_elapsed(took_s)}."
    )


def sweep(directory: Path) -> None:
    """Remove what killed builds of `directory` left. Only under the key's lock."""
    for leftover in directory.parent.glob(f".building-{directory.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def site_packages(environment: Path) -> Path:
    """Where the environment's packages lie."""
    return next((environment / "lib").glob("python*/site-packages"))


def installed_packages(site: Path) -> dict[str, str]:
    """Version of each distribution in `site` by normalised name, read from the .dist-info directories' names."""
    found = (path.name.removesuffix(".dist-info").rpartition("-") for path in site.glob("*.dist-info"))
    return {normalise(name): version for name, _, version in sorted(found)}


def _title(resolution: Resolution) -> str:
    main = re.escape(resolution.runtime.main_package)
    locked = re.search(rf"^({main})==(\S+)", resolution.lock.read_text(), re.MULTILINE) if main else None
    contents = f"Python {resolution.python_version}" + (f", {locked[1]} {locked[2]}" if locked else "")
    return f"{resolution.runtime.name} ({contents})"


def _provide(provides: Mapping[str, str], site: Path) -> None:
    """Let a distribution also be there by another name, for those that require that one.

    Its metadata alone, of the same version, tells all installers that it needs nothing more.
    """
    packages = installed_packages(site)
    for name, other in provides.items():
        info = site / f"{name}-{packages[other]}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {packages[other]}\nSummary: Stands for {other}\n"
        (info / "METADATA").write_text(text)
        (info / "INSTALLER").write_text("enginehouse\n")
        record = [f"{info.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD")]
        (info / "RECORD").write_text("".join(record))


def _compile(building: Path, arguments: Sequence[str], progress: Progress) -> None:
    """Write bytecode that names the final place in tracebacks. Files that don't compile (templates) are left."""
    began = time.monotonic()
    command = [str(building / "bin" / "python"), *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    progress(f"Compiled the modules in {format_elapsed(time.monotonic() - began)}")
