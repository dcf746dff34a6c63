"""The XML API's reads, and which host means which API."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from enginehouse.api.storage import storage_routes
from enginehouse.api.storage.hosts import StorageHosts, bucket_of_host
from enginehouse.storage.base import ComposeSource, ObjectAttributes
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import HOSTILE_NAMES, put

BUCKET = "xml-bucket"
DATA = bytes(range(256))
NAMES = ["a", "b/1", "b/2", "c/d/e", "f"]
S3 = "{http://doc.s3.amazonaws.com/2006-03-01}"

At = Callable[[str], TestClient]


@pytest.fixture
def at(store: LocalObjectStore) -> At:
    """A client of a host, which has one bucket."""
    store.create_bucket(BUCKET)
    app = StorageHosts(store, Starlette(routes=storage_routes(store)))
    return lambda host: TestClient(app, base_url=f"https://{host}")


@pytest.fixture
def client(at: At) -> TestClient:
    return at("storage.googleapis.com")


def error_code(answer: Any) -> str | None:
    assert answer.headers["content-type"].startswith("application/xml")
    return ElementTree.fromstring(answer.content).findtext("Code")


def keys(answer: Any) -> tuple[list[str | None], list[str | None]]:
    """Keys and prefixes of a listing."""
    root = ElementTree.fromstring(answer.content)
    return (
        [node.text for node in root.iterfind(f"{S3}Contents/{S3}Key")],
        [node.text for node in root.iterfind(f"{S3}CommonPrefixes/{S3}Prefix")],
    )


# Objects


@pytest.mark.parametrize("path", ["d/x%20y", "d%2Fx%20y"])
def test_an_object_is_read_with_its_slashes_encoded_or_not(
    client: TestClient, store: LocalObjectStore, path: str
) -> None:
    info = put(store, "d/x y", DATA, bucket=BUCKET, attributes=ObjectAttributes(content_type="text/csv"))
    answer = client.get(f"/{BUCKET}/{path}")
    assert (answer.status_code, answer.content) == (200, DATA)
    headers = answer.headers
    assert headers["content-type"] == "text/csv"
    assert headers["etag"] == '"e2c865db4162bed963bfaa9ef6ac18f0"'  # md5sum of DATA
    assert headers["x-goog-generation"] == str(info.generation)
    assert headers["x-goog-hash"] == f"crc32c={info.crc32c},md5={info.md5}"
    assert headers["x-goog-stored-content-length"] == "256"
    assert headers["last-modified"].endswith("GMT")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_every_name_is_read_back(client: TestClient, store: LocalObjectStore, name: str) -> None:
    put(store, name, name.encode(), bucket=BUCKET)
    assert client.get(f"/{BUCKET}/{quote(name, safe='')}").content == name.encode()


def test_the_head_of_an_object_has_no_body(client: TestClient, store: LocalObjectStore) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    answer = client.head(f"/{BUCKET}/x")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "256", b"")


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=0-67108863", 206, "bytes 0-255/256", DATA),  # TensorFlow's block, beyond the end
        ("bytes=10-19", 206, "bytes 10-19/256", DATA[10:20]),
        ("bytes=-6", 206, "bytes 250-255/256", DATA[-6:]),
        ("bytes=256-511", 416, "bytes */256", None),
    ],
)
def test_ranges(
    client: TestClient, store: LocalObjectStore, asked: str, status: int, content_range: str, body: bytes | None
) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    answer = client.get(f"/{BUCKET}/x", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (status, content_range)
    if body is None:
        assert error_code(answer) == "InvalidRange"
    else:
        assert answer.content == body


def test_conditions(client: TestClient, store: LocalObjectStore) -> None:
    info = put(store, "x", DATA, bucket=BUCKET)
    url = f"/{BUCKET}/x"
    tag, date = (client.head(url).headers[name] for name in ("etag", "last-modified"))
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": f'"other", {tag}'}, 304),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "no date"}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 412),
        ({"x-goog-if-generation-match": str(info.generation)}, 200),
        ({"x-goog-if-generation-match": "1"}, 412),
        ({"x-goog-if-metageneration-match": "2"}, 412),
    ):
        assert client.get(url, headers=headers).status_code == status, headers
    assert client.get(url, params={"generation": info.generation}).status_code == 200
    assert client.get(url, params={"generation": 1}).status_code == 404


def test_a_composed_object_has_another_etag(client: TestClient, store: LocalObjectStore) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    store.compose(BUCKET, "y", [ComposeSource("x")])
    assert client.get(f"/{BUCKET}/y").headers["etag"] != client.get(f"/{BUCKET}/x").headers["etag"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/{BUCKET}/missing", 404, "NoSuchKey"),
        ("/no-such-bucket/x", 404, "NoSuchBucket"),
        ("/no-such-bucket", 404, "NoSuchBucket"),
        ("/", 400, "InvalidArgument"),
        (f"/{BUCKET}/%ff", 400, "InvalidArgument"),
        (f"/{BUCKET}?acl", 400, "InvalidArgument"),
        (f"/{BUCKET}?max-keys=-1", 400, "InvalidArgument"),
        (f"/{BUCKET}?list-type=2&continuation-token=%25", 400, "InvalidArgument"),
        (f"/{BUCKET}/x?generation=first", 400, "InvalidArgument"),
    ],
)
def test_errors_are_in_xml(client: TestClient, path: str, status: int, code: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, error_code(answer)) == (status, code)


def test_it_only_reads(client: TestClient, store: LocalObjectStore) -> None:
    answer = client.put(f"/{BUCKET}/x", content=b"1")
    assert (answer.status_code, error_code(answer)) == (405, "MethodNotAllowed")
    assert store.list(BUCKET).objects == []


# Listings


@pytest.fixture
def filled(store: LocalObjectStore, client: TestClient) -> TestClient:
    for name in NAMES:
        put(store, name, DATA, bucket=BUCKET)
    return client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (NAMES, [])),
        ("delimiter=/", (["a", "f"], ["b/", "c/"])),
        ("prefix=b/", (["b/1", "b/2"], [])),
        ("prefix=b/&delimiter=/&marker=b/1", (["b/2"], [])),
        ("prefix=c/&delimiter=/", ([], ["c/d/"])),
        ("marker=b/1", (["b/2", "c/d/e", "f"], [])),
        ("marker=b/&delimiter=/", (["f"], ["c/"])),
        ("list-type=2&start-after=b/2", (["c/d/e", "f"], [])),
        ("max-keys=0", ([], [])),
    ],
)
def test_a_listing(filled: TestClient, query: str, expected: tuple[list[str], list[str]]) -> None:
    assert keys(filled.get(f"/{BUCKET}?{query}")) == expected


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_pages_of_a_listing(filled: TestClient, version: int, size: int) -> None:
    found: list[str | None] = []
    query: dict[str, Any] = {"delimiter": "/", "max-keys": size} | ({"list-type": 2} if version == 2 else {})
    for _ in range(len(NAMES)):
        answer = filled.get(f"/{BUCKET}", params=query)
        objects, prefixes = keys(answer)
        assert len(objects) + len(prefixes) <= size
        found += objects + prefixes
        root = ElementTree.fromstring(answer.content)
        if root.findtext(f"{S3}IsTruncated") == "false":
            break
        if version == 2:
            assert root.findtext(f"{S3}KeyCount") == str(size)
            query["continuation-token"] = root.findtext(f"{S3}NextContinuationToken")
        else:
            query["marker"] = root.findtext(f"{S3}NextMarker")
    assert sorted(map(str, found)) == ["a", "b/", "c/", "f"]


def test_what_a_listing_says_of_an_object(filled: TestClient, store: LocalObjectStore) -> None:
    root = ElementTree.fromstring(filled.get(f"/{BUCKET}?prefix=a").content)
    contents = root.find(f"{S3}Contents")
    assert contents is not None
    found = {node.tag.removeprefix(S3): node.text for node in contents}
    assert found["Size"] == "256"
    assert found["ETag"] == '"e2c865db4162bed963bfaa9ef6ac18f0"'
    assert found["Generation"] == str(store.get(BUCKET, "a").generation)


def test_names_are_escaped(client: TestClient, store: LocalObjectStore) -> None:
    put(store, "<a>&\"'", bucket=BUCKET)
    put(store, "z\x01", bucket=BUCKET)
    assert keys(client.get(f"/{BUCKET}?prefix=%3C")) == (["<a>&\"'"], [])
    assert keys(client.get(f"/{BUCKET}?encoding-type=url")) == (["%3Ca%3E%26%22%27", "z%01"], [])


# Hosts


def test_a_bucket_has_its_own_host(at: At, store: LocalObjectStore) -> None:
    put(store, "d/x", DATA, bucket=BUCKET)
    own = at(f"{BUCKET}.storage.googleapis.com")
    assert own.get("/d/x").content == DATA
    assert own.get("/d%2Fx").content == DATA
    assert keys(own.get("/")) == (["d/x"], [])
    # What looks like the JSON API is an object there.
    assert error_code(own.get("/storage/v1/b")) == "NoSuchKey"


@pytest.mark.parametrize(
    ("host", "path", "is_json"),
    [
        ("storage.googleapis.com", "/storage/v1/b", True),
        ("storage.googleapis.com", "/download/storage/v1/b/x/o/y", True),
        ("storage.googleapis.com:443", "/storage/v1/b", True),
        ("STORAGE.googleapis.com", f"/{BUCKET}", False),
        ("storage.googleapis.com.", f"/{BUCKET}", False),
        ("commondatastorage.googleapis.com", f"/{BUCKET}", False),
        ("storage.googleapis.com", "/batch-of-data/x", False),
        ("www.googleapis.com", "/storage/v1/b", True),
        ("127.0.0.1:8600", "/storage/v1/b", True),
    ],
)
def test_the_host_tells_the_api(at: At, host: str, path: str, is_json: bool) -> None:
    answer = at("x").get(path, headers={"Host": host})
    assert answer.headers["content-type"].startswith("application/json" if is_json else "application/xml")


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "localhost", "www.googleapis.com", "ml.googleapis.com"])
def test_no_bucket_shadows_another_api(at: At, store: LocalObjectStore, host: str) -> None:
    put(store, "x", DATA, bucket=BUCKET)
    assert at(host).get(f"/{BUCKET}/x").status_code == 404


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("storage.googleapis.com", ""),
        ("b.storage.googleapis.com", "b"),
        ("b.c.commondatastorage.googleapis.com", "b.c"),
        ("googleapis.com", None),
        ("xstorage.googleapis.com", None),
        ("", None),
    ],
)
def test_the_bucket_of_a_host(host: str, bucket: str | None) -> None:
    assert bucket_of_host(host) == bucket


# What TensorFlow's C++ client does elsewhere than at the XML API


def test_tensorflow_writes_stats_lists_renames_and_reads(at: At) -> None:
    """The requests of its gs:// file system, in their form, one after the other."""
    www, reads = at("www.googleapis.com"), at("storage.googleapis.com")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    upload = f"/upload/storage/v1/b/{BUCKET}/o"
    assert www.get(f"/storage/v1/b/{BUCKET}").status_code == 200

    begun = www.post(f"{upload}?uploadType=resumable&name=d%2Ff.txt", headers=form)
    session = begun.headers["location"]
    assert session.startswith(f"https://www.googleapis.com{upload}?")
    stored = www.put(session, content=DATA, headers={"Content-Range": "bytes 0-255/256"})
    assert stored.status_code == 200

    marker = www.post(f"{upload}?uploadType=media&name=d%2F&ifGenerationMatch=0", headers=form)
    assert (marker.status_code, marker.json()["size"]) == (200, "0")

    stat = www.get(f"/storage/v1/b/{BUCKET}/o/d%2Ff.txt?fields=size%2Cgeneration%2Cupdated").json()
    assert (sorted(stat), stat["size"]) == (["generation", "size", "updated"], "256")

    listed = www.get(
        f"/storage/v1/b/{BUCKET}/o?fields=items%2Fname%2Cprefixes%2CnextPageToken&delimiter=%2F&prefix=d%2F"
    ).json()
    assert listed == {"items": [{"name": "d/"}, {"name": "d/f.txt"}]}

    url = f"/storage/v1/b/{BUCKET}/o/d%2Ff.txt/rewriteTo/b/{BUCKET}/o/d%2Fg.txt"
    assert www.post(url, headers=form).json()["done"] is True
    assert www.delete(f"/storage/v1/b/{BUCKET}/o/d%2Ff.txt").status_code == 204

    read = reads.get(f"/{BUCKET}/d%2Fg.txt", headers={"Range": "bytes=0-134217727"})
    assert (read.status_code, read.content) == (206, DATA)
    assert www.get("/storage/v1/b/no-such-bucket?fields=size").status_code == 404
