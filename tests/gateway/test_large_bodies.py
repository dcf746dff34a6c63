"""Large bodies through the gateway of a real engine: memory stays bounded, and uploads outlive the engine."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MIB = 1024 * 1024
BLOCK = random.Random(1).randbytes(MIB)
MAX_RSS_MIB = 300
UPLOADS = "/upload/storage/v1/b/large/o"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data") as engine:
        yield engine


def ask(
    engine: EngineProcess,
    method: str,
    path: str,
    body: Iterator[bytes] | bytes = b"",
    headers: dict[str, str] | None = None,
) -> HTTPResponse:
    """One request by way of the gateway; a body that comes in pieces needs its length in the headers."""
    proxy = urlsplit(engine.gateway_url)
    context = ssl.create_default_context(cafile=engine.gateway_bundle)
    connection = HTTPSConnection(proxy.hostname or "", proxy.port, context=context, timeout=120)
    connection.set_tunnel("storage.googleapis.com", 443)
    connection.request(method, path, body, {"Connection": "close", **(headers or {})})
    return connection.getresponse()


@contextmanager
def peak_rss_mib(pid: int) -> Iterator[list[float]]:
    """The largest memory of a process during the block, as the list's one item."""
    peak = [0.0]
    done = threading.Event()

    def sample() -> None:
        process = psutil.Process(pid)
        while not done.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss / MIB)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("size_mib", [192, pytest.param(2048, marks=pytest.mark.long)])
def test_up_and_down_in_bounded_memory(engine: EngineProcess, size_mib: int) -> None:
    assert ask(engine, "POST", "/storage/v1/b?project=p", b'{"name": "large"}').status == 200
    md5 = hashlib.md5(usedforsecurity=False)
    for _ in range(size_mib):
        md5.update(BLOCK)
    told = json.loads((engine.data_dir / "engine.json").read_text())
    with peak_rss_mib(told["pid"]) as peak:
        headers = {"Content-Length": str(size_mib * MIB), "Content-Type": "application/octet-stream"}
        answer = ask(engine, "POST", f"{UPLOADS}?uploadType=media&name=x", (BLOCK for _ in range(size_mib)), headers)
        stored = json.loads(answer.read())
        assert (answer.status, stored["size"]) == (200, str(size_mib * MIB))
        assert stored["md5Hash"] == base64.b64encode(md5.digest()).decode()
        answer = ask(engine, "GET", "/large/x")
        n_bytes = 0
        received = hashlib.md5(usedforsecurity=False)
        while data := answer.read(MIB):
            received.update(data)
            n_bytes += len(data)
        assert (n_bytes, received.digest()) == (size_mib * MIB, md5.digest())
    print(f"{size_mib} MiB up and down: at most {peak[0]:.0f} MiB")
    assert peak[0] < MAX_RSS_MIB


def test_an_upload_goes_on_after_the_engine_was_killed(engine: EngineProcess) -> None:
    assert ask(engine, "POST", "/storage/v1/b?project=p", b'{"name": "large"}').status == 200
    begun = ask(engine, "POST", f"{UPLOADS}?uploadType=resumable&name=x", b"{}")
    session = urlsplit(begun.headers["Location"])
    assert (session.scheme, session.netloc) == ("https", "storage.googleapis.com")
    path = f"{session.path}?{session.query}"
    first = ask(engine, "PUT", path, BLOCK, {"Content-Range": f"bytes 0-{MIB - 1}/*"})
    assert (first.status, first.headers["Range"]) == (308, f"bytes=0-{MIB - 1}")
    engine.kill()
    engine.start()
    question = ask(engine, "PUT", path, b"", {"Content-Range": "bytes */*"})
    assert (question.status, question.headers["Range"]) == (308, f"bytes=0-{MIB - 1}")
    last = ask(engine, "PUT", path, BLOCK, {"Content-Range": f"bytes {MIB}-{2 * MIB - 1}/{2 * MIB}"})
    assert last.status == 200
    md5 = hashlib.md5(BLOCK + BLOCK, usedforsecurity=False).digest()
    assert json.loads(last.read())["md5Hash"] == base64.b64encode(md5).decode()
    assert ask(engine, "GET", "/large/x").read() == BLOCK + BLOCK
