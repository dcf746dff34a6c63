"""What clients put on the wire, byte by byte: names, ranges, errors, headers, gcloud's multipart."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from enginehouse.storage.base import ObjectAttributes
from enginehouse.storage.local import LocalObjectStore
from enginehouse.storage.objects import LocalObjectWriter
from enginehouse.testing.storage.helpers import crc32c_of, md5_of, put, read

BUCKET = "wire-bucket"
DATA = bytes(range(256)) * 4


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Answer]


@pytest.fixture
def ask(url: str, store: LocalObjectStore) -> Ask:
    """Send one request to the API, which has one bucket."""
    store.create_bucket(BUCKET)

    def send(method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, named)
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    return send


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("%C3%BC%2F%F0%9F%A6%86", "ü/🦆"),
        ("o%2Fx%2FrewriteTo%2Fb%2Fy%2Fo%2Fz", "o/x/rewriteTo/b/y/o/z"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
    ],
)
def test_a_name_is_one_percent_encoded_segment(ask: Ask, store: LocalObjectStore, segment: str, name: str) -> None:
    put(store, name, name.encode(), bucket=BUCKET)
    assert ask("GET", f"/storage/v1/b/{BUCKET}/o/{segment}").json()["name"] == name
    assert ask("GET", f"/download/storage/v1/b/{BUCKET}/o/{segment}?alt=media").body == name.encode()
    copied = ask("POST", f"/storage/v1/b/{BUCKET}/o/{segment}/copyTo/b/{BUCKET}/o/copy%2F{segment}").json()
    assert copied["name"] == f"copy/{name}"
    media = urlsplit(copied["mediaLink"])
    assert ask("GET", f"{media.path}?{media.query}").body == name.encode()
    link = urlsplit(copied["selfLink"])
    assert ask("GET", link.path).json() == copied
    assert ask("DELETE", f"/storage/v1/b/{BUCKET}/o/{segment}").status == 204


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        (f"/storage/v1/b/{BUCKET}/o/no", 404, "notFound"),
        ("/storage/v1/b/no-bucket/o/no", 404, "notFound"),
        (f"/storage/v1/b/{BUCKET}/o/not/encoded", 404, "notFound"),
        ("/storage/v2/b", 404, "notFound"),
        (f"/storage/v1/b/{BUCKET}/o/%FF", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o?prefix=%FF", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o?maxResults=many", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o?maxResults=0", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o?pageToken=*", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o/no?generation=1e3", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}/o/no?generation=99999999999999999999", 400, "invalid"),
        (f"/storage/v1/b/{BUCKET}?ifMetagenerationMatch=7", 412, "conditionNotMet"),
    ],
)
def test_errors_have_the_storage_shape(ask: Ask, target: str, status: int, reason: str) -> None:
    answer = ask("GET", target)
    error = answer.json()["error"]
    assert answer.status == error["code"] == status
    assert answer.headers["content-type"].startswith("application/json")
    assert error["errors"][0]["reason"] == reason and error["errors"][0]["domain"] == "global"
    assert error["message"] == error["errors"][0]["message"] != ""


def test_a_wrong_method_is_told_the_right_ones(ask: Ask) -> None:
    answer = ask("POST", f"/storage/v1/b/{BUCKET}/o/x")
    assert answer.status == 405 and answer.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    assert answer.json()["error"]["errors"][0]["reason"] == "methodNotAllowed"


def test_an_unexpected_failure_is_an_answer_too(
    ask: Ask, store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(store, "get", fail)
    answer = ask("GET", f"/storage/v1/b/{BUCKET}/o/x")
    assert answer.status == 500 and answer.json()["error"]["errors"][0]["reason"] == "backendError"
    assert b"secret" not in answer.body and "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("sent", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=1000-", 206, 1000, 1023),
        ("bytes=1000-99999", 206, 1000, 1023),
        ("bytes=-24", 206, 1000, 1023),
        ("bytes=-9999", 206, 0, 1023),
        ("bytes=0-67108863", 206, 0, 1023),
        ("bytes=5-4", 200, 0, 1023),
        ("bytes=0-1,5-6", 200, 0, 1023),
        ("bytes=x-", 200, 0, 1023),
        ("items=0-1", 200, 0, 1023),
        ("bytes=-", 200, 0, 1023),
    ],
)
def test_ranges(ask: Ask, store: LocalObjectStore, sent: str, status: int, first: int, last: int) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    for target in (f"/download/storage/v1/b/{BUCKET}/o/x?alt=media", f"/storage/v1/b/{BUCKET}/o/x?alt=media"):
        answer = ask("GET", target, Range=sent)
        assert (answer.status, answer.body) == (status, DATA[first : last + 1])
        assert answer.headers.get("content-range") == (f"bytes {first}-{last}/1024" if status == 206 else None)
        assert answer.headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("sent", ["bytes=1024-", "bytes=2000-3000", "bytes=-0"])
def test_a_range_past_the_end(ask: Ask, store: LocalObjectStore, sent: str) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    put(store, "empty", bucket=BUCKET)
    answer = ask("GET", f"/download/storage/v1/b/{BUCKET}/o/x?alt=media", Range=sent)
    assert answer.status == 416 and answer.headers["content-range"] == "bytes */1024"
    assert answer.json()["error"]["errors"][0]["reason"] == "requestedRangeNotSatisfiable"
    assert ask("GET", f"/download/storage/v1/b/{BUCKET}/o/empty?alt=media", Range="bytes=0-").status == 416
    assert ask("GET", f"/download/storage/v1/b/{BUCKET}/o/empty?alt=media").status == 200


def test_the_headers_of_a_download(ask: Ask, store: LocalObjectStore) -> None:
    attributes = ObjectAttributes(
        content_type="text/plain",
        content_encoding="gzip",
        content_disposition='attachment; filename="ü.txt"',
        cache_control="no-store",
    )
    info = put(store, "x", DATA, bucket=BUCKET, attributes=attributes)
    for method in ("GET", "HEAD"):
        answer = ask(method, f"/download/storage/v1/b/{BUCKET}/o/x?alt=media")
        assert answer.status == 200 and answer.body == (DATA if method == "GET" else b"")
        assert answer.headers["x-goog-hash"] == f"crc32c={crc32c_of(DATA)},md5={md5_of(DATA)}"
        assert answer.headers["x-goog-generation"] == str(info.generation)
        assert answer.headers["x-goog-stored-content-length"] == answer.headers["content-length"] == "1024"
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["content-encoding"] == answer.headers["x-goog-stored-content-encoding"] == "gzip"
        assert answer.headers["content-disposition"].encode("latin-1").decode() == 'attachment; filename="ü.txt"'
        assert answer.headers["cache-control"] == "no-store"
        resource = ask("GET", f"/storage/v1/b/{BUCKET}/o/x").json()
        assert answer.headers["etag"] == f'"{resource["etag"]}"'


def test_a_large_download_is_whole(ask: Ask, store: LocalObjectStore) -> None:
    data = DATA * 3000 + b"end"
    put(store, "x", data, bucket=BUCKET)
    assert ask("GET", f"/download/storage/v1/b/{BUCKET}/o/x?alt=media").body == data
    answer = ask("GET", f"/download/storage/v1/b/{BUCKET}/o/x?alt=media", Range="bytes=1000001-2999999")
    assert answer.status == 206 and answer.body == data[1000001:3000000]


def test_a_read_on_condition(ask: Ask, store: LocalObjectStore) -> None:
    generation = put(store, "x", DATA, bucket=BUCKET).generation
    for target in (f"/storage/v1/b/{BUCKET}/o/x?", f"/download/storage/v1/b/{BUCKET}/o/x?alt=media&"):
        assert ask("GET", f"{target}ifGenerationNotMatch={generation}").status == 304
        assert ask("GET", f"{target}ifMetagenerationNotMatch=1").status == 304
        assert ask("GET", f"{target}ifGenerationMatch={generation - 1}").status == 412
        assert ask("GET", f"{target}ifGenerationMatch={generation}").status == 200


def test_the_object_resource(ask: Ask, url: str) -> None:
    resource = ask(
        "POST", f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=d%2Fx", DATA, Content_Type="text/csv"
    ).json()
    generation = resource.pop("generation")
    created = resource.pop("timeCreated")
    assert resource.pop("updated") == resource.pop("timeStorageClassUpdated") == created and created.endswith("Z")
    assert isinstance(resource.pop("etag"), str)
    assert resource == {
        "kind": "storage#object",
        "id": f"{BUCKET}/d/x/{generation}",
        "selfLink": f"{url}/storage/v1/b/{BUCKET}/o/d%2Fx",
        "mediaLink": f"{url}/download/storage/v1/b/{BUCKET}/o/d%2Fx?generation={generation}&alt=media",
        "name": "d/x",
        "bucket": BUCKET,
        "metageneration": "1",
        "size": "1024",
        "md5Hash": md5_of(DATA),
        "crc32c": crc32c_of(DATA),
        "contentType": "text/csv",
        "storageClass": "STANDARD",
    }


@pytest.mark.parametrize("content", [b"", b"x", b"ends in LF\n", b"ends in CR\r", b"\r\n--=", DATA * 1200])
@pytest.mark.parametrize("style", ["gcloud", "google-cloud-storage"])
def test_both_styles_of_multipart(ask: Ask, store: LocalObjectStore, style: str, content: bytes) -> None:
    if style == "gcloud":  # gcloud, gsutil: LF, boundary in single quotes that aren't part of the delimiter
        head = (
            b"--===============123==\nContent-Type: application/json\nMIME-Version: 1.0\n\n"
            b'{"bucket": "ignored", "size": "%d", "metadata": {"a": "b"}}\n'
            b"--===============123==\nContent-Type: application/x-tar\nMIME-Version: 1.0\n"
            b"Content-Transfer-Encoding: binary\n\n"
        ) % len(content)
        body = head + content + b"\n--===============123==--\n"
        content_type = "multipart/related; boundary='===============123=='"
    else:
        head = (
            b'--==0==\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{"metadata": {"a": "b"}}\r\n'
            b"--==0==\r\ncontent-type: application/x-tar\r\n\r\n"
        )
        body = head + content + b"\r\n--==0==--"
        content_type = 'multipart/related; boundary="==0=="'
    target = f"/upload/storage/v1/b/{BUCKET}/o?alt=json&name=pkg%2Ftrainer-0.0.0.tar.gz&uploadType=multipart"
    resource = ask("POST", target, body, Content_Type=content_type).json()
    assert resource["size"] == str(len(content)) and resource["md5Hash"] == md5_of(content)
    assert (resource["contentType"], resource["metadata"]) == ("application/x-tar", {"a": "b"})
    assert read(store, "pkg/trainer-0.0.0.tar.gz", bucket=BUCKET) == content


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/related", b"--x\r\n"),
        ("multipart/related; boundary=x", b""),
        ("multipart/related; boundary=x", b"--y\r\n\r\n{}\r\n--x\r\n\r\ndata\r\n--x--"),
        ("multipart/related; boundary=x", b"--x\r\n\r\n{}\r\n--x--"),
        ("multipart/related; boundary=x", b"--x\r\n\r\n{}\r\n--x\r\n\r\ncut of"),
        ("multipart/related; boundary=x", b"--x\r\n\r\n[]\r\n--x\r\n\r\ndata\r\n--x--"),
        ("multipart/related; boundary=x", b"--x\r\n\r\n{bad\r\n--x\r\n\r\ndata\r\n--x--"),
        ("multipart/related; boundary=x", b'--x\r\n\r\n{"contentType": 5}\r\n--x\r\n\r\ndata\r\n--x--'),
        ("multipart/related; boundary=x", b'--x\r\n\r\n{"md5Hash": "AAAA"}\r\n--x\r\n\r\ndata\r\n--x--'),
        ("multipart/related; boundary=x", b'--x\r\n\r\n{"metadata": {"a": 1}}\r\n--x\r\n\r\ndata\r\n--x--'),
    ],
)
def test_a_broken_multipart_makes_no_object(
    ask: Ask, store: LocalObjectStore, content_type: str, body: bytes
) -> None:
    target = f"/upload/storage/v1/b/{BUCKET}/o?name=x&uploadType=multipart"
    assert ask("POST", target, body, Content_Type=content_type).status == 400
    assert store.list(BUCKET).objects == []


def test_media_uploads_are_checked(ask: Ask, store: LocalObjectStore) -> None:
    target = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=x"
    for headers in (
        {"Content_MD5": md5_of(b"other")},
        {"X_Goog_Hash": f"crc32c={crc32c_of(b'other')}"},
        {"X_Goog_Hash": f"crc32c={crc32c_of(DATA)}, md5={md5_of(b'other')}"},
        {"Content_Type": "text/plain\tx"},
    ):
        assert ask("POST", target, DATA, **headers).status == 400
    assert store.list(BUCKET).objects == []
    good = ask("POST", target, DATA, X_Goog_Hash=f"crc32c={crc32c_of(DATA)},md5={md5_of(DATA)}")
    assert good.status == 200 and good.json()["contentType"] == "application/octet-stream"
    for bad in ("uploadType=media", "uploadType=media&name=", "uploadType=odd&name=x", "name=x"):
        assert ask("POST", f"/upload/storage/v1/b/{BUCKET}/o?{bad}", DATA).status == 400
    assert ask("POST", "/upload/storage/v1/b/no-bucket/o?uploadType=media&name=x", DATA).status == 404


def test_an_upload_is_written_in_bounded_blocks(
    ask: Ask, store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real_write = LocalObjectWriter.write

    def record(self: LocalObjectWriter, data: bytes) -> None:
        sizes.append(len(data))
        real_write(self, data)

    monkeypatch.setattr(LocalObjectWriter, "write", record)
    data = DATA * 16 * 1024
    assert ask("POST", f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=x", data).status == 200
    assert sum(sizes) == len(data)
    assert max(sizes) <= 2 * 1024 * 1024 and min(sizes[:-1]) >= 256 * 1024


def test_a_client_that_hangs_up_leaves_nothing(ask: Ask, url: str, store: LocalObjectStore, tmp_path: Path) -> None:
    host, port = urlsplit(url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=x HTTP/1.1\r\nHost: x\r\n"
            "Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(DATA * 2000)
    deadline = time.monotonic() + 10
    while any((tmp_path / "objects" / "blobs").glob("*/*")):
        assert time.monotonic() < deadline, "the unfinished upload is still there"
        time.sleep(0.01)
    assert store.list(BUCKET).objects == []


def test_an_absolute_target_and_any_host_are_served(url: str, ask: Ask, store: LocalObjectStore) -> None:
    """gcloud behind a proxy sends `GET http://host/path`; links must lead back to the host that the client knows."""
    put(store, "a/b", DATA, bucket=BUCKET)
    host, port = urlsplit(url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"GET http://storage.googleapis.com/storage/v1/b/{BUCKET}/o/a%2Fb HTTP/1.1\r\n"
            "Host: storage.googleapis.com\r\nConnection: close\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        resource = json.loads(answer.read())
    assert resource["mediaLink"].startswith(f"http://storage.googleapis.com/download/storage/v1/b/{BUCKET}/o/a%2Fb?")


def test_what_gcloud_asks_before_it_works(ask: Ask) -> None:
    layout = ask("GET", f"/storage/v1/b/{BUCKET}/storageLayout").json()
    assert (layout["bucket"], layout["hierarchicalNamespace"]) == (BUCKET, {"enabled": False})
    assert ask("GET", f"/storage/v1/b/{BUCKET}/managedFolders").json() == {"kind": "storage#managedFolders"}
    assert ask("GET", "/storage/v1/b/no-bucket/storageLayout").status == 404


def test_a_bucket_takes_no_promise_that_nobody_keeps(ask: Ask) -> None:
    for field, value in (
        ("versioning", {"enabled": True}),
        ("retentionPolicy", {"retentionPeriod": "60"}),
        ("lifecycle", {"rule": [{"action": {"type": "Delete"}}]}),
    ):
        body = json.dumps({"name": "other-bucket", field: value}).encode()
        for method, target in (("POST", "/storage/v1/b?project=p"), ("PATCH", f"/storage/v1/b/{BUCKET}")):
            error = ask(method, target, body).json()["error"]
            assert error["code"] == 400 and error["errors"][0]["location"] == field
    harmless = {"name": "other-bucket", "versioning": {"enabled": False}, "iamConfiguration": {}, "acl": []}
    assert ask("POST", "/storage/v1/b?project=p", json.dumps(harmless).encode()).status == 200


def test_composing_can_take_the_parts_away(ask: Ask, store: LocalObjectStore) -> None:
    """As gcloud storage ends a parallel composite upload."""
    for name in ("part/1", "part/2"):
        put(store, name, name.encode(), bucket=BUCKET)
    whole = b"part/1part/2"
    generation = str(store.get(BUCKET, "part/1").generation)
    body = {
        "sourceObjects": [{"name": "part/1", "generation": generation}, {"name": "part/2"}],
        "destination": {"contentType": "text/csv", "md5Hash": md5_of(whole), "crc32c": crc32c_of(whole)},
        "deleteSourceObjects": True,
    }
    answer = ask("POST", f"/storage/v1/b/{BUCKET}/o/whole/compose", json.dumps(body).encode()).json()
    assert (answer["componentCount"], answer["contentType"], answer["md5Hash"]) == (2, "text/csv", md5_of(whole))
    assert [info.name for info in store.list(BUCKET).objects] == ["whole"]
    for bad in ({}, {"sourceObjects": [{}]}, {"sourceObjects": []}, {"sourceObjects": ["x"]}):
        assert ask("POST", f"/storage/v1/b/{BUCKET}/o/y/compose", json.dumps(bad).encode()).status == 400


def test_a_batch_refuses_what_is_no_small_call(ask: Ask, store: LocalObjectStore) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    parts = [
        f"GET /storage/v1/b/{BUCKET}/o/x?alt=media HTTP/1.1",
        f"POST /upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=y HTTP/1.1",
        f"GET http://127.0.0.1/storage/v1/b/{BUCKET}/o/x HTTP/1.1",
    ]
    body = "".join(
        f"--b\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n{part}\r\n\r\n\r\n"
        for number, part in enumerate(parts)
    )
    answer = ask("POST", "/batch/storage/v1", (body + "--b--").encode(), Content_Type="multipart/mixed; boundary=b")
    assert answer.status == 200
    assert [line for line in answer.body.decode().splitlines() if line.startswith(("HTTP/", "Content-ID"))] == [
        "Content-ID: <response-0>",
        "HTTP/1.1 404 Not Found",
        "Content-ID: <response-1>",
        "HTTP/1.1 404 Not Found",
        "Content-ID: <response-2>",
        "HTTP/1.1 200 OK",
    ]
    assert ask("POST", "/batch/storage/v1", b"{}", Content_Type="application/json").status == 400
