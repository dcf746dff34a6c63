"""Makes the environment of the user process: the runtime, the packages, the variables.

In comes a `ReplicaSpec`, out comes an `Environ`ment to start the user process in; what is done goes to the log in the
words of the service's own runner. Called by `replica.runner`, in a thread, since it may take long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.errors import EngineError
from enginehouse.replica.spec import MARKER, ReplicaSpec
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Resolution
from enginehouse.runtimes.errors import RuntimesError
from enginehouse.runtimes.native import ensure_ca_redirect

OVERLAY_VARIABLE = "ENGINEHOUSE_OVERLAY"
"""Tells the bootstrap where the packages are; taken out before user code runs."""
LIBRARY_DIR = "lib"
"""In the replica's directory: the little of `enginehouse.sdk` that trainers may import."""
_HERE = Path(__file__).parent


class EnvironmentFailedError(Exception):
    """The environment can't be made; the text is for the job's owner."""


@dataclass(frozen=True)
class Prepared:
    """What the user process is started with.

    Attributes:
        python: the interpreter.
        command: what runs in its place, if anything does.
        what: the word for it.
    """

    python: Path
    variables: Mapping[str, str]
    command: tuple[str, ...] = ()
    what: str = "module"


def prepare(
    spec: ReplicaSpec, directory: Path, log: Callable[[str], None], host: Mapping[str, str] = os.environ
) -> Prepared:
    """Build or find the runtime and the overlay.

    Args:
        directory: the replica's.
        log: takes lines for the job's owner.
        host: the variables that the user process inherits.

    Raises:
        EnvironmentFailedError: with the words of the tool that failed.
    """
    uv = Path(spec.uv) if spec.uv else None
    try:
        resolution = _resolution(Catalogue.load(uv=uv), spec)
        cache = RuntimeCache(Path(spec.runtimes_dir), uv)
        environment = cache.ensure(resolution, log)
        log(f"Using runtime {resolution.runtime.name} with Python {resolution.python_version}: {resolution.reason}.")
        overlay = None
        if spec.packages:
            for package in spec.packages:
                log(f"Installing the package: {package.uri}")
            overlay = cache.ensure_overlay(environment, [Path(package.path) for package in spec.packages], log)
        write_library(directory / LIBRARY_DIR)
    except (RuntimesError, EngineError, OSError, ValueError) as error:
        raise EnvironmentFailedError(str(error)) from error
    variables = user_variables(spec, directory, environment.directory, overlay, host)
    for name, value in resolution.runtime.environment.items():
        variables.setdefault(name, value.replace("{runtime}", str(environment.directory)))
    if resolution.runtime.fixed_ca_file and "CURL_CA_BUNDLE" in variables:
        _preload_redirect(variables, Path(spec.runtimes_dir), uv, log)
    return Prepared(environment.python, variables)


def _preload_redirect(variables: dict[str, str], root: Path, uv: Path | None, log: Callable[[str], None]) -> None:
    """Make old TensorFlow trust the gateway; without a compiler the job goes on, as it may need no gs://."""
    try:
        library = ensure_ca_redirect(root, uv)
    except RuntimesError as error:
        log(f"gs:// won't work in TensorFlow here, since a small library for it could not be compiled: {error}")
    else:
        variables["LD_PRELOAD"] = os.pathsep.join(filter(None, (str(library), variables.get("LD_PRELOAD", ""))))


def _resolution(catalogue: Catalogue, spec: ReplicaSpec) -> Resolution:
    """What was chosen at submit; a spec without a reason or a Python leaves the choice to the runner."""
    if spec.python_version and spec.runtime_reason:
        return catalogue.chosen(spec.runtime_version, spec.python_version, spec.runtime_reason)
    return catalogue.resolve(spec.runtime_version, spec.python_version)


def user_variables(
    spec: ReplicaSpec, directory: Path, runtime: Path, overlay: Path | None, host: Mapping[str, str]
) -> dict[str, str]:
    """The environment variables of the user process.

    The host's, without those that steer another Python or the engine or that the spec leaves out; then the spec's;
    then what makes the runtime and the packages found.
    """
    left_out = {"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", *spec.unset}
    variables = {
        name: value
        for name, value in host.items()
        if not name.startswith(("PYTHON", "ENGINEHOUSE_")) and name not in left_out
    }
    variables.update(spec.environment)
    paths = [str(runtime / "bin"), variables.get("PATH", os.defpath)]
    modules = [variables.get("PYTHONPATH", ""), str(directory / LIBRARY_DIR)]
    if overlay:
        paths.insert(0, str(overlay / "bin"))
        modules.insert(0, str(overlay))
        variables[OVERLAY_VARIABLE] = str(overlay)
    variables["PATH"] = os.pathsep.join(paths)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, modules))
    variables.setdefault("PYTHONUNBUFFERED", "1")
    variables.setdefault("PYTHONIOENCODING", "utf-8")
    variables[MARKER] = str(directory)
    return variables


def write_library(directory: Path) -> None:
    """Make `enginehouse.sdk.report` importable; what else there is of the package stays importable beside it."""
    more = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    sdk = directory / "enginehouse" / "sdk"
    sdk.mkdir(parents=True, exist_ok=True)
    for package, source in ((sdk.parent, _HERE.with_name("__init__.py")), (sdk, _HERE / "reporting.py")):
        (package / "__init__.py").write_text(source.read_text("ascii") + more)
