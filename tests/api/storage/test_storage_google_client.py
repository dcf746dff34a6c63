"""The unmodified google-cloud-storage against the API, on a real socket."""

import base64
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage import transfer_manager

BUCKET = "client-bucket"
BIG = random.Random(1).randbytes(9 * 1024 * 1024 + 5)
"""More than 8 MiB, above which the client uploads in resumable form by itself."""
CHUNK_BYTES = 256 * 1024
ODD_NAMES = ["a/b c", "a%2Fb", "a+b", "ü/日本/🦆", "?x=1&y#z", "..", "'quoted'"]


@pytest.fixture
def client(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Client]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    client = storage.Client()
    yield client
    client.close()


@pytest.fixture
def bucket(client: storage.Client) -> storage.Bucket:
    return client.create_bucket(BUCKET)


def names(bucket: storage.Bucket, **query: Any) -> list[str]:
    return [blob.name for blob in bucket.list_blobs(**query)]


def test_buckets(client: storage.Client) -> None:
    made = client.bucket("labelled-bucket")
    made.labels = {"team": "iris"}
    client.create_bucket(made, location="eu")
    client.create_bucket("another-bucket")
    assert [bucket.name for bucket in client.list_buckets()] == ["another-bucket", "labelled-bucket"]
    assert [bucket.name for bucket in client.list_buckets(prefix="lab", page_size=1)] == ["labelled-bucket"]
    found = client.get_bucket("labelled-bucket")
    assert (found.location, found.labels, found.storage_class) == ("EU", {"team": "iris"}, "STANDARD")
    assert found.time_created is not None and found.metageneration == 1
    found.labels = {"team": "rose", "stage": "test"}
    found.patch()
    assert client.get_bucket("labelled-bucket").labels == {"team": "rose", "stage": "test"}
    with pytest.raises(Conflict):
        client.create_bucket("labelled-bucket")
    with pytest.raises(BadRequest, match="not a bucket name"):
        client.create_bucket("No Bucket")
    found.blob("x").upload_from_string(b"")
    with pytest.raises(Conflict, match="not empty"):
        found.delete()
    found.delete(force=True)
    with pytest.raises(NotFound):
        client.get_bucket("labelled-bucket")
    assert client.lookup_bucket("labelled-bucket") is None


def test_buckets_are_listed_in_pages(client: storage.Client) -> None:
    wanted = [f"bucket-{number}" for number in range(5)]
    for name in wanted:
        client.create_bucket(name)
    pages = list(client.list_buckets(page_size=2).pages)
    assert [len(list(page)) for page in pages] == [2, 2, 1]
    assert [bucket.name for bucket in client.list_buckets(page_size=2)] == wanted


def test_a_small_object(bucket: storage.Bucket) -> None:
    blob = bucket.blob("dir/iris.csv")
    blob.metadata = {"rows": "150"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"5.1,3.5,1.4,0.2,0\n", content_type="text/csv", checksum="md5")
    assert blob.exists() and blob.size == 18 and blob.generation > 0 and blob.metageneration == 1
    found = bucket.get_blob("dir/iris.csv")
    assert found is not None
    assert (found.content_type, found.metadata, found.cache_control) == ("text/csv", {"rows": "150"}, "no-store")
    assert found.md5_hash == base64.b64encode(hashlib.md5(b"5.1,3.5,1.4,0.2,0\n").digest()).decode()
    assert found.crc32c == base64.b64encode(google_crc32c.Checksum(b"5.1,3.5,1.4,0.2,0\n").digest()).decode()
    assert found.id == f"{BUCKET}/dir/iris.csv/{found.generation}"
    assert found.download_as_bytes(checksum="md5") == b"5.1,3.5,1.4,0.2,0\n"
    assert found.download_as_bytes(checksum="crc32c") == b"5.1,3.5,1.4,0.2,0\n"
    assert found.download_as_bytes(start=4, end=6) == b"3.5"
    assert found.download_as_bytes(start=14) == b"2,0\n"
    assert bucket.get_blob("dir/no") is None
    with pytest.raises(NotFound, match="No such object"):
        bucket.blob("dir/no").download_as_bytes()


@pytest.mark.parametrize("checksum", ["md5", "crc32c"])
def test_a_large_object_goes_up_in_pieces(bucket: storage.Bucket, tmp_path: Path, checksum: str) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    source.write_bytes(BIG)
    blob = bucket.blob("big", chunk_size=4 * CHUNK_BYTES)
    blob.upload_from_filename(str(source), checksum=checksum)
    whole = bucket.blob("whole")
    whole.upload_from_filename(str(source), checksum=checksum)
    assert blob.size == len(BIG) and blob.crc32c == whole.crc32c
    whole.download_to_filename(str(target), checksum=checksum)
    assert target.read_bytes() == BIG
    assert bucket.blob("big").download_as_bytes(start=8_000_000, end=8_000_099) == BIG[8_000_000:8_000_100]
    chunked = bucket.blob("big", chunk_size=8 * CHUNK_BYTES)
    assert chunked.download_as_bytes() == BIG


def test_a_stream_of_unknown_length(bucket: storage.Bucket) -> None:
    for size in (0, 10, CHUNK_BYTES, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 1):
        with bucket.blob("stream").open("wb", chunk_size=CHUNK_BYTES) as writer:
            for at in range(0, size, 100_000):
                writer.write(BIG[at : min(at + 100_000, size)])
        with bucket.blob("stream").open("rb", chunk_size=CHUNK_BYTES) as reader:
            assert reader.read() == BIG[:size]
    with bucket.blob("stream").open("rb", chunk_size=CHUNK_BYTES) as reader:
        reader.seek(-5, 2)
        assert reader.read(100) == BIG[size - 5 : size]
    with bucket.blob("text").open("w") as text:
        text.write("ü\nzwei\n")
    assert list(bucket.blob("text").open("r")) == ["ü\n", "zwei\n"]


def test_a_download_in_parallel(bucket: storage.Bucket, tmp_path: Path) -> None:
    blob = bucket.blob("big")
    blob.upload_from_string(BIG)
    target = tmp_path / "target.bin"
    transfer_manager.download_chunks_concurrently(
        blob, str(target), chunk_size=2_000_000, worker_type="thread", max_workers=3
    )
    assert target.read_bytes() == BIG


def test_an_empty_object(bucket: storage.Bucket) -> None:
    blob = bucket.blob("empty")
    blob.upload_from_string(b"")
    assert bucket.blob("empty").download_as_bytes() == b"" and bucket.get_blob("empty").size == 0


def test_odd_names_come_back_as_they_went(bucket: storage.Bucket) -> None:
    odd = [name for name in ODD_NAMES if name != ".."]
    for name in odd:
        bucket.blob(name).upload_from_string(name.encode())
    assert names(bucket) == sorted(odd, key=str.encode)
    for name in odd:
        assert bucket.blob(name).download_as_bytes() == name.encode()
        assert names(bucket, prefix=name) == [name]
        moved = bucket.rename_blob(bucket.blob(name), f"moved/{name}")
        assert moved.download_as_bytes() == name.encode()
    assert names(bucket, prefix="moved/") == sorted((f"moved/{name}" for name in odd), key=str.encode)
    with pytest.raises(BadRequest):
        bucket.blob("..").upload_from_string(b"")


def test_listing(bucket: storage.Bucket) -> None:
    for name in ("a", "b/1", "b/2", "b/c/3", "d/", "d/4"):
        bucket.blob(name).upload_from_string(b"")
    iterator = bucket.list_blobs(delimiter="/", page_size=1)
    assert [blob.name for blob in iterator] == ["a"] and iterator.prefixes == {"b/", "d/"}
    iterator = bucket.list_blobs(prefix="b/", delimiter="/")
    assert [blob.name for blob in iterator] == ["b/1", "b/2"] and iterator.prefixes == {"b/c/"}
    assert names(bucket, delimiter="/", include_trailing_delimiter=True) == ["a", "d/"]
    assert names(bucket, start_offset="b/2", end_offset="d/4") == ["b/2", "b/c/3", "d/"]
    assert [len(list(page)) for page in bucket.list_blobs(page_size=4).pages] == [4, 2]
    assert names(bucket, max_results=3) == ["a", "b/1", "b/2"]
    assert names(bucket, versions=True) == names(bucket)
    assert names(bucket, soft_deleted=True) == []
    with pytest.raises(BadRequest, match="matchGlob"):
        names(bucket, match_glob="**/1")


def test_copies(client: storage.Client, bucket: storage.Bucket) -> None:
    other = client.create_bucket("other-bucket")
    source = bucket.blob("source")
    source.metadata = {"a": "1"}
    source.upload_from_string(b"data", content_type="text/csv")
    copied = bucket.copy_blob(source, other, "deep/copy", source_generation=source.generation)
    assert copied.download_as_bytes() == b"data" and copied.content_type == "text/csv"
    target = bucket.blob("rewritten")
    assert target.rewrite(source) == (None, 4, 4)
    target.reload()
    assert target.metadata == {"a": "1"}
    source.update_storage_class("NEARLINE")
    source.reload()
    assert (source.storage_class, source.content_type) == ("NEARLINE", "text/csv")
    bucket.rename_blob(source, "renamed")
    bucket.move_blob(bucket.blob("renamed"), "moved")
    assert names(bucket) == ["moved", "rewritten"] and names(other) == ["deep/copy"]
    with pytest.raises(NotFound):
        bucket.copy_blob(bucket.blob("no"), other)
    with pytest.raises(PreconditionFailed):
        bucket.copy_blob(target, other, "deep/copy", if_generation_match=0)


def test_compose(bucket: storage.Bucket) -> None:
    parts = []
    for number in range(3):
        part = bucket.blob(f"part-{number}")
        part.upload_from_string(b"%d" % number * 10)
        parts.append(part)
    whole = bucket.blob("whole")
    whole.content_type = "text/plain"
    whole.compose(parts, if_generation_match=0)
    assert whole.download_as_bytes(checksum="crc32c") == b"0" * 10 + b"1" * 10 + b"2" * 10
    assert (whole.component_count, whole.content_type) == (3, "text/plain")
    with pytest.raises(NotFound):
        whole.compose([*parts, bucket.blob("no")])


def test_metadata(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"data", content_type="text/csv")
    generation = blob.generation
    blob.metadata = {"a": "1", "b": "2"}
    blob.content_language = "de"
    blob.patch(if_metageneration_match=1)
    blob.metadata = {"a": None, "c": "ü"}
    blob.patch()
    found = bucket.get_blob("x")
    assert found is not None and found.metadata == {"b": "2", "c": "ü"}
    assert (found.content_type, found.content_language) == ("text/csv", "de")
    assert (found.generation, found.metageneration) == (generation, 3)
    found.content_language = None
    found.metadata = {}
    found.update()
    found = bucket.get_blob("x")
    assert found is not None and found.metadata is None and found.content_language is None
    with pytest.raises(PreconditionFailed):
        blob.patch(if_metageneration_match=1)


def test_preconditions(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string(b"second", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("x", chunk_size=CHUNK_BYTES).upload_from_string(BIG, if_generation_match=0)
    generation = blob.generation
    blob.upload_from_string(b"second", if_generation_match=generation)
    with pytest.raises(PreconditionFailed):
        blob.download_as_bytes(if_generation_match=generation)
    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=generation)
    with pytest.raises(NotFound):
        bucket.blob("x", generation=generation).reload()
    assert blob.download_as_bytes(if_generation_match=blob.generation) == b"second"
    blob.delete(if_generation_match=blob.generation)
    with pytest.raises(NotFound):
        bucket.blob("x").delete()


def test_many_calls_in_one_request(client: storage.Client, bucket: storage.Bucket) -> None:
    for name in ("a", "b ü", "c"):
        bucket.blob(name).upload_from_string(b"")
    patched = bucket.blob("c")
    with client.batch():
        bucket.blob("a").delete()
        bucket.blob("b ü").delete()
        patched.metadata = {"k": "v"}
        patched.patch()
    assert names(bucket) == ["c"] and patched.metageneration == 2
    with pytest.raises(NotFound, match="No such object"), client.batch():
        bucket.blob("c").delete()
        bucket.blob("no").delete()
    assert names(bucket) == []
