"""Makes users' packages for tests without running a build."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SETUP_SCRIPT = """\
from setuptools import find_packages, setup

setup(name={name!r}, version={version!r}, packages=find_packages(), install_requires={requires!r})
"""


def make_sdist(
    directory: Path,
    files: Mapping[str, str | bytes],
    *,
    name: str = "trainer",
    version: str = "0.1",
    requires: Sequence[str] = (),
    setup: str | None = None,
    mtime: int = 0,
) -> Path:
    """A source distribution as setuptools makes one.

    Args:
        files: content by path, such as `trainer/task.py`; `trainer/__init__.py` is added where it lacks.
        setup: the text of setup.py; a plain one by default.
        mtime: time stamp of the members, in seconds since the epoch.
    """
    script = SETUP_SCRIPT.format(name=name, version=version, requires=list(requires)) if setup is None else setup
    egg = f"{name}.egg-info"
    members: dict[str, str | bytes] = {
        **with_init(files),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "setup.py": script,
        "setup.cfg": "[egg_info]\ntag_build = \ntag_date = 0\n\n",
    }
    members[f"{egg}/SOURCES.txt"] = "\n".join([*members, f"{egg}/SOURCES.txt"])
    path = directory / f"{name}-{version}.tar.gz"
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"{name}-{version}/{member}")
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return path


def make_wheel(
    directory: Path,
    files: Mapping[str, str | bytes],
    *,
    name: str = "trainer",
    version: str = "0.1",
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    entry_points: str = "",
) -> Path:
    """A wheel of pure Python."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    members: dict[str, str | bytes] = {
        **with_init(files),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if entry_points:
        members[f"{info}/entry_points.txt"] = entry_points
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in [*members, f"{info}/RECORD"])
    path = directory / f"{name}-{version}-{tag}.whl"
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def with_init(files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """`files` with an empty `__init__.py` for each package that lacks one."""
    packages = {path.split("/")[0] for path in files if "/" in path and path.endswith(".py")}
    return {**{f"{package}/__init__.py": "" for package in packages}, **files}
