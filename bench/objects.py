"""How fast objects go in and out, against `gcp-storage-emulator` and a plain copy of the file.

The same google-cloud-storage code uploads and downloads one large file (resumable, streamed from and to the disk),
and lists and fetches many small objects, first on a real engine and then on the emulator; the plain copy is
`shutil.copyfile` with fsync on the same disk. Each result is checked against what was sent. The emulator (PyPI) gets
a virtual environment of its own, made here with uv and kept in the user's cache.

    python bench/objects.py [--quick]
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
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
THREADS = 4
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Sizes:
    """How much is moved."""

    large_bytes: int
    small_objects: int
    """On either server: the emulator slows down with each object it has, so there can't be many."""
    many_objects: int
    """On the engine alone."""
    rounds: int


@dataclass
class Result:
    """What was measured of one server: seconds of each round by name, and its peak memory in MiB."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_rss_mib: float = 0.0

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    quick = parser.parse_args().quick
    sizes = Sizes(128 * MIB, 300, 1000, 2) if quick else Sizes(1024 * MIB, 1000, 10_000, 1)
    with tempfile.TemporaryDirectory(prefix="bench-objects-") as name:
        folder = Path(name)
        source = folder / "source"
        with source.open("wb") as file:
            for _ in range(sizes.large_bytes // CHUNK_BYTES):
                file.write(os.urandom(CHUNK_BYTES))
        copy = [plain_copy(source, folder / "copied") for _ in range(sizes.rounds + 1)][1:]
        with EngineProcess(folder / "engine") as process:
            told = json.loads((process.data_dir / "engine.json").read_text())
            ours = measure(direct(told["url"]), told["pid"], source, sizes)
            many = Result()
            with watched(told["pid"], ours):
                small(direct(told["url"]).create_bucket("many-bucket"), sizes.many_objects, many)
            bundle = process.data_dir / "gateway" / "bundle.pem"
            gateway = measure(through(told["gatewayUrl"], bundle), told["pid"], source, sizes, with_small=False)
        with emulator(folder / "emulator") as (url, pid):
            theirs = measure(direct(url), pid, source, sizes)
    print(
        f"{sizes.many_objects} small objects on the engine, s:", {k: round(many.median(k), 2) for k in many.seconds}
    )
    report(sizes, statistics.median(copy), ours, gateway, theirs)


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


def measure(client: storage.Client, pid: int, source: Path, sizes: Sizes, *, with_small: bool = True) -> Result:
    """All of it on one server, with the peak memory of its processes."""
    result = Result()
    bucket = client.create_bucket("bench-bucket" if with_small else "bench-large-bucket")
    with watched(pid, result):
        for round_ in range(sizes.rounds):
            blob = bucket.blob(f"large-{round_}", chunk_size=CHUNK_BYTES)
            began = time.perf_counter()
            blob.upload_from_filename(str(source), timeout=600)
            result.add("upload", time.perf_counter() - began)
            target = source.with_name("downloaded")
            began = time.perf_counter()
            bucket.blob(f"large-{round_}").download_to_filename(str(target), timeout=600)
            result.add("download", time.perf_counter() - began)
            assert filecmp.cmp(source, target, shallow=False), "other bytes came back"
            target.unlink()
            blob.delete()
        if with_small:
            small(bucket, sizes.small_objects, result)
    client.close()
    return result


def small(bucket: Any, count: int, result: Result) -> None:
    """Put, list and fetch many small objects, with as many threads on either server."""
    data = os.urandom(SMALL_BYTES)
    names = [f"small/{index:06}" for index in range(count)]

    def put(name: str) -> None:
        bucket.blob(name).upload_from_string(data)

    def fetch(name: str) -> None:
        assert bucket.blob(name).download_as_bytes() == data

    with ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(put, names))
        result.add("put small", time.perf_counter() - began)
        began = time.perf_counter()
        assert [blob.name for blob in bucket.list_blobs(prefix="small/")] == names
        result.add("list small", time.perf_counter() - began)
        began = time.perf_counter()
        list(pool.map(fetch, names))
        result.add("fetch small", time.perf_counter() - began)


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
def watched(pid: int, result: Result) -> Iterator[None]:
    """Sample the memory of a process and its children, and keep the largest sum."""
    done = threading.Event()

    def sample() -> None:
        root = psutil.Process(pid)
        while not done.wait(_SAMPLE_S):
            try:
                processes = [root, *root.children(recursive=True)]
                total = sum(process.memory_info().rss for process in processes)
            except psutil.NoSuchProcess:
                continue
            result.peak_rss_mib = max(result.peak_rss_mib, total / MIB)

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


def report(sizes: Sizes, copy_s: float, ours: Result, gateway: Result, theirs: Result) -> None:
    """A table, and the bars as the last line."""
    size_mib = sizes.large_bytes / MIB
    print(f"{size_mib:.0f} MiB, {sizes.small_objects} objects of {SMALL_BYTES} bytes, {THREADS} threads for these")
    print(f"plain copy        {copy_s:8.2f} s  {size_mib / copy_s:8.0f} MiB/s")
    print(f"{'':17} {'engine s':>9} {'emulator s':>10} {'times':>7} {'of copy':>8}")
    bars = {}
    for way, result in (("", ours), (", gateway", gateway)):
        for name in result.seconds:
            mine, other = result.median(name), theirs.median(name)
            share = f"{copy_s / mine:8.0%}" if name in ("upload", "download") else ""
            print(f"{name + way:17} {mine:9.2f} {other:10.2f} {other / mine:7.1f} {share:>8}")
            bars[f"{name}{way}, times the emulator"] = bar(
                other / mine, TIMES_EMULATOR_BAR, other / mine >= TIMES_EMULATOR_BAR
            )
    peak_mib = max(ours.peak_rss_mib, gateway.peak_rss_mib)
    print(f"peak RSS, MiB     {peak_mib:9.0f} {theirs.peak_rss_mib:10.0f}")
    bars["engine peak RSS, MiB"] = bar(peak_mib, ENGINE_RSS_BAR_MIB, peak_mib < ENGINE_RSS_BAR_MIB)
    print(json.dumps({"bars": bars}))


def bar(value: float, limit: float, met: bool) -> dict[str, Any]:
    return {"value": round(value, 2), "bar": limit, "met": met}


if __name__ == "__main__":
    main()
