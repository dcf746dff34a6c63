"""The servers that `objects.py` holds the engine against: the emulator of PyPI, and answers that are ready."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environments import environment_python

EMULATOR = "gcp-storage-emulator==2026.7.19"


@contextmanager
def emulator(data_dir: Path) -> Iterator[tuple[str, int]]:
    """The emulator, with its objects on the disk as the engine's are; its URL and pid. It finds what was there."""
    data_dir.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [emulator_program(), "-d", data_dir / "data", "start", "--host", "127.0.0.1", "--port", port, "--quiet"]
    with (data_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=data_dir, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        wait_for(port, process, data_dir / "log")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(30)


def fill_emulator(data_dir: Path, bucket: str, names: list[str], data: bytes) -> None:
    """Give a stopped emulator more objects, like one that it has, by its own files.

    It writes all it knows anew with each object that is put: ten thousand would take it the better part of an hour.
    """
    (index,) = data_dir.rglob(".meta")
    known = json.loads(index.read_text())
    objects = known["objects"][bucket]
    model = next(iter(objects.values()))
    for name in names:
        if name not in objects:
            objects[name] = json.loads(json.dumps(model).replace(model["name"], name))
            path = index.parent / bucket / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    index.write_text(json.dumps(known))


@contextmanager
def canned(source: Path, small_file: Path, count: int, resource: str, ca_dir: Path) -> Iterator[tuple[str, str, int]]:
    """The server of `canned_objects.py`; its URL, its proxy's and its pid."""
    program = Path(__file__).with_name("canned_objects.py")
    command = [sys.executable, program, source, small_file, str(count), resource, ca_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            plain, proxy = (f"http://127.0.0.1:{int(port)}" for port in process.stdout.readline().split())
            yield plain, proxy, process.pid
        finally:
            process.terminate()


def emulator_program() -> Path:
    """The emulator's command."""
    return environment_python("gcp-storage-emulator", [EMULATOR]).with_name("gcp-storage-emulator")


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 30.0) -> None:
    """Until a server listens; its log is the error if it never does."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the emulator did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
