"""Makes replicas for tests: a light runtime that builds in a moment, specs for a few lines of code, a patient eye."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import uv

from enginehouse.backends.base import Backend, Phase, ReplicaStatus
from enginehouse.replica.spec import LOG_FILE, PackageFile, ReplicaSpec
from enginehouse.telemetry.segments import LogRecord, SegmentStream
from enginehouse.testing.packages import make_wheel

T = TypeVar("T")

LIGHT_RUNTIME = "light-1.0"

_LIGHT_RUNTIME_TOML = f"""\
name = "{LIGHT_RUNTIME}"
aliases = []
description = "Python alone, for tests"
chief_name = "chief"
python_versions = ["3.11", "3.12", "3.13", "3.14"]
main_package = ""
preload = ["decimal"]
requirements = []

[frameworks]
"""


def write_light_catalogue(directory: Path) -> Path:
    """A catalogue with the runtime `LIGHT_RUNTIME`; name it by the variable ENGINEHOUSE_CATALOGUE_DIR."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{LIGHT_RUNTIME}.toml").write_text(_LIGHT_RUNTIME_TOML)
    (directory / f"{LIGHT_RUNTIME}.lock").write_text("")
    return directory


class ReplicaFactory:
    """Makes specs whose user code is given as text.

    Args:
        directory: for the packages.
        runtimes_dir: where the runtime is built; shared by many tests, so that it is built once.
    """

    def __init__(self, directory: Path, runtimes_dir: Path) -> None:
        self._directory = directory
        self._runtimes_dir = runtimes_dir
        self._count = 0

    def spec(
        self,
        code: str = "",
        *,
        args: Sequence[str] = (),
        job_dir: str | None = None,
        module: str = "trainer.task",
        environment: Mapping[str, str] | None = None,
        packages: Sequence[Path] | None = None,
        runtime_version: str = LIGHT_RUNTIME,
        grace_s: float = 5.0,
        memory_bytes: int = 0,
    ) -> ReplicaSpec:
        """A spec that runs `code` as `trainer.task`, or `module` of `packages`."""
        if packages is None:
            self._count += 1
            folder = self._directory / f"package-{self._count}"
            packages = [make_wheel(folder, {"trainer/task.py": textwrap.dedent(code)})]
        return ReplicaSpec(
            task_name="master-replica-0",
            module=module,
            args=tuple(args),
            job_dir=job_dir,
            environment=dict(environment or {}),
            packages=tuple(PackageFile(f"gs://bucket/{path.name}", str(path)) for path in packages),
            runtime_version=runtime_version,
            python_version=None,
            runtimes_dir=str(self._runtimes_dir),
            uv=uv.find_uv_bin(),
            grace_s=grace_s,
            unset=("PYTEST_CURRENT_TEST",),  # another in each phase of a test
            memory_bytes=memory_bytes,
        )


def read_log(directory: Path) -> list[LogRecord]:
    """All records of a replica."""
    return SegmentStream(directory / LOG_FILE, "master-replica-0").read(0, 10_000_000)[0]


def messages(directory: Path) -> list[str]:
    """The text of all records."""
    return [record.message for record in read_log(directory)]


def wait_until(look: Callable[[], T], *, timeout_s: float = 30.0, what: str = "it") -> T:
    """Look again and again until `look` returns something true.

    Raises:
        AssertionError: it took longer than `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"{what} did not come to pass within {timeout_s} s"
        time.sleep(0.01)
    return answer


def wait_for_end(backend: Backend, directory: Path, *, timeout_s: float = 60.0) -> ReplicaStatus:
    """The replica's status once it has ended."""

    def ended() -> ReplicaStatus | None:
        status = backend.status(directory)
        return status if status.phase is Phase.ENDED else None

    status = wait_until(ended, timeout_s=timeout_s, what="the replica's end")
    assert status is not None
    return status


def wait_for_line(directory: Path, text: str, *, timeout_s: float = 30.0) -> None:
    """Wait until the replica has logged a line that begins with `text`."""
    wait_until(
        lambda: any(line.startswith(text) for line in messages(directory)), timeout_s=timeout_s, what=repr(text)
    )
