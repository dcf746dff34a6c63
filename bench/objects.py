"""How fast objects go in and out, against `gcp-storage-emulator` and a plain copy of the file.

The same google-cloud-storage code uploads and downloads one large file (resumable, streamed from and to the disk),
and lists and fetches many small objects, on a real engine, through its gateway and on the emulator, in turn in each
round; the plain copy is `shutil.copyfile` with fsync on the same disk. Each result is checked against what was sent.
"floor" is the same client with `canned_objects.py`, which does nothing but send: no server can be faster to it. The
emulator (PyPI) gets a virtual environment of its own, made here with uv and kept in the user's cache.

    python bench/objects.py [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uv
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from enginehouse.testing.engine import EngineProcess

EMULATOR = "gcp-storage-emulator==2026.7.19"
TIMES_EMULATOR_BAR = 3.0
ENGINE_RSS_BAR_MIB = 300
MIB = 1024 * 1024
CHUNK_BYTES = 32 * MIB
SMALL_BYTES = 1000
PUT_STEP = 500
EMULATOR_PUT_LIMIT_S = 30.0
"""The emulator slows down with each object it has; what it holds by then is what is listed and fetched."""
THREADS = 4
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Sizes:
    """How much is moved, and how often."""

    large_bytes: int
    small_objects: int
    """At most: see `EMULATOR_PUT_LIMIT_S`."""
    rounds: int


@dataclass
class Server:
    """One server as the client sees it, and what was measured of it: by name, seconds of each round.

    `cpu` holds pairs of CPU seconds (user and system): the client's, the server's.
    """

    bucket: Any
    pid: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    peak_rss_mib: float = 0.0

    def timed(self, name: str, work: Callable[[Any], None]) -> None:
        """Do `work` with the bucket."""
        client, server = psutil.Process(), psutil.Process(self.pid)
        before = _cpu_s(client), _cpu_s(server)
        began = time.perf_counter()
        work(self.bucket)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        self.cpu.setdefault(name, []).append((_cpu_s(client) - before[0], _cpu_s(server) - before[1]))

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def median_cpu(self, name: str) -> tuple[float, float]:
        client, server = zip(*self.cpu[name], strict=True)
        return statistics.median(client), statistics.median(server)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    sizes = Sizes(128 * MIB, 500, 3) if parser.parse_args().quick else Sizes(1024 * MIB, 10_000, 2)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-objects-")))
        source, small_file = folder / "source", folder / "small"
        with source.open("wb") as file:
            for _ in range(sizes.large_bytes // CHUNK_BYTES):
                file.write(os.urandom(CHUNK_BYTES))
        small_file.write_bytes(os.urandom(SMALL_BYTES))
        process = stack.enter_context(EngineProcess(folder / "engine"))
        told = json.loads((process.data_dir / "engine.json").read_text())
        emulator_url, emulator_pid = stack.enter_context(emulator(folder / "emulator"))
        bundle = process.data_dir / "gateway" / "bundle.pem"
        engine = Server(direct(told["url"]).create_bucket("bench-bucket"), told["pid"])
        gateway = Server(through(told["gatewayUrl"], bundle).bucket("bench-bucket"), told["pid"])
        theirs = Server(direct(emulator_url).create_bucket("bench-bucket"), emulator_pid)
        for server in (engine, theirs):
            stack.enter_context(watched(server))
        names = put_small(engine, theirs, small_file.read_bytes(), sizes.small_objects)
        resource = json.dumps(next(iter(engine.bucket.list_blobs(max_results=1)))._properties)
        canned_url, canned_pid = stack.enter_context(canned(source, small_file, len(names), resource))
        floor = Server(direct(canned_url).bucket("bench-bucket"), canned_pid)
        servers = (engine, theirs, gateway, floor)
        copy_s = []
        for _ in range(sizes.rounds):
            copy_s.append(plain_copy(source, folder / "copied"))
            for server in servers:
                large(server, source, folder / "downloaded", with_upload=server is not floor)
            for server in servers:
                small(server, names, small_file.read_bytes())
        report(sizes, len(names), statistics.median(copy_s), engine, gateway, theirs, floor)


def direct(url: str) -> storage.Client:
    """A client of a server at `url`."""
    return storage.Client(project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


def through(gateway_url: str, bundle: Path) -> storage.Client:
    """A client of storage.googleapis.com, for which the gateway answers."""
    session = AuthorizedSession(AnonymousCredentials())
    session.trust_env = False
    session.proxies = {"https": gateway_url}
    session.verify = str(bundle)
    return storage.Client(project="bench", credentials=AnonymousCredentials(), _http=session)


def large(server: Server, source: Path, target: Path, *, with_upload: bool) -> None:
    """Send a large file and fetch it back; without an upload it is there already."""
    if with_upload:
        blob = server.bucket.blob("large", chunk_size=CHUNK_BYTES)
        server.timed("upload", lambda _bucket: blob.upload_from_filename(str(source), timeout=600))
    server.timed("download", lambda bucket: bucket.blob("large").download_to_filename(str(target), timeout=600))
    assert filecmp.cmp(source, target, shallow=False), "other bytes came back"
    target.unlink()
    if with_upload:
        blob.delete()


def put_small(engine: Server, theirs: Server, data: bytes, count: int) -> list[str]:
    """Put small objects on both servers, a step here and a step there; the names of those that are there."""
    names = [f"small/{index:06}" for index in range(count)]
    for start in range(0, count, PUT_STEP):
        step = names[start : start + PUT_STEP]
        for server in (engine, theirs):
            server.timed(
                "put small", lambda bucket, step=step: _each(step, lambda n: bucket.blob(n).upload_from_string(data))
            )
        if sum(theirs.seconds["put small"]) > EMULATOR_PUT_LIMIT_S:
            return names[: start + PUT_STEP]
    return names


def small(server: Server, names: list[str], data: bytes) -> None:
    """List and fetch many small objects."""

    def list_all(bucket: Any) -> None:
        assert [blob.name for blob in bucket.list_blobs(prefix="small/")] == names

    def fetch_all(bucket: Any) -> None:
        def fetch(name: str) -> None:
            assert bucket.blob(name).download_as_bytes() == data

        _each(names, fetch)

    server.timed("list small", list_all)
    server.timed("fetch small", fetch_all)


def _each(names: list[str], work: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, names))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def plain_copy(source: Path, target: Path) -> float:
    """Seconds to copy a file to the disk, and no sooner done than it is there."""
    target.unlink(missing_ok=True)
    began = time.perf_counter()
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - began


@contextmanager
def watched(server: Server) -> Iterator[None]:
    """Sample the memory of a process and its children, and keep the largest sum."""
    done = threading.Event()

    def sample() -> None:
        root = psutil.Process(server.pid)
        while not done.wait(_SAMPLE_S):
            try:
                processes = [root, *root.children(recursive=True)]
                total = sum(process.memory_info().rss for process in processes)
            except psutil.NoSuchProcess:
                continue
            server.peak_rss_mib = max(server.peak_rss_mib, total / MIB)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def emulator(data_dir: Path) -> Iterator[tuple[str, int]]:
    """The emulator, with its objects on the disk as the engine's are; its URL and pid."""
    data_dir.mkdir()
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


@contextmanager
def canned(source: Path, small_file: Path, count: int, resource: str) -> Iterator[tuple[str, int]]:
    """The server of `canned_objects.py`; its URL and pid."""
    program = Path(__file__).with_name("canned_objects.py")
    command = [sys.executable, program, source, small_file, str(count), resource]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.terminate()


def emulator_program() -> Path:
    """The emulator's command, installed into its own environment where that has not happened yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    environment = base / "enginehouse" / "bench" / EMULATOR
    program = environment / "bin" / "gcp-storage-emulator"
    if not program.exists():
        tool = uv.find_uv_bin()
        subprocess.run([tool, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        python = environment / "bin" / "python"
        subprocess.run([tool, "pip", "install", "--quiet", "--python", python, EMULATOR], check=True)
    return program


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


def report(
    sizes: Sizes, count: int, copy_s: float, engine: Server, gateway: Server, theirs: Server, floor: Server
) -> None:
    """A table, and the bars as the last line; "possible" is how many times the emulator any server can reach."""
    size_mib = sizes.large_bytes / MIB
    print(f"{size_mib:.0f} MiB; {count} objects of {SMALL_BYTES} bytes, {THREADS} threads for these")
    if count < sizes.small_objects:
        print(f"not {sizes.small_objects}: putting took the emulator more than {EMULATOR_PUT_LIMIT_S:.0f} s")
    print("The engine lists in pages of 1000 as Cloud Storage does; the emulator answers with all at once.")
    print(f"plain copy        {copy_s:8.2f} s  {size_mib / copy_s:8.0f} MiB/s")
    print(f"{'':20} {'engine':>8} {'emulator':>8} {'floor':>8} {'times':>6} {'possible':>8}   CPU s: client+server")
    bars = {}
    for way, server in (("", engine), (", gateway", gateway)):
        for name in server.seconds:
            mine, other = server.median(name), theirs.median(name)
            least = floor.median(name) if name in floor.seconds else None
            possible = other / least if least else None
            cpu = ", ".join(
                f"{who} {one.median_cpu(name)[0]:.2f}+{one.median_cpu(name)[1]:.2f}"
                for who, one in (("engine", server), ("emulator", theirs))
            )
            floor_text = f"{least:8.3f}" if least else f"{'':8}"
            possible_text = f"{possible:8.1f}" if possible else f"{'':8}"
            print(
                f"{name + way:20} {mine:8.3f} {other:8.3f} {floor_text} {other / mine:6.1f} {possible_text}   {cpu}"
            )
            value = bar(other / mine, TIMES_EMULATOR_BAR, other / mine >= TIMES_EMULATOR_BAR)
            bars[f"{name}{way}, times the emulator"] = value | ({"possible": round(possible, 2)} if possible else {})
    print(f"peak RSS, MiB        {engine.peak_rss_mib:8.0f} {theirs.peak_rss_mib:8.0f}")
    bars["engine peak RSS, MiB"] = bar(
        engine.peak_rss_mib, ENGINE_RSS_BAR_MIB, engine.peak_rss_mib < ENGINE_RSS_BAR_MIB
    )
    print(json.dumps({"bars": bars}))


def bar(value: float, limit: float, met: bool) -> dict[str, Any]:
    return {"value": round(value, 2), "bar": limit, "met": met}


if __name__ == "__main__":
    main()
