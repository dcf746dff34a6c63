"""The catalogue of runtimes: data files that say what a `runtimeVersion` is made of.

In comes what a user wrote (`runtimeVersion`, `pythonVersion`), out comes a `Resolution`. `jobs` and `registry` call
it to judge a request, the runner to build the environment.

Each runtime is `catalogue/NAME.toml` (what it is) and `catalogue/NAME.lock` (requirements with hashes, made by
`tools/lock_runtimes.py`); what it is on Python 2 is locked in `NAME-py2.lock`. A second directory of the same form
may add runtimes or replace some.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
        python_versions: "3.11", …: those that can host it, best first.
        chief_name: what TF_CONFIG calls the first replica: "chief" from runtime 2.1 on, "master" before.
        requirements: what was locked.
        main_package: the requirement that gives the runtime its name, for messages.
        file: its description, beside which the locks lie.
        default_python: what a request without a `pythonVersion` means; "" for the engine's own, where it can host it.
        stands_for: further versions that users may ask for, and get the next newer one that can host the runtime.
        provides: distributions that another one stands for: {"tensorflow": "tensorflow-cpu"}. Packages that require
            the one are content with the other.
        torch_backend: which of PyTorch's own indexes has its builds, where the host's index has none ("cpu").
        environment: variables of the user process, unless the job or the host sets them. {runtime} in a value is the
            directory of the environment.
        fixed_ca_file: its TensorFlow reads the certificates for gs:// from a path that is written into it, whatever
            the variables say; see runtimes/native.
        preload: modules that a waiting interpreter has imported. Only what was measured to survive a fork.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    frameworks: Mapping[str, str]
    python_versions: tuple[str, ...]
    chief_name: str
    requirements: tuple[str, ...]
    main_package: str
    file: Path
    default_python: str = ""
    stands_for: tuple[str, ...] = ()
    provides: Mapping[str, str] = field(default_factory=dict)
    torch_backend: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    fixed_ca_file: bool = False
    preload: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Runtime:
        """Read `NAME.toml`.

        Raises:
            ValueError: the file is no description of a runtime.
        """
        try:
            value: dict[str, Any] = tomllib.loads(path.read_text())
            value = {"stands_for": [], "preload": [], **value}
            for name in ("aliases", "python_versions", "requirements", "stands_for", "preload"):
                value[name] = tuple(value[name])
            if value["name"] != path.stem:
                raise ValueError(f"its name is {value['name']!r}")
            return cls(file=path, **value)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not describe a runtime: {error}") from error

    @property
    def known_python_versions(self) -> list[str]:
        """What a `pythonVersion` may name, in their order."""
        return _sorted({*self.python_versions, *self.stands_for})

    def lock(self, python_version: str) -> Path:
        """The lock file for a Python that can host the runtime."""
        return self.file.with_name(f"{self.name}-py2.lock" if is_python_2(python_version) else f"{self.name}.lock")


@dataclass(frozen=True)
class Resolution:
    """What a request comes to: this runtime on this Python, and why."""

    runtime: Runtime
    python_version: str
    reason: str

    @property
    def lock(self) -> Path:
        """The lock file of the runtime for this Python."""
        return self.runtime.lock(self.python_version)


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
        return cls(built_in_files() + (sorted(extra.glob("*.toml")) if extra else []), Interpreters(uv))

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

        Exactly the Python that was asked for, if the host has it; else the next newer one that can host the runtime,
        since that runs the same code. Without a wish the runtime's default, the next newer one, or any that is here.

        Args:
            runtime_version: a name or alias.
            python_version: "3.11", or None.
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
        if python_version is None:
            return self._default(runtime, field)
        known = runtime.known_python_versions
        if python_version not in known:
            raise InvalidArgument(
                f"Runtime {runtime.name} has Python {', '.join(known)}, not {python_version!r}.",
                field=f"{field}.python_version",
            )
        chosen = self._nearest(runtime, python_version)
        if chosen is None:
            raise InvalidArgument(
                f"Python {python_version} was not found on this host, nor a newer one that can host runtime "
                f"{runtime.name}. {_cure(python_version)}, or leave python_version out.",
                field=f"{field}.python_version",
            )
        if chosen == python_version:
            return Resolution(runtime, chosen, f"Python {chosen} was asked for")
        reason = f"Python {python_version} was asked for, and {chosen} is the nearest on this host that runs its code"
        return Resolution(runtime, chosen, reason)

    def chosen(self, runtime_version: str, python_version: str, reason: str) -> Resolution:
        """What `resolve` chose before, without looking for interpreters again.

        Raises:
            InvalidArgument: the catalogue has no such runtime any more.
        """
        runtime = self._find(runtime_version)
        if runtime is None or python_version not in runtime.python_versions:
            return self.resolve(runtime_version, python_version)
        return Resolution(runtime, python_version, reason)

    def _default(self, runtime: Runtime, field: str) -> Resolution:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        default = runtime.default_python or (own if own in runtime.python_versions else "")
        if default and (chosen := self._nearest(runtime, default)):
            if chosen != default:
                why = f"the default, {default}, is not on this host, and {chosen} is the nearest that runs its code"
            else:
                whose = "the runtime's default" if runtime.default_python else "the engine's own"
                why = f"Python {chosen} is {whose}"
            return Resolution(runtime, chosen, why)
        chosen = next((version for version in runtime.python_versions if self._interpreters.find(version)), None)
        if chosen is None:
            raise InvalidArgument(
                f"Runtime {runtime.name} needs Python {' or '.join(runtime.python_versions)}; this host has none of "
                f"them. {_cure(runtime.python_versions[-1])} and submit again.",
                field=f"{field}.runtime_version",
            )
        why = f"Python {chosen} is the first that this host has"
        if runtime.default_python:
            why += f"; the default, {default}, is not here, and code that needs it may not run"
        return Resolution(runtime, chosen, why)

    def _nearest(self, runtime: Runtime, python_version: str) -> str | None:
        """`python_version` or the next newer one with the same major number, of those that are here."""
        wanted = version_key(python_version)
        newer = [
            version
            for version in _sorted(runtime.python_versions)
            if version_key(version)[0] == wanted[0] and version_key(version) >= wanted
        ]
        return next((version for version in newer if self._interpreters.find(version)), None)


def built_in_files() -> list[Path]:
    """The descriptions that come with the product; the service's own first, 1.9 before 1.15."""
    return sorted(_BUILT_IN.glob("*.toml"), key=_natural)


def version_key(version: str) -> tuple[int, ...]:
    """For ordering: (3, 11) for "3.11"."""
    return tuple(int(part) for part in version.split("."))


def is_python_2(version: str) -> bool:
    """Whether "2.7"-like; tools and files differ for it."""
    return version.startswith("2.")


def _natural(path: Path) -> list[tuple[int, str]]:
    """1.9 before 1.15, and names after numbers."""
    return [(int(part), "") if part.isdigit() else (sys.maxsize, part) for part in re.split(r"[.-]", path.stem)]


def _sorted(versions: Iterable[str]) -> list[str]:
    return sorted(versions, key=version_key)


def _cure(version: str) -> str:
    return "Install Python 2.7" if is_python_2(version) else f"Install it with `mle runtimes install {version}`"
