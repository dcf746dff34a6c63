"""The catalogue of runtimes: data files that say what a `runtimeVersion` is made of.

In comes what a user wrote (`runtimeVersion`, `pythonVersion`), out comes a `Resolution`. `jobs` and `registry` call
it to judge a request, the runner to build the environment.

Each runtime is `catalogue/NAME.toml` (what it is) and `catalogue/NAME.lock` (requirements with hashes, made by
`tools/lock_runtimes.py`). A second directory of the same form may add runtimes or replace some.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginehouse.core.errors import InvalidArgument
from enginehouse.runtimes.interpreters import Interpreters

EXTRA_DIRECTORY_VARIABLE = "ENGINEHOUSE_CATALOGUE_DIR"
"""Names a further directory of runtimes; the engine's runners inherit it."""

_BUILT_IN = Path(__file__).parent / "catalogue"


@dataclass(frozen=True)
class Runtime:
    """One entry of the catalogue.

    Attributes:
        name: the `runtimeVersion` that users write, such as "2.21".
        aliases: other names for it.
        description: one line for people.
        frameworks: version of each framework, by the API's names (TENSORFLOW, SCIKIT_LEARN, XGBOOST).
        python_versions: "3.11", …; the first is the default.
        chief_name: what TF_CONFIG calls the first replica: "chief" from runtime 2.1 on, "master" before.
        requirements: what was locked.
        main_package: the requirement that gives the runtime its name, for messages.
        lock: the lock file.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    frameworks: Mapping[str, str]
    python_versions: tuple[str, ...]
    chief_name: str
    requirements: tuple[str, ...]
    main_package: str
    lock: Path

    @classmethod
    def read(cls, path: Path) -> Runtime:
        """Read `NAME.toml`.

        Raises:
            ValueError: the file is no description of a runtime.
        """
        try:
            value: dict[str, Any] = tomllib.loads(path.read_text())
            for name in ("aliases", "python_versions", "requirements"):
                value[name] = tuple(value[name])
            if value["name"] != path.stem:
                raise ValueError(f"its name is {value['name']!r}")
            return cls(lock=path.with_suffix(".lock"), **value)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not describe a runtime: {error}") from error


@dataclass(frozen=True)
class Resolution:
    """What a request comes to: this runtime on this Python, and why."""

    runtime: Runtime
    python_version: str
    reason: str


class Catalogue:
    """All runtimes by name. Files are read when they are asked for: a runner needs one of many.

    Args:
        paths: of the descriptions; of two with one name the later wins.
        interpreters: finds the host's Pythons.
    """

    def __init__(self, paths: Sequence[Path], interpreters: Interpreters) -> None:
        self._paths = {path.stem: path for path in paths}
        self._read: dict[str, Runtime] = {}
        self._interpreters = interpreters

    @classmethod
    def load(cls, *, extra: Path | None = None, uv: Path | None = None) -> Catalogue:
        """The built-in runtimes and those of `extra`, which win.

        Args:
            extra: by default the directory that ENGINEHOUSE_CATALOGUE_DIR names, if any.
            uv: helps to find interpreters that are not on PATH.
        """
        if extra is None and os.environ.get(EXTRA_DIRECTORY_VARIABLE):
            extra = Path(os.environ[EXTRA_DIRECTORY_VARIABLE])
        paths = sorted(_BUILT_IN.glob("*.toml")) + (sorted(extra.glob("*.toml")) if extra else [])
        return cls(paths, Interpreters(uv))

    def names(self) -> list[str]:
        """The names that users may write, without aliases."""
        return list(self._paths)

    def runtimes(self) -> list[Runtime]:
        """All entries.

        Raises:
            ValueError: a file does not describe a runtime.
        """
        return [self._runtime(name) for name in self._paths]

    def _runtime(self, name: str) -> Runtime:
        if name not in self._read:
            self._read[name] = Runtime.read(self._paths[name])
        return self._read[name]

    def _find(self, runtime_version: str) -> Runtime | None:
        if runtime_version in self._paths:
            return self._runtime(runtime_version)
        return next((runtime for runtime in self.runtimes() if runtime_version in runtime.aliases), None)

    def resolve(
        self, runtime_version: str, python_version: str | None = None, *, field: str = "training_input"
    ) -> Resolution:
        """Choose the runtime and its Python for this host.

        Args:
            runtime_version: a name or alias.
            python_version: "3.11"; None takes the engine's own if the runtime has it, else the first that is here.
            field: path of the message that holds both fields, for errors.

        Raises:
            InvalidArgument: naming the wrong field and what there is instead.
            ValueError: a file of the catalogue does not describe a runtime.
        """
        runtime = self._find(runtime_version)
        if runtime is None:
            raise InvalidArgument(
                f"There is no runtime version {runtime_version!r}. Known are: {', '.join(self._paths)}.",
                field=f"{field}.runtime_version",
            )
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if python_version is None:
            candidates = sorted(runtime.python_versions, key=lambda version: version != own)
            for candidate in candidates:
                if self._interpreters.find(candidate):
                    why = "the engine's own" if candidate == own else "the first that this host has"
                    return Resolution(runtime, candidate, f"Python {candidate} is {why}")
            raise InvalidArgument(
                f"Runtime {runtime.name} needs Python {' or '.join(runtime.python_versions)}; this host has none of "
                "them. Install one and submit again.",
                field=f"{field}.runtime_version",
            )
        if python_version not in runtime.python_versions:
            raise InvalidArgument(
                f"Runtime {runtime.name} has Python {', '.join(runtime.python_versions)}, not {python_version!r}.",
                field=f"{field}.python_version",
            )
        if not self._interpreters.find(python_version):
            raise InvalidArgument(
                f"Python {python_version} was not found on this host. Install it, or leave python_version out.",
                field=f"{field}.python_version",
            )
        return Resolution(runtime, python_version, f"Python {python_version} was asked for")
