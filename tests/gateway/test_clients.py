"""Real clients, unmodified, wired by the variables of `mle env` to a gateway before the storage API."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.gateway.credentials import write_client_files
from enginehouse.gateway.environment import Wiring, original_environment, wire
from enginehouse.gateway.trust import system_bundle
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.gateway import GatewayThread, echo_app

COMMAND_TIMEOUT_S = 120


async def _token(request: Request) -> JSONResponse:
    form = (await request.body()).decode()
    assert "assertion=" in form, form
    return JSONResponse({"access_token": "abc", "expires_in": 3600, "token_type": "Bearer"})


class Shell:
    """Runs commands in an environment that is wired to a gateway."""

    def __init__(self, gateway: GatewayThread, directory: Path, cwd: Path) -> None:
        wiring = Wiring(
            engine_url="http://127.0.0.1:1",  # nothing listens there: everything must go through the gateway
            gateway_url=gateway.url,
            project="demo-project",
            bundle=gateway.bundle,
            authority=gateway.server.authority.certificate_path,
            files=directory / "clients",
        )
        write_client_files(wiring)
        self._environ = wire(wiring, os.environ).apply(os.environ)
        self._cwd = cwd

    def run(self, *command: str, stdin: bytes = b"") -> bytes:
        """What the command prints; it must succeed."""
        done = subprocess.run(
            command, env=self._environ, cwd=self._cwd, input=stdin, capture_output=True, timeout=COMMAND_TIMEOUT_S
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def python(self, code: str) -> bytes:
        return self.run(sys.executable, "-c", code)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell before the storage API and a token endpoint."""
    directory = tmp_path_factory.mktemp("engine")
    store = LocalObjectStore(directory / "objects", SystemClock())
    app = Starlette(routes=[Route("/token", _token, methods=["POST"]), *storage_routes(store)])
    with GatewayThread(app, directory / "ca", environ=os.environ, loop_factory=uvloop.new_event_loop) as gateway:
        yield Shell(gateway, directory, tmp_path_factory.mktemp("work"))
    store.close()


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell before an application that tells what it got."""
    directory = tmp_path_factory.mktemp("engine")
    with GatewayThread(echo_app, directory / "ca", environ=os.environ, loop_factory=uvloop.new_event_loop) as gateway:
        yield Shell(gateway, directory, directory)


class TestCurl:
    def curl(self, shell: Shell, *arguments: str, stdin: bytes = b"") -> dict:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        return json.loads(shell.run("curl", "-sS", "--fail", *arguments, stdin=stdin))

    @pytest.mark.parametrize(
        ("url", "server"),
        [
            ("https://us-central1-ml.googleapis.com/v1/projects/p/models", ["us-central1-ml.googleapis.com", 443]),
            ("https://a.b.storage.googleapis.com/x", ["a.b.storage.googleapis.com", 443]),
            ("http://metadata.google.internal/computeMetadata/v1/", ["metadata.google.internal", 80]),
            ("http://ml.googleapis.com/v1/x", ["ml.googleapis.com", 80]),
        ],
    )
    def test_get(self, echo: Shell, url: str, server: list):
        assert self.curl(echo, url)["server"] == server

    def test_upload_as_tensorflow_does(self, echo: Shell):
        """TensorFlow's client is libcurl with a read callback: so come both framings and Expect."""
        data = os.urandom(3_000_000)
        told = self.curl(
            echo,
            *("-T", "-", "-H", f"Content-Length: {len(data)}", "-H", "Transfer-Encoding: chunked"),
            *("-H", "Expect: 100-continue", "--expect100-timeout", "20", "--max-time", "10"),
            "https://www.googleapis.com/upload/storage/v1/b/x/o?uploadType=resumable&upload_id=1",
            stdin=data,
        )
        assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())

    def test_empty_post_as_tensorflow_does(self, echo: Shell):
        told = self.curl(
            echo,
            *("-X", "POST", "-d", "", "-H", "Transfer-Encoding: identity", "-H", "Expect: 100-continue"),
            *("--expect100-timeout", "20", "--max-time", "10"),
            "https://www.googleapis.com/upload/storage/v1/b/x/o?uploadType=resumable",
        )
        assert (told["method"], told["size"]) == ("POST", 0)


class TestPython:
    def test_urllib(self, echo: Shell):
        code = (
            "import urllib.request, sys\n"
            "answer = urllib.request.urlopen('https://storage.googleapis.com/a', b'x' * 1000000)\n"
            "sys.stdout.buffer.write(answer.read())\n"
        )
        told = json.loads(echo.python(code))
        assert (told["method"], told["size"]) == ("POST", 1_000_000)

    def test_requests_keeps_its_connection(self, echo: Shell):
        pytest.importorskip("requests")
        code = (
            "import requests\n"
            "session = requests.Session()\n"
            "pieces = lambda: iter([b'ab', b'c' * 100000])\n"
            "for _ in range(3):\n"
            "    told = session.put('https://www.googleapis.com/storage/v1/b', data=pieces()).json()\n"
            "    assert told['size'] == 100002, told\n"
            "manager, = session.get_adapter('https://').proxy_manager.values()\n"
            "print(sum(manager.pools[key].num_connections for key in manager.pools.keys()))\n"
        )
        assert echo.python(code).strip() == b"1"

    def test_httplib2(self, echo: Shell):
        """google-api-python-client's; from 0.30 on it uses a proxy only where PySocks is installed."""
        pytest.importorskip("httplib2")
        pytest.importorskip("socks", reason="httplib2 uses no proxy without PySocks")
        code = (
            "import httplib2, sys\n"
            "http = httplib2.Http()\n"
            "for url in ('https://ml.googleapis.com/v1/x', 'http://metadata.google.internal/computeMetadata/v1/'):\n"
            "    answer, content = http.request(url, headers={'Metadata-Flavor': 'Google'})\n"
            "    assert answer.status == 200, content\n"
            "sys.stdout.buffer.write(content)\n"
        )
        assert json.loads(echo.python(code))["scheme"] == "http"

    def test_google_cloud_storage(self, storage: Shell):
        pytest.importorskip("google.cloud.storage")
        code = (
            "import google.cloud.storage\n"
            "client = google.cloud.storage.Client()\n"
            "bucket = client.create_bucket('python-bucket')\n"
            "bucket.blob('a/b').upload_from_string(b'x' * 20_000_000)\n"
            "assert bucket.blob('a/b').download_as_bytes(checksum='md5') == b'x' * 20_000_000\n"
            "print(client.project, [blob.name for blob in client.list_blobs('python-bucket')])\n"
        )
        assert storage.python(code) == b"demo-project ['a/b']\n"

    def test_google_api_client(self, storage: Shell):
        pytest.importorskip("googleapiclient")
        pytest.importorskip("socks", reason="httplib2 uses no proxy without PySocks")
        code = (
            "from googleapiclient import discovery\n"
            "service = discovery.build('storage', 'v1')\n"
            "service.buckets().insert(project='demo-project', body={'name': 'api-bucket'}).execute()\n"
            "print(service.buckets().get(bucket='api-bucket').execute()['name'])\n"
        )
        assert storage.python(code) == b"api-bucket\n"


class TestCloudSdk:
    def test_gsutil(self, storage: Shell):
        """One command after the other takes gsutil seconds to start, so this has the most telling alone."""
        if shutil.which("gsutil") is None:
            pytest.skip("no Cloud SDK is installed")
        data = os.urandom(9_000_000)  # more than gsutil sends in one piece
        storage.run("gsutil", "mb", "gs://gsutil-bucket")
        storage.run("gsutil", "cp", "-", "gs://gsutil-bucket/dir/file", stdin=data)
        assert storage.run("gsutil", "cat", "gs://gsutil-bucket/dir/file") == data
        assert storage.run("gsutil", "ls", "gs://gsutil-bucket/dir") == b"gs://gsutil-bucket/dir/file\n"

    def test_gcloud(self, storage: Shell):
        if shutil.which("gcloud") is None:
            pytest.skip("no Cloud SDK is installed")
        storage.run("gcloud", "storage", "buckets", "create", "gs://gcloud-bucket")
        storage.run("gcloud", "storage", "cp", "-", "gs://gcloud-bucket/file", stdin=b"some text")
        assert storage.run("gcloud", "storage", "cat", "gs://gcloud-bucket/file") == b"some text"


def test_the_wired_bundle_trusts_the_systems_hosts_too(storage: Shell):
    system = system_bundle(original_environment(os.environ))
    assert system is not None
    known = {entry["serialNumber"] for entry in _certificates(storage._environ["SSL_CERT_FILE"])}
    assert {entry["serialNumber"] for entry in _certificates(str(system))} < known


def _certificates(path: str) -> list[dict]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context.get_ca_certs()


def test_a_client_without_our_certificate_is_told_so(storage: Shell, caplog: pytest.LogCaptureFixture):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"https": storage._environ["https_proxy"]}))
    with caplog.at_level("INFO", "enginehouse.gateway"):
        with pytest.raises(OSError, match="certificate verify failed"):
            opener.open("https://ml.googleapis.com/v1/x", timeout=10)
        deadline_s = time.monotonic() + 10
        while "makes no TLS connection to ml.googleapis.com" not in caplog.text:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
