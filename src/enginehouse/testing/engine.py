"""A real engine in a process of its own, to be used, killed and started again by tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

START_TIMEOUT_S = 30.0
_POLL_S = 0.02


class EngineProcess:
    """`mle up` in the foreground on a data directory and a free port that stays the same over restarts.

    Args:
        data_dir: the engine's data directory; its log is `engine-test.log` there.
        environ: variables on top of this process's, such as ENGINEHOUSE_MAX_RUNNING_JOBS. No interpreters wait unless
            ENGINEHOUSE_WARM_POOL says so: what a test runs once gains nothing from them.
    """

    def __init__(self, data_dir: Path, environ: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._environ = {"ENGINEHOUSE_WARM_POOL": "0", **os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        url: str = json.loads((self.data_dir / "engine.json").read_text())["url"]
        return url

    @property
    def gateway_url(self) -> str:
        url: str = json.loads((self.data_dir / "engine.json").read_text())["gatewayUrl"]
        return url

    @property
    def gateway_bundle(self) -> Path:
        """The certificates that whoever uses the gateway must trust."""
        return self.data_dir / "gateway" / "bundle.pem"

    @property
    def log(self) -> str:
        """What the engine printed so far."""
        return (self.data_dir / "engine-test.log").read_text()

    def start(self) -> EngineProcess:
        """Start, and return when it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "engine.json").unlink(missing_ok=True)  # a killed engine leaves its own behind
        command = [
            sys.executable,
            "-m",
            "enginehouse.cli",
            "up",
            "--port",
            "0",
            "--data-dir",
            str(self.data_dir),
        ]
        with (self.data_dir / "engine-test.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the engine did not start:\n{self.log}")
            time.sleep(_POLL_S)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, ValueError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=30)

    def __enter__(self) -> EngineProcess:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def make_sdist(files: Mapping[str, str], *, name: str = "trainer", version: str = "0.1") -> bytes:
    """An sdist of `files` as gcloud makes one, with a setup.py that finds the packages.

    Args:
        files: path below the project → text, such as {"trainer/task.py": "print(1)"}; `__init__.py` is added.
    """
    setup = (
        "from setuptools import find_packages, setup\n"
        f"setup(name={name!r}, version={version!r}, packages=find_packages())\n"
    )
    packages = {path.rpartition("/")[0] for path in files if "/" in path}
    content = {"setup.py": setup, **{f"{package}/__init__.py": "" for package in packages}, **files}
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, text in content.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            tar.addfile(member, BytesIO(text.encode()))
    return buffer.getvalue()


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of all processes of engines and replicas on `data_dir`, known by argument or environment."""
    found = []
    needle = os.fsencode(str(data_dir))
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if needle in command or b"ENGINEHOUSE_REPLICA=" + needle in environ:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
