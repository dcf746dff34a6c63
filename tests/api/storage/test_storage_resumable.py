"""The resumable protocol as gcloud, google-cloud-storage and gcsfs speak it."""

import http.client
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import crc32c_of, md5_of, put, read
from enginehouse.testing.web import serving

BUCKET = "wire-bucket"
KIB_256 = 256 * 1024
DATA = random.Random(2).randbytes(3 * KIB_256 + 1000)


class Session:
    """A resumable upload seen from the client."""

    def __init__(self, url: str, query: str = "name=d%2Fx", body: bytes = b"", prefix: str = "", **headers: str):
        self.netloc = urlsplit(url).netloc
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        target = f"{prefix}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&{query}"
        self.status, self.headers, self.body = self._request("POST", target, body, named)
        self.location = self.headers.get("location", "")

    def put(
        self, data: bytes, content_range: str | None, method: str = "PUT", **headers: str
    ) -> tuple[int, str, Any]:
        """Status, Range header and resource of a piece, or of a question."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_range is not None:
            named["Content-Range"] = content_range
        parts = urlsplit(self.location)
        status, found, body = self._request(method, f"{parts.path}?{parts.query}", data, named)
        return status, found.get("range", ""), json.loads(body) if body else None

    def _request(
        self, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found


@pytest.fixture(autouse=True)
def bucket(store: LocalObjectStore) -> Iterator[None]:
    store.create_bucket(BUCKET)
    yield


def test_gclouds_one_put(url: str, store: LocalObjectStore) -> None:
    session = Session(
        url,
        "alt=json&name=d%2Fx",
        b'{"size": "787432"}',
        prefix="/resumable",
        X_Upload_Content_Type="application/x-tar",
        X_Upload_Content_Length=str(len(DATA)),
    )
    assert session.status == 200 and session.location.startswith(f"{url}/resumable/upload/storage/v1/b/{BUCKET}/o?")
    status, _, resource = session.put(DATA, f"bytes 0-{len(DATA) - 1}/{len(DATA)}")
    assert status == 200 and resource["size"] == str(len(DATA)) and resource["contentType"] == "application/x-tar"
    assert read(store, "d/x", bucket=BUCKET) == DATA


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_pieces_of_unknown_total(url: str, store: LocalObjectStore, method: str) -> None:
    session = Session(url, "x=1", b'{"name": "named in the body", "metadata": {"a": "b"}}')
    assert session.put(b"", "bytes */*", method) == (308, "", None)
    assert session.put(DATA[:KIB_256], f"bytes 0-{KIB_256 - 1}/*", method) == (308, f"bytes=0-{KIB_256 - 1}", None)
    assert session.put(b"", "bytes */*", method) == (308, f"bytes=0-{KIB_256 - 1}", None)
    status, _, resource = session.put(DATA[KIB_256:], f"bytes {KIB_256}-{len(DATA) - 1}/{len(DATA)}", method)
    assert status == 200 and resource["md5Hash"] == md5_of(DATA) and resource["metadata"] == {"a": "b"}
    assert read(store, "named in the body", bucket=BUCKET) == DATA
    # Once more, as a client does whose last answer got lost.
    assert session.put(b"", f"bytes */{len(DATA)}", method)[2] == resource
    assert session.put(DATA[KIB_256:], f"bytes {KIB_256}-{len(DATA) - 1}/{len(DATA)}", method)[2] == resource


def test_the_total_can_be_told_at_the_end_alone(url: str, store: LocalObjectStore) -> None:
    session = Session(url)
    session.put(DATA, f"bytes 0-{len(DATA) - 1}/*")
    assert session.put(b"", f"bytes */{len(DATA)}")[0] == 200
    empty = Session(url, "name=empty")
    assert empty.put(b"", "bytes */0")[0] == 200
    whole = Session(url, "name=whole")
    assert whole.put(DATA, None)[0] == 200
    assert [(i.name, i.size_bytes) for i in store.list(BUCKET).objects] == [
        ("d/x", len(DATA)),
        ("empty", 0),
        ("whole", len(DATA)),
    ]


def test_a_piece_sent_again_or_too_early(url: str, store: LocalObjectStore) -> None:
    session = Session(url)
    session.put(DATA[:KIB_256], f"bytes 0-{KIB_256 - 1}/*")
    assert session.put(DATA[2 * KIB_256 :], f"bytes {2 * KIB_256}-{len(DATA) - 1}/{len(DATA)}") == (
        308,
        f"bytes=0-{KIB_256 - 1}",
        None,
    )
    assert session.put(DATA[: 2 * KIB_256], f"bytes 0-{2 * KIB_256 - 1}/*")[1] == f"bytes=0-{2 * KIB_256 - 1}"
    assert session.put(DATA[:KIB_256], f"bytes 0-{KIB_256 - 1}/*")[1] == f"bytes=0-{2 * KIB_256 - 1}"
    assert session.put(DATA[KIB_256:], f"bytes {KIB_256}-{len(DATA) - 1}/{len(DATA)}")[0] == 200
    assert read(store, "d/x", bucket=BUCKET) == DATA


def test_a_session_survives_a_restart_of_the_server(url: str, store: LocalObjectStore, tmp_path: Path) -> None:
    session = Session(url, "name=x&ifGenerationMatch=0", X_Upload_Content_Type="text/csv")
    session.put(DATA[:KIB_256], f"bytes 0-{KIB_256 - 1}/*")
    store.close()
    again = LocalObjectStore(tmp_path / "objects", SystemClock())
    with serving(storage_routes(again)) as second:
        session.netloc = urlsplit(second).netloc
        assert session.put(b"", "bytes */*")[1] == f"bytes=0-{KIB_256 - 1}"
        status, _, resource = session.put(DATA[KIB_256:], f"bytes {KIB_256}-{len(DATA) - 1}/{len(DATA)}")
    assert status == 200 and resource["md5Hash"] == md5_of(DATA) and resource["contentType"] == "text/csv"
    again.close()


def test_a_cancelled_session_is_gone(url: str, store: LocalObjectStore) -> None:
    session = Session(url)
    session.put(DATA[:KIB_256], f"bytes 0-{KIB_256 - 1}/*")
    assert session.put(b"", None, "DELETE")[0] == 499
    assert session.put(b"", "bytes */*")[0] == 404
    assert session.put(b"", None, "DELETE")[0] == 404
    assert store.list(BUCKET).objects == []


@pytest.mark.parametrize(
    ("content_range", "data"),
    [
        ("bytes 0-9/5", b"0123456789"),
        ("bytes 9-0/10", b""),
        ("bytes 0-9/10", b"012345678"),
        ("bytes 0-9/10", b"0123456789A"),
        ("bytes=0-9/10", b"0123456789"),
        ("bytes 0-/10", b"0123456789"),
        ("bytes 0-9", b"0123456789"),
    ],
)
def test_a_bad_range_is_refused(url: str, store: LocalObjectStore, content_range: str, data: bytes) -> None:
    assert Session(url).put(data, content_range)[0] == 400
    assert store.list(BUCKET).objects == []


def test_checksums_and_sizes_are_verified(url: str, store: LocalObjectStore) -> None:
    whole = f"bytes 0-{len(DATA) - 1}/{len(DATA)}"
    told_at_begin = Session(url, body=json.dumps({"md5Hash": md5_of(b"other")}).encode())
    assert told_at_begin.put(DATA, whole)[0] == 400
    assert Session(url).put(DATA, whole, X_Goog_Hash=f"crc32c={crc32c_of(b'other')}")[0] == 400
    assert Session(url, X_Upload_Content_Length="7").put(DATA, whole)[0] == 400
    assert Session(url, X_Upload_Content_Length="many").status == 400
    assert store.list(BUCKET).objects == []
    assert Session(url).put(DATA, whole, X_Goog_Hash=f"crc32c={crc32c_of(DATA)}")[0] == 200


def test_preconditions_are_judged_at_begin_and_end(url: str, store: LocalObjectStore) -> None:
    late = Session(url, "name=x&ifGenerationMatch=0")
    put(store, "x", b"faster", bucket=BUCKET)
    assert late.put(DATA, f"bytes 0-{len(DATA) - 1}/{len(DATA)}")[0] == 412
    assert Session(url, "name=x&ifGenerationMatch=0").status == 412
    assert Session(url, "name=").status == 400
    assert read(store, "x", bucket=BUCKET) == b"faster"
