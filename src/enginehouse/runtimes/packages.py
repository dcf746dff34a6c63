"""What a user's package is: its name, its modules, what it needs, and whether it can be installed by copying files.

In comes an archive, out comes a `Package`. `runtimes.overlay` installs it; the engine may use `inspect_package` to
judge a package at submit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enginehouse.runtimes.archives import Member, read_archive
from enginehouse.runtimes.errors import PackageError
from enginehouse.runtimes.requirements import normalise, version_matches
from enginehouse.runtimes.setup_script import copyable_files

_SCRIPTS = re.compile(r"^\[(console|gui)_scripts\]", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """A wheel or a source distribution.

    Attributes:
        path: the archive.
        name: normalised, "" where only a build can tell.
        version: "" where only a build can tell.
        modules: dotted names of the modules it holds, sorted; those of a source distribution that needs a build are
            guessed from its files.
        requires: its dependencies as PEP 508 lines; empty where only a build can tell.
        is_wheel: else a source distribution.
        files: what to put into the site directory, by name there; None where it takes an installer or a build.
        members: all files of the archive.
    """

    path: Path
    name: str
    version: str
    modules: tuple[str, ...]
    requires: tuple[str, ...]
    is_wheel: bool
    files: Mapping[str, Member] | None
    members: Mapping[str, Member]


def inspect_package(path: Path, python_version: str) -> Package:
    """Read a package without running anything of it.

    Args:
        path: a .whl, .tar.gz, .zip, …; the name matters for wheels alone.
        python_version: "3.11": decides whether a wheel fits.

    Raises:
        PackageError: it is unreadable, unsafe or no package.
    """
    members = read_archive(path)
    if path.suffix == ".whl":
        return _wheel(path, members, python_version)
    return _source(path, members, python_version)


def _wheel(path: Path, members: Mapping[str, Member], python_version: str) -> Package:
    info = next((name.split("/")[0] for name in members if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)), None)
    if info is None or f"{info}/WHEEL" not in members:
        raise PackageError(f"The package {path.name} is no wheel: it has no .dist-info with METADATA and WHEEL.")
    metadata = _headers(members[f"{info}/METADATA"])
    tags = _headers(members[f"{info}/WHEEL"])
    major, minor = python_version.split(".")
    fitting = {f"py{major}-none-any", f"py{major}{minor}-none-any"}
    entry_points = members.get(f"{info}/entry_points.txt", Member(b"")).data.decode(errors="replace")
    plain = (
        tags.get("root-is-purelib", [""])[0].lower() == "true"
        and not fitting.isdisjoint(tags.get("tag", []))
        and not any(name.split("/")[0].endswith(".data") for name in members)
        and not _SCRIPTS.search(entry_points)
        and all(version_matches(python_version, text) for text in metadata.get("requires-python", []))
    )
    return Package(
        path=path,
        name=normalise(metadata.get("name", [""])[0]),
        version=metadata.get("version", [""])[0],
        modules=module_names(name for name in members if not name.startswith(f"{info}/")),
        requires=tuple(metadata.get("requires-dist", [])),
        is_wheel=True,
        files=members if plain else None,
        members=members,
    )


def _source(path: Path, members: Mapping[str, Member], python_version: str) -> Package:
    roots = {name.split("/")[0] for name in members}
    if len(roots) != 1 or all("/" not in name for name in members):
        raise PackageError(f"The package {path.name} is no source distribution: its files do not lie in one folder.")
    root = roots.pop() + "/"
    inner = {name[len(root) :]: member for name, member in members.items()}
    if "setup.py" not in inner and "pyproject.toml" not in inner:
        raise PackageError(
            f"The package {path.name} is no Python package: it has neither setup.py nor pyproject.toml."
        )
    metadata = _headers(inner.get("PKG-INFO", Member(b"")))
    copyable = copyable_files(inner)
    requires: tuple[str, ...] = ()
    files: dict[str, Member] | None = None
    name, version = metadata.get("name", [""])[0], metadata.get("version", [""])[0]
    if copyable and all(version_matches(python_version, text) for text in copyable.python_requires):
        name, version, requires = (
            copyable.name or name or "UNKNOWN",
            copyable.version or version or "0.0.0",
            copyable.requires,
        )
        written = inner.get("PKG-INFO") or Member(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        )
        info = f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
        files = {**copyable.files, f"{info}/METADATA": written, f"{info}/INSTALLER": Member(b"enginehouse\n")}
        files[f"{info}/RECORD"] = Member("".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]).encode())
    return Package(
        path=path,
        name=normalise(name),
        version=version,
        modules=module_names(files if files is not None else (n.removeprefix("src/") for n in inner)),
        requires=requires,
        is_wheel=False,
        files=files,
        members=members,
    )


def module_names(files: Iterable[str]) -> tuple[str, ...]:
    """Dotted names of the modules among `files`: `trainer.task` for `trainer/task.py`."""
    names = set()
    for file in files:
        pure = PurePosixPath(file)
        if pure.suffix != ".py" or file == "setup.py":
            continue
        parts = pure.with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and all(part.isidentifier() for part in parts):
            names.add(".".join(parts))
    return tuple(sorted(names))


def _headers(member: Member) -> dict[str, list[str]]:
    """The header lines of a metadata file, by lower-case name."""
    headers: dict[str, list[str]] = {}
    for line in member.data.decode(errors="replace").splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            headers.setdefault(name.lower(), []).append(value.strip())
    return headers
