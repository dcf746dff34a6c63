"""The cache of built environments on disk, shared by all engines of a user.

In comes a `Resolution` or a list of user packages, out come an `Environment` and the directory of an overlay. The
runner builds what is missing; the engine only asks what is `ready`.

    ROOT/<runtime>-py<version>-<hash of the lock>/    a virtual environment, never changed again
    ROOT/overlays/<key>/                              users' packages (runtimes.overlay)
    ROOT/.building-…/                                 half made; swept by the next build of the same key
    ROOT/.<key>.lock                                  held while that key is built
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.files import FileLock
from enginehouse.runtimes.catalogue import Resolution
from enginehouse.runtimes.errors import RuntimeBuildError
from enginehouse.runtimes.interpreters import Interpreters

# What builds is imported where it is used: most runners find all in place, and their start is part of every job.

Progress = Callable[[str], None]
"""Takes one line for the job's log."""

MARKER_FILE = "runtime.json"
"""In an environment, written last: what it is made of."""

_RECIPE = b"1"
"""Counted up when environments are to be built in another way, so that old ones are not taken for new."""


@dataclass(frozen=True)
class Environment:
    """A built runtime.

    Attributes:
        key: names it uniquely, also across hosts with the same catalogue.
        directory: the virtual environment.
        runtime_name, python_version: what it was made for.
        packages: version of each installed distribution by normalised name (`scikit-learn`).
    """

    key: str
    directory: Path
    runtime_name: str
    python_version: str
    packages: Mapping[str, str]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"


class RuntimeCache:
    """Builds environments once. Safe to use from several processes; one instance belongs to one thread at a time.

    Args:
        root: made when first needed.
        uv: the uv binary; None allows only what is built already.
    """

    def __init__(self, root: Path, uv: Path | None) -> None:
        self._root = root
        self._uv = uv
        self._interpreters = Interpreters(uv)

    def key(self, resolution: Resolution) -> str:
        """The name of the environment that `resolution` needs."""
        runtime = resolution.runtime
        provided = repr(sorted(runtime.provides.items())).encode() if runtime.provides else b""
        lock_hash = hashlib.sha256(_RECIPE + resolution.lock.read_bytes() + provided).hexdigest()
        return f"{runtime.name}-py{resolution.python_version}-{lock_hash[:12]}"

    def ready(self, resolution: Resolution) -> Environment | None:
        """The environment if it is built, without building it."""
        directory = self._root / self.key(resolution)
        try:
            marker = json.loads((directory / MARKER_FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not (directory / "bin" / "python").exists():  # its base interpreter is gone
            return None
        return Environment(
            directory.name, directory, resolution.runtime.name, resolution.python_version, marker["packages"]
        )

    def ensure(self, resolution: Resolution, progress: Progress) -> Environment:
        """The environment, built first if need be; a second caller waits for the first.

        Args:
            progress: gets a few lines while it is built, none when it is ready.

        Raises:
            RuntimeBuildError: it can't be built; the text has the tool's own words.
        """
        if environment := self.ready(resolution):
            return environment
        from enginehouse.runtimes.builder import build_environment
        from enginehouse.runtimes.uvtool import Uv

        name = resolution.runtime.name
        lock = FileLock(self._root / f".{self.key(resolution)}.lock")
        try:
            if not lock.acquire(blocking=False):
                progress(f"Waiting for another process that builds runtime {name}.")
                lock.acquire()
            if not (environment := self.ready(resolution)):
                interpreter = self._interpreters.find(resolution.python_version)
                if interpreter is None:
                    raise RuntimeBuildError(f"Python {resolution.python_version} was not found on this host.")
                directory = self._root / self.key(resolution)
                build_environment(resolution, directory, interpreter, Uv(self._uv), progress)
                environment = self.ready(resolution)
        except OSError as error:
            raise RuntimeBuildError(f"Runtime {name} could not be built in {self._root}: {error}") from error
        finally:
            lock.release()
        if environment is None:
            raise RuntimeBuildError(f"Runtime {name} was built in {self._root} but is not there.")
        return environment

    def ensure_overlay(self, environment: Environment, packages: Sequence[Path], progress: Progress) -> Path:
        """A directory with users' packages and what they need beyond the runtime, to be put on PYTHONPATH.

        Found again by the content of the packages, whatever their time stamps, and their order.

        Raises:
            PackageError: a package is unreadable, unsafe or can't be built.
            RuntimeBuildError: what the packages need can't be installed.
        """
        from enginehouse.runtimes.overlay import ensure_overlay
        from enginehouse.runtimes.uvtool import Uv

        return ensure_overlay(self._root, environment, packages, Uv(self._uv), progress)
