"""How fast objects go in and out, against `gcp-storage-emulator` and a plain copy of the file.

The same google-cloud-storage code uploads and downloads one large file (resumable, streamed from and to the disk),
and lists and fetches many small objects, on a real engine, through its gateway and on the emulator, in turn in each
round; the plain copy is `shutil.copyfile` with fsync on the same disk. Each result is checked against what was sent.

Most of that time is the client's own. "floor" is the same client with `canned_objects.py`, which does nothing but
send and receive (in TLS, for the gateway's rows): hardly any server can be faster to it, and "possible" is how many
times the emulator such a server is. What the servers themselves can do is asked by a client that costs next to
nothing (`bare_objects.py`).

The emulator gets a virtual environment of its own, made here with uv and kept in the user's cache; most of its small
objects are written into its files, as putting them would take it too long.

    python bench/objects.py [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import shutil
import statistics
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
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from bare_objects import Address, bare_client
from enginehouse.testing.engine import EngineProcess
from object_servers import canned, emulator, fill_emulator

TIMES_EMULATOR_BAR = 3.0
ENGINE_RSS_BAR_MIB = 300
MIB = 1024 * 1024
CHUNK_BYTES = 32 * MIB
SMALL_BYTES = 1000
BUCKET = "bench-bucket"
PREFIX = "small/"
THREADS = 4
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Sizes:
    """How much is moved, and how often."""

    large_bytes: int
    small_objects: int
    put_objects: int
    """So many of the small objects are put by the client, on both servers."""
    rounds: int


@dataclass
class Server:
    """One server as its clients see it, and what was measured of it: by name, of each round.

    `cpu` holds pairs of CPU seconds (user and system): the client's, the server's.
    """

    address: Address
    pid: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    peak_rss_mib: float = 0.0

    @property
    def bucket(self) -> Any:
        """The bucket by a new client, which has connected: to read all trusted certificates takes it 0.1 s."""
        bucket = _client(self.address).bucket(BUCKET)
        bucket.exists()
        return bucket

    def timed(self, name: str, work: Callable[[], object]) -> None:
        """Do `work`, the server's and this process' CPU time included."""
        client, server = psutil.Process(), psutil.Process(self.pid)
        before = _cpu_s(client), _cpu_s(server)
        began = time.perf_counter()
        work()
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
    quick = parser.parse_args().quick
    sizes = Sizes(64 * MIB, 500, 50, 2) if quick else Sizes(1024 * MIB, 10_000, 500, 3)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-objects-")))
        source, small_file = folder / "source", folder / "small"
        with source.open("wb") as file:
            for _ in range(sizes.large_bytes // CHUNK_BYTES):
                file.write(os.urandom(CHUNK_BYTES))
        small_file.write_bytes(os.urandom(SMALL_BYTES))
        names = [f"{PREFIX}{index:06}" for index in range(sizes.small_objects)]

        process = stack.enter_context(EngineProcess(folder / "engine"))
        told = json.loads((process.data_dir / "engine.json").read_text())
        engine = Server(Address(told["url"]), told["pid"])
        gateway = Server(Address(told["gatewayUrl"], process.data_dir / "gateway" / "bundle.pem"), told["pid"])
        _client(engine.address).create_bucket(BUCKET)
        stack.enter_context(watched(engine))

        copy_s: list[float] = []
        with emulator(folder / "emulator") as (url, pid):
            theirs = Server(Address(url), pid)
            _client(theirs.address).create_bucket(BUCKET)
            stack.enter_context(watched(theirs))
            put_small(engine, names[: sizes.put_objects], small_file.read_bytes())
            put_small(theirs, names[: sizes.put_objects], small_file.read_bytes())
            resource = json.dumps(next(iter(engine.bucket.list_blobs(max_results=1)))._properties)
            ca_dir = process.data_dir / "gateway"
            ready = stack.enter_context(canned(source, small_file, len(names), resource, ca_dir))
            floor = Server(Address(ready[0]), ready[2])
            gateway_floor = Server(Address(ready[1], ca_dir / "bundle.pem"), ready[2])
            servers = (engine, theirs, gateway, floor, gateway_floor)
            for _ in range(sizes.rounds):
                copy_s.append(plain_copy(source, folder / "copied"))
                for server in servers:
                    large(server, source, folder / "downloaded")
        fill_emulator(folder / "emulator", BUCKET, names, small_file.read_bytes())
        put_all(engine, names[sizes.put_objects :], small_file.read_bytes())
        with emulator(folder / "emulator") as (url, pid):
            theirs.address, theirs.pid = Address(url), pid
            for _ in range(sizes.rounds):
                for server in servers:
                    small(server, names, small_file.read_bytes())
        ways = (("", engine, floor), (", gateway", gateway, gateway_floor))
        report(sizes, statistics.median(copy_s), theirs, ways)


def _client(address: Address) -> storage.Client:
    """A google-cloud-storage client of a server, or of storage.googleapis.com, for which the gateway answers."""
    if address.bundle is None:
        options = {"api_endpoint": address.url}
        return storage.Client(project="bench", credentials=AnonymousCredentials(), client_options=options)
    session = AuthorizedSession(AnonymousCredentials())
    session.trust_env = False
    session.proxies = {"https": address.url}
    session.verify = str(address.bundle)
    return storage.Client(project="bench", credentials=AnonymousCredentials(), _http=session)


def large(server: Server, source: Path, target: Path) -> None:
    """Send a large file and fetch it back, by both clients."""
    bucket = server.bucket
    blob, whole = bucket.blob("large", chunk_size=CHUNK_BYTES), bucket.blob("large")
    server.timed("upload", lambda: blob.upload_from_filename(str(source), timeout=600))
    server.timed("download", lambda: whole.download_to_filename(str(target), timeout=600))
    assert filecmp.cmp(source, target, shallow=False), "other bytes came back"
    target.unlink()
    with bare_client(server.address, BUCKET) as bare:
        server.timed("upload, bare", lambda: bare.upload("large", source))
        server.timed("download, bare", lambda: bare.fetch("large", source.stat().st_size))
        bare.delete("large")


def put_small(server: Server, names: list[str], data: bytes) -> None:
    """Put small objects, so many that the emulator can take them."""
    bucket = server.bucket
    server.timed("put small", lambda: _each(names, lambda name: bucket.blob(name).upload_from_string(data)))


def put_all(server: Server, names: list[str], data: bytes) -> None:
    """Put small objects with nobody watching."""
    bucket = server.bucket
    _each(names, lambda name: bucket.blob(name).upload_from_string(data))


def small(server: Server, names: list[str], data: bytes) -> None:
    """List and fetch many small objects, by both clients."""
    bucket = server.bucket

    def list_all() -> None:
        assert [blob.name for blob in bucket.list_blobs(prefix=PREFIX)] == names

    def fetch(name: str) -> None:
        assert bucket.blob(name).download_as_bytes() == data

    def fetch_bare(part: int) -> None:
        for name in names[part::THREADS]:
            bare[part].fetch(name, len(data))

    def list_bare() -> None:
        assert bare[0].list(PREFIX) == len(names)

    server.timed("list small", list_all)
    server.timed("fetch small", lambda: _each(names, fetch))
    with contextlib.ExitStack() as stack:
        bare = [stack.enter_context(bare_client(server.address, BUCKET)) for _ in range(THREADS)]
        server.timed("list small, bare", list_bare)
        server.timed("fetch small, bare", lambda: _each(list(range(THREADS)), fetch_bare))


def _each(items: list[Any], work: Callable[[Any], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, items))


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
        while not done.wait(_SAMPLE_S):
            try:
                root = psutil.Process(server.pid)
                total = sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])
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


def report(sizes: Sizes, copy_s: float, theirs: Server, ways: tuple[tuple[str, Server, Server], ...]) -> None:
    """A table, and the bars as the last line.

    Args:
        copy_s: of the plain copy.
        theirs: the emulator.
        ways: what to call a way to the engine, the engine by that way, and its floor; the plain way first.
    """
    size_mib = sizes.large_bytes / MIB
    print(
        f"{size_mib:.0f} MiB; {sizes.small_objects} objects of {SMALL_BYTES} bytes, {THREADS} threads to fetch them"
    )
    print(f"put small: {sizes.put_objects} of them; medians of {sizes.rounds} rounds, seconds")
    print(f"plain copy {copy_s:.2f} s, {size_mib / copy_s:.0f} MiB/s")
    print(
        f"{'':28} {'engine':>8} {'emulator':>9} {'times':>6} {'floor':>8} {'possible':>8} {'of copy':>8}"
        "   CPU s of client + server: engine, emulator"
    )
    bars = {}
    for way, server, floor in ways:
        for name in server.seconds:
            mine, other = server.median(name), theirs.median(name)
            least = floor.median(name) if name in floor.seconds else None
            cpu = ", ".join("{:.2f} + {:.2f}".format(*one.median_cpu(name)) for one in (server, theirs))
            share = f"{copy_s / mine:8.0%}" if "load" in name else f"{'':8}"
            floor_text = f"{least:8.3f} {other / least:8.1f}" if least else f"{'':17}"
            print(f"{name + way:28} {mine:8.3f} {other:9.3f} {other / mine:6.1f} {floor_text} {share}   {cpu}")
            key = f"{name}{way}, times the emulator"
            bars[key] = bar(other / mine, TIMES_EMULATOR_BAR, other / mine >= TIMES_EMULATOR_BAR)
            if least:
                bars[key]["possible"] = round(other / least, 2)
    print("The engine lists in pages of 1000, as Cloud Storage does; the emulator answers with all at once.")
    engine = ways[0][1]
    print(f"peak RSS, MiB: engine {engine.peak_rss_mib:.0f}, emulator {theirs.peak_rss_mib:.0f}")
    bars["engine peak RSS, MiB"] = bar(
        engine.peak_rss_mib, ENGINE_RSS_BAR_MIB, engine.peak_rss_mib < ENGINE_RSS_BAR_MIB
    )
    print(json.dumps({"bars": bars}))


def bar(value: float, limit: float, met: bool) -> dict[str, Any]:
    return {"value": round(value, 2), "bar": limit, "met": met}


if __name__ == "__main__":
    main()
