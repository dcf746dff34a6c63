"""From a trainer's source folder to a package file, and the checks that spare a job that can't run.

A plain folder becomes a wheel made here, byte for byte the same for the same files, so that submitting unchanged code
again finds its installation in the runtime cache. A project with its own setup.py or pyproject.toml is built by that.
"""

from __future__ import annotations

import base64
import difflib
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from enginehouse.core.errors import InvalidArgument

_JUNK_FOLDERS = frozenset(
    {"__pycache__", ".git", ".hg", ".svn", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
_NOT_SOURCE = frozenset({".venv", "venv", ".tox", ".nox", "node_modules", "build", "dist"})
"""Left out of the copy that a project's own build sees, beside the junk."""
_JUNK_FILES = re.compile(r".*\.py[co]|\.DS_Store|.*~|\.#.*")
_ARCHIVE = re.compile(r".*(\.tar\.gz|\.tgz|\.tar\.bz2|\.zip|\.whl)")
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can hold."""
_BUILD_TIMEOUT_S = 600


def check_package(package: Path, module: str | None) -> None:
    """Judge a --package-path and the module that is to run from it.

    Args:
        package: the folder of the Python package.
        module: its module to run, such as `trainer.task`; None leaves that to the service.

    Raises:
        InvalidArgument: what is missing, and what is there instead.
    """
    if not package.is_dir():
        raise InvalidArgument(f"--package-path {package}: there is no such folder.")
    root = package.resolve()
    if not (root / "__init__.py").is_file():
        raise InvalidArgument(
            f"--package-path {package}: it is no Python package, since it has no __init__.py. "
            f"Make one with: touch {package / '__init__.py'}"
        )
    if not root.name.isidentifier():
        raise InvalidArgument(f"--package-path {package}: {root.name!r} can't be imported; rename the folder.")
    if module is None:
        return
    top = module.partition(".")[0]
    if top != root.name:
        if _own_build(root.parent):
            return  # the build decides which packages there are
        raise InvalidArgument(
            f"--module-name {module}: the package is called {root.name}, so the module's name begins with "
            f"{root.name}."
        )
    path = module.replace(".", "/")
    if not (root.parent / f"{path}.py").is_file() and not (root.parent / path / "__main__.py").is_file():
        found = sorted(_modules(root))
        close = difflib.get_close_matches(module, found, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        raise InvalidArgument(
            f"--module-name {module}: there is no {path}.py; modules found: {', '.join(found[:20]) or 'none'}.{guess}"
        )


def check_archive(path: Path) -> None:
    """Judge a local file of --packages.

    Raises:
        InvalidArgument: it is missing or no package archive.
    """
    if not path.is_file():
        raise InvalidArgument(f"--packages {path}: there is no such file.")
    if not _ARCHIVE.fullmatch(path.name):
        raise InvalidArgument(f"--packages {path}: a package is a .tar.gz, .zip or .whl file.")


def check_names(paths: Sequence[Path]) -> None:
    """Refuse two packages of one file name, of which one would replace the other."""
    names = [path.name for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(f"Two packages are called {name}; every package needs a file name of its own.")


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 (hex) over names and contents of all files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda each: each.name):
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def build_package(package: Path, out: Path) -> Path:
    """Make the file to upload.

    Args:
        package: the package's folder, judged by `check_package`.
        out: an existing folder for the result.

    Raises:
        InvalidArgument: the project's own build failed; the message has the end of its output.
    """
    root = package.resolve()
    if _own_build(root.parent):
        return _normalised_sdist(_build_sdist(root.parent, out))
    return build_wheel(root, out)


def build_wheel(package: Path, out: Path) -> Path:
    """A pure-Python wheel of one package folder, data files included; the same bytes for the same files."""
    name = re.sub(r"[-_.]+", "_", package.name).lower()
    info = f"{name}-0.0.0.dist-info"
    entries = {f"{package.name}/{path.relative_to(package).as_posix()}": path for path in _files(package)}
    contents = {arcname: (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for arcname, path in entries.items()}
    contents[f"{info}/METADATA"] = (f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.0\n".encode(), False)
    contents[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: enginehouse\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n",
        False,
    )
    contents[f"{info}/top_level.txt"] = (f"{package.name}\n".encode(), False)
    record = "".join(_record(arcname, data) for arcname, (data, _) in sorted(contents.items()))
    contents[f"{info}/RECORD"] = (f"{record}{info}/RECORD,,\n".encode(), False)
    wheel = out / f"{name}-0.0.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for arcname, (data, executable) in sorted(contents.items()):
            entry = zipfile.ZipInfo(arcname, _TIMESTAMP)
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def _record(arcname: str, data: bytes) -> str:
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
    quoted = '"' + arcname.replace('"', '""') + '"' if "," in arcname or '"' in arcname else arcname
    return f"{quoted},sha256={checksum},{len(data)}\n"


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder that belong in a package, by path."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in _JUNK_FOLDERS and not path.is_symlink():
                yield from _files(path)
        elif path.is_file() and not _JUNK_FILES.fullmatch(path.name):
            yield path


def _modules(package: Path) -> Iterator[str]:
    for path in _files(package):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield ".".join(path.relative_to(package.parent).with_suffix("").parts)


def _own_build(project: Path) -> bool:
    return (project / "setup.py").is_file() or _build_backend(project)


def _build_backend(project: Path) -> bool:
    """Whether pyproject.toml builds something; one that only holds the settings of tools does not."""
    import tomllib

    try:
        told = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{project / 'pyproject.toml'} is not valid TOML: {error}") from None
    return "project" in told or "build-system" in told


def _build_sdist(project: Path, out: Path) -> Path:
    """Build an sdist in a copy, so that nothing is left in the user's folder."""
    result = out / "sdist"
    with tempfile.TemporaryDirectory(prefix="mle-build-") as scratch:
        copy = Path(scratch) / project.name
        ignore = shutil.ignore_patterns(*_JUNK_FOLDERS, *_NOT_SOURCE, "*.egg-info")
        shutil.copytree(project, copy, ignore=ignore, symlinks=True)
        if _build_backend(project):
            command = [
                str(find_uv()),
                "build",
                "--sdist",
                "--no-config",
                "--python",
                sys.executable,
                "-o",
                str(result),
                ".",
            ]
        else:
            command = [sys.executable, "setup.py", "-q", "sdist", "--formats=gztar", "-d", str(result)]
        try:
            done = subprocess.run(
                command, cwd=copy, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise InvalidArgument(f"Building {project} took longer than {_BUILD_TIMEOUT_S} s.") from None
    built = sorted(result.glob("*.tar.gz")) if result.is_dir() else []
    if done.returncode != 0 or not built:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise InvalidArgument(f"Building the package in {project} failed:\n{output}")
    return built[0]


def find_uv() -> Path:
    """The uv binary that is installed with this package."""
    from uv import find_uv_bin

    return Path(os.fsdecode(find_uv_bin()))


def _normalised_sdist(path: Path) -> Path:
    """Write an sdist again without times and owners, so that unchanged code gives an unchanged file."""
    with tarfile.open(path, "r:gz") as source:
        members = [(member, source.extractfile(member)) for member in source.getmembers()]
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as target:
            for member, content in sorted(members, key=lambda pair: pair[0].name):
                member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
                member.pax_headers = {}
                target.addfile(member, content)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        packed.write(plain.getvalue())
    return path
