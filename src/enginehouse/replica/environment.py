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
from enginehouse.replica import zygote
from enginehouse.replica.spec import MARKER, ReplicaSpec
from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Resolution, Runtime
from enginehouse.runtimes.errors import RuntimesError
from enginehouse.runtimes.native import ca_redirect_path, ensure_ca_redirect

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
    variables = _variables(spec, directory, environment, resolution.runtime, overlay, host)
    if _needs_redirect(resolution.runtime, variables):
        try:
            _preload(variables, ensure_ca_redirect(Path(spec.runtimes_dir), uv))
        except RuntimesError as error:  # without a compiler the job goes on, as it may need no gs://
            log(f"gs:// won't work in TensorFlow here, since a small library for it could not be compiled: {error}")
    return Prepared(environment.python, variables)


@dataclass(frozen=True)
class Interpreter:
    """What a replica is started in, as far as that is known before its packages are.

    Attributes:
        environment: the runtime.
        preload: what may be imported beforehand.
        variables: of the user process, but for what the packages add to its paths.
    """

    environment: Environment
    preload: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def fixed_variables(self) -> dict[str, str]:
        """Those of the variables that a waiting interpreter must have been started with."""
        return dict(zygote.fixed(self.variables))  # type: ignore[no-untyped-call]


def find_interpreter(spec: ReplicaSpec, directory: Path, host: Mapping[str, str] = os.environ) -> Interpreter | None:
    """What `prepare` will come to, where all is in place already; None where something is to be built first.

    Raises:
        EngineError, ValueError: the catalogue does not know the runtime.
    """
    uv = Path(spec.uv) if spec.uv else None
    resolution = _resolution(Catalogue.load(uv=uv), spec)
    environment = RuntimeCache(Path(spec.runtimes_dir), uv).ready(resolution)
    if environment is None:
        return None
    variables = _variables(spec, directory, environment, resolution.runtime, None, host)
    if _needs_redirect(resolution.runtime, variables):
        library = ca_redirect_path(Path(spec.runtimes_dir))
        if not library.exists():
            return None
        _preload(variables, library)
    return Interpreter(environment, resolution.runtime.preload, variables)


def _variables(
    spec: ReplicaSpec,
    directory: Path,
    environment: Environment,
    runtime: Runtime,
    overlay: Path | None,
    host: Mapping[str, str],
) -> dict[str, str]:
    variables = user_variables(spec, directory, environment.directory, overlay, host)
    for name, value in runtime.environment.items():
        variables.setdefault(name, value.replace("{runtime}", str(environment.directory)))
    return variables


def _needs_redirect(runtime: Runtime, variables: Mapping[str, str]) -> bool:
    """Whether old TensorFlow is to be made to trust the gateway."""
    return runtime.fixed_ca_file and "CURL_CA_BUNDLE" in variables


def _preload(variables: dict[str, str], library: Path) -> None:
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
