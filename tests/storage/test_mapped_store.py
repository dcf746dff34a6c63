"""Buckets that lie elsewhere: directories, other services, what fsspec reaches; and buckets that are nowhere."""

import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import fsspec
import pytest

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.core.errors import (
    ConditionNotMet,
    EngineError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from enginehouse.storage.base import ComposeSource, Digests, ObjectAttributes, ObjectStore, Preconditions
from enginehouse.storage.local import LocalObjectStore
from enginehouse.storage.mapped import MappedObjectStore, parse_mappings
from enginehouse.storage.remote import Service
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.http import Answer, FakeHttpEngine, error_answer
from enginehouse.testing.storage import ObjectStoreContract
from enginehouse.testing.storage.helpers import BUCKET, list_all, list_entries, naive_listing, put, read
from enginehouse.testing.web import serving

FILES = {"a.csv": b"1,2\n", "d/e.bin": bytes(range(256)), "d/f/g": b"g" * (3 << 20), "z": b""}
NOWHERE = "http://127.0.0.1:9"

OpenStore = Callable[..., MappedObjectStore]
Reader = Callable[[str], bytes]


class TestMappedStore(ObjectStoreContract):
    """With nothing mapped it is any other store."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], ObjectStore]:
        service = Service({}, NOWHERE)
        return lambda: MappedObjectStore(tmp_path / "objects", FakeClock(), mappings={}, service=service)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[OpenStore]:
    """Opens a store with mappings."""
    opened: list[MappedObjectStore] = []

    def open_it(
        mappings: Mapping[str, str], *, service: str = NOWHERE, unknown_buckets: str = "refuse"
    ) -> MappedObjectStore:
        opened.append(
            MappedObjectStore(
                tmp_path / "objects",
                SystemClock(),
                mappings=mappings,
                service=Service({}, service),
                unknown_buckets=unknown_buckets,
            )
        )
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    return tmp_path / "data"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """A second engine in the place of the real service, with the same files as objects."""
    store = LocalObjectStore(tmp_path / "service", SystemClock())
    store.create_bucket("public-data", location="EU")
    for name, data in FILES.items():
        attributes = ObjectAttributes(content_type="x/y", metadata={"k": "v"})
        put(store, name, data, bucket="public-data", attributes=attributes)
    with serving(storage_routes(store)) as url:
        yield url
    store.close()


@pytest.fixture(params=["directory", "service", "forwarded", "fsspec"])
def mapped(request: pytest.FixtureRequest, open_store: OpenStore) -> Iterator[tuple[MappedObjectStore, str]]:
    """A store, and the name of a bucket with FILES that lies elsewhere."""
    if request.param == "directory":
        directory = request.getfixturevalue("directory")
        yield open_store({"photos": directory.as_uri()}), "photos"
    elif request.param == "service":
        service = request.getfixturevalue("service")
        yield open_store({"samples": "gs://public-data"}, service=service), "samples"
    elif request.param == "forwarded":
        service = request.getfixturevalue("service")
        yield open_store({}, service=service, unknown_buckets="forward"), "public-data"
    else:
        files = fsspec.filesystem("memory")
        for name, data in FILES.items():
            files.pipe(f"/bucket/root/{name}", data)
        yield open_store({"remote": "memory://bucket/root"}), "remote"
        files.rm("/bucket", recursive=True)


# Reading, wherever it lies


def test_objects_are_read_from_any_place(mapped: tuple[MappedObjectStore, str]) -> None:
    store, bucket = mapped
    assert store.get_bucket(bucket).name == bucket
    for name, data in FILES.items():
        info, file = store.open_read(bucket, name)
        with file:
            assert (info.bucket, info.name, info.size_bytes) == (bucket, name, len(data))
            assert file.read() == data
            assert file.seek(len(data) // 2) == len(data) // 2
            assert file.read(10) == data[len(data) // 2 :][:10]
            assert store.get(bucket, name, generation=info.generation) == info


@pytest.mark.parametrize("name", ["missing", "d", "d/", "/a.csv", "../data/a.csv", "d/../a.csv", "./a.csv"])
def test_other_names_are_not_found(mapped: tuple[MappedObjectStore, str], name: str) -> None:
    store, bucket = mapped
    with pytest.raises(NotFound):
        store.get(bucket, name)
    with pytest.raises(NotFound):
        store.open_read(bucket, name)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"delimiter": "/"},
        {"prefix": "d/"},
        {"prefix": "d/", "delimiter": "/"},
        {"prefix": "d/f"},
        {"start_offset": "d/f", "end_offset": "z"},
        {"prefix": "../"},
        {"prefix": "nothing/"},
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_listings(mapped: tuple[MappedObjectStore, str], query: dict[str, str], size: int) -> None:
    store, bucket = mapped
    names, prefixes, sizes = list_entries(store, bucket=bucket, max_results=size, **query)
    assert (names, prefixes) == naive_listing(list(FILES), **query)
    assert max(sizes) <= size


def test_preconditions_and_generations(mapped: tuple[MappedObjectStore, str]) -> None:
    store, bucket = mapped
    with pytest.raises(ConditionNotMet):
        store.open_read(bucket, "a.csv", preconditions=Preconditions(if_generation_match=1))
    with pytest.raises(ConditionNotMet):
        store.get(bucket, "a.csv", preconditions=Preconditions(if_generation_match=0))
    with pytest.raises(NotFound):
        store.get(bucket, "a.csv", generation=7)


def test_objects_are_copied_from_there(mapped: tuple[MappedObjectStore, str]) -> None:
    store, bucket = mapped
    store.create_bucket(BUCKET)
    info = store.copy(bucket, "d/f/g", BUCKET, "copy")
    assert read(store, "copy") == FILES["d/f/g"]
    assert info.content_type == store.get(bucket, "d/f/g").content_type
    with pytest.raises(NotFound):
        store.copy(bucket, "missing", BUCKET, "copy")


def test_a_folder_is_exported(mapped: tuple[MappedObjectStore, str], tmp_path: Path) -> None:
    store, bucket = mapped
    told = store.export(bucket, "d", tmp_path / "out")
    assert [info.name for info in told] == ["d/e.bin", "d/f/g"]
    assert (tmp_path / "out" / "e.bin").read_bytes() == FILES["d/e.bin"]
    assert (tmp_path / "out" / "f" / "g").read_bytes() == FILES["d/f/g"]


# Writing


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@pytest.fixture(params=["directory", "fsspec"])
def files(request: pytest.FixtureRequest, open_store: OpenStore) -> Iterator[tuple[MappedObjectStore, Reader]]:
    """A store whose bucket "files" lies elsewhere and has FILES, and a way to read a file where it lies."""
    if request.param == "directory":
        directory = request.getfixturevalue("directory")
        yield open_store({"files": directory.as_uri()}), lambda name: (directory / name).read_bytes()
    else:
        memory = fsspec.filesystem("memory")
        for name, data in FILES.items():
            memory.pipe(f"/bucket/root/{name}", data)
        yield open_store({"files": "memory://bucket/root"}), lambda name: memory.cat_file(f"/bucket/root/{name}")
        memory.rm("/bucket", recursive=True)


def test_objects_are_written_where_they_lie(files: tuple[MappedObjectStore, Reader]) -> None:
    store, read_file = files
    info = put(store, "new/folder/x.txt", b"one", bucket="files")
    assert read_file("new/folder/x.txt") == b"one"
    assert (info.bucket, info.name, info.size_bytes) == ("files", "new/folder/x.txt", 3)
    assert info.md5 == md5(b"one")
    assert store.get("files", "new/folder/x.txt").generation == info.generation
    assert put(store, "new/folder/x.txt", b"three", bucket="files").generation >= info.generation
    assert read_file("new/folder/x.txt") == b"three"
    assert sorted(list_all(store, bucket="files")) == sorted([*FILES, "new/folder/x.txt"])


def test_a_write_with_the_wrong_checksum_leaves_the_file(files: tuple[MappedObjectStore, Reader]) -> None:
    store, read_file = files
    writer = store.writer("files", "a.csv")
    writer.write(b"torn")
    with pytest.raises(InvalidArgument):
        writer.commit(Digests(md5=md5(b"whole")))
    abandoned = store.writer("files", "a.csv")
    abandoned.write(b"half")
    abandoned.abort()
    assert read_file("a.csv") == FILES["a.csv"]


def test_writes_hold_their_preconditions(files: tuple[MappedObjectStore, Reader]) -> None:
    store, read_file = files
    only_new = Preconditions(if_generation_match=0)
    with pytest.raises(ConditionNotMet):
        put(store, "a.csv", b"x", bucket="files", preconditions=only_new)
    with pytest.raises(ConditionNotMet):
        store.delete("files", "a.csv", preconditions=only_new)
    late = store.writer("files", "new", preconditions=only_new)
    late.write(b"late")
    put(store, "new", b"early", bucket="files", preconditions=only_new)
    with pytest.raises(ConditionNotMet):
        late.commit()
    assert (read_file("a.csv"), read_file("new")) == (FILES["a.csv"], b"early")


def test_an_upload_to_a_mapped_bucket_goes_on_after_a_restart(open_store: OpenStore, directory: Path) -> None:
    mappings = {"files": directory.as_uri()}
    store = open_store(mappings)
    upload = store.create_upload("files", "big", preconditions=Preconditions(if_generation_match=0)).upload_id
    assert store.append_upload(upload, 0, b"a" * 100_000) == 100_000
    store.close()
    store = open_store(mappings)
    assert store.get_upload(upload).offset == 100_000
    assert not (directory / "big").exists()
    store.append_upload(upload, 100_000, b"b")
    assert store.finish_upload(upload, size_bytes=100_001).size_bytes == 100_001
    assert (directory / "big").read_bytes() == b"a" * 100_000 + b"b"
    assert store.finish_upload(upload, size_bytes=100_001).size_bytes == 100_001  # its answer was lost
    told = store.get_upload(upload).result
    assert told is not None and (told.metadata, told.size_bytes) == ({}, 100_001)
    cancelled = store.create_upload("files", "never").upload_id
    store.cancel_upload(cancelled)
    with pytest.raises(NotFound):
        store.get_upload(cancelled)


def test_deleting_copying_moving_and_composing(files: tuple[MappedObjectStore, Reader]) -> None:
    store, read_file = files
    store.create_bucket(BUCKET)
    put(store, "x", b"1")
    store.copy(BUCKET, "x", "files", "in/x")
    store.copy("files", "d/e.bin", "files", "in/y")
    assert (read_file("in/x"), read_file("in/y")) == (b"1", FILES["d/e.bin"])
    store.compose("files", "in/both", [ComposeSource("in/x"), ComposeSource("in/y")], delete_sources=True)
    assert read_file("in/both") == b"1" + FILES["d/e.bin"]
    store.move("files", "in/both", "out/both")
    assert read_file("out/both") == b"1" + FILES["d/e.bin"]
    store.delete("files", "z")
    assert sorted(list_all(store, bucket="files")) == sorted([*(FILES.keys() - {"z"}), "out/both"])
    for gone in ("z", "in/both", "nothing"):
        with pytest.raises(NotFound):
            store.delete("files", gone)
    with pytest.raises(InvalidArgument):
        store.move("files", "a.csv", "a.csv")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a//b", "./x"])
def test_names_that_are_no_paths_are_not_written(files: tuple[MappedObjectStore, Reader], name: str) -> None:
    store, _ = files
    with pytest.raises(InvalidArgument, match="is no path"):
        put(store, name, b"x", bucket="files")
    assert sorted(list_all(store, bucket="files")) == sorted(FILES)


def test_what_a_file_can_not_have_is_refused(files: tuple[MappedObjectStore, Reader]) -> None:
    store, _ = files
    for change in (
        lambda: store.create_bucket("files"),
        lambda: store.update_bucket("files"),
        lambda: store.delete_bucket("files"),
        lambda: store.update("files", "z", lambda old: old),
    ):
        with pytest.raises(FailedPrecondition, match="files is mapped"):
            change()


def test_a_public_bucket_is_only_read(open_store: OpenStore, service: str) -> None:
    store = open_store({"samples": "gs://public-data"}, service=service)
    for change in (
        lambda: put(store, "x", b"", bucket="samples"),
        lambda: store.create_upload("samples", "x"),
        lambda: store.delete("samples", "z"),
        lambda: store.move("samples", "z", "y"),
        lambda: store.compose("samples", "x", [ComposeSource("z")]),
        lambda: store.copy("samples", "z", "samples", "x"),
    ):
        with pytest.raises(FailedPrecondition, match="samples is mapped to a public bucket"):
            change()


# Directories


def test_links_out_of_a_directory_lead_nowhere(open_store: OpenStore, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (directory / "file").symlink_to(tmp_path / "secret")
    (directory / "folder").symlink_to(tmp_path)
    (directory / "inside").symlink_to(directory / "a.csv")
    store = open_store({"photos": directory.as_uri()})
    for name in ("file", "folder/secret"):
        with pytest.raises(NotFound):
            store.open_read("photos", name)
    assert sorted(list_all(store, bucket="photos")) == sorted([*FILES, "inside"])
    assert read(store, "inside", bucket="photos") == FILES["a.csv"]


def test_nothing_is_written_through_links_that_lead_out(
    open_store: OpenStore, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (directory / "folder").symlink_to(tmp_path / "outside")
    (directory / "file").symlink_to(tmp_path / "outside" / "secret")
    store = open_store({"photos": directory.as_uri()})
    for name in ("folder/x", "folder/x/", "file"):
        with pytest.raises(FailedPrecondition, match="leads out"):
            put(store, name, b"x", bucket="photos")
    assert list((tmp_path / "outside").iterdir()) == []


def test_folders_of_a_directory(open_store: OpenStore, directory: Path) -> None:
    store = open_store({"photos": directory.as_uri()})
    put(store, "new/", b"", bucket="photos")
    assert (directory / "new").is_dir()
    assert "new/" in list_all(store, bucket="photos")
    assert list_entries(store, bucket="photos", delimiter="/")[1] == ["d/", "new/"]
    put(store, "new/x", b"", bucket="photos")
    assert "new/" not in list_all(store, bucket="photos")
    store.delete("photos", "new/x")
    assert not (directory / "new").exists()  # as in any bucket, where a folder ends with its last object
    for name in ("a.csv/x", "a.csv/", "d", "d/f"):
        with pytest.raises(FailedPrecondition, match="can't have the same name"):
            put(store, name, b"", bucket="photos")
    assert sorted(path.name for path in directory.iterdir()) == ["a.csv", "d", "z"]


def test_a_directory_that_can_not_be_written(open_store: OpenStore, directory: Path) -> None:
    store = open_store({"photos": directory.as_uri()})
    with pytest.raises(FailedPrecondition, match="too long"):
        put(store, "n" * 300, b"", bucket="photos")


def test_a_changed_file_is_a_new_generation(open_store: OpenStore, directory: Path) -> None:
    store = open_store({"photos": directory.as_uri()})
    before = store.get("photos", "a.csv")
    (directory / "a.csv").write_text("3,4\n")
    assert store.get("photos", "a.csv").generation > before.generation
    assert before.content_type == "text/csv"
    assert store.local_path("photos", "a.csv") == directory / "a.csv"


def test_buckets_are_listed_with_the_mapped_ones(open_store: OpenStore, directory: Path) -> None:
    store = open_store({"photos": directory.as_uri(), "far-away": "gs://public-data"})
    store.create_bucket("local-one")
    assert [info.name for info in store.list_buckets()] == ["far-away", "local-one", "photos"]
    assert [info.name for info in store.list_buckets(prefix="p")] == ["photos"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///no/such/directory", "no directory"),
        ("file://host/path", "names a host"),
        ("nonsense://x/y", "nonsense|fsspec"),
    ],
)
def test_a_mapping_that_leads_nowhere(open_store: OpenStore, uri: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        open_store({"photos": uri})


def test_a_missing_library_is_named(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("enginehouse.storage.mounts.importlib.import_module", missing)
    with pytest.raises(FailedPrecondition, match="pip install s3fs"):
        open_store({"logs": "s3://company-logs/ml"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("photos=file:///data/my%20photos", {"photos": "file:///data/my%20photos"}),
        (" one=gs://a \n two=s3://b/c=d ", {"one": "gs://a", "two": "s3://b/c=d"}),
    ],
)
def test_mappings_are_parsed(text: str, expected: dict[str, str]) -> None:
    assert parse_mappings(text) == expected


@pytest.mark.parametrize("text", ["photos", "photos=/data", "=file:///x", "one=gs://a one=gs://b", "A=gs://b"])
def test_what_is_no_mapping(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_mappings(text)


# Buckets that are nowhere


def test_an_unknown_bucket_is_refused_with_the_ways_out(open_store: OpenStore) -> None:
    store = open_store({})
    for ask in (
        lambda: store.get("some-data", "x"),
        lambda: store.list("some-data"),
        lambda: store.get_bucket("some-data"),
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        for part in ("gsutil mb gs://some-data", "bucket_mappings", "unknown_buckets"):
            assert part in caught.value.message
    with pytest.raises(NotFound, match="gsutil mb gs://some-data"):
        store.writer("some-data", "x")


def test_without_a_network_the_error_names_the_bucket(open_store: OpenStore) -> None:
    store = open_store({}, unknown_buckets="forward")
    with pytest.raises(
        NotFound, match=r"some-data does not exist here, and http://127.0.0.1:9 can't be reached"
    ) as caught:
        store.open_read("some-data", "x")
    assert "gsutil mb gs://some-data" in caught.value.message


def test_a_bucket_that_is_nowhere_at_all(open_store: OpenStore, service: str) -> None:
    store = open_store({}, service=service, unknown_buckets="forward")
    with pytest.raises(NotFound, match="nowhere-data does not exist here"):
        store.list("nowhere-data")
    with pytest.raises(NotFound):
        store.get("Not A Bucket", "x")


def test_a_local_bucket_is_never_forwarded(open_store: OpenStore) -> None:
    with FakeHttpEngine() as real:
        store = open_store({}, service=real.url, unknown_buckets="forward")
        store.create_bucket(BUCKET)
        with pytest.raises(NotFound):
            store.get(BUCKET, "missing")
        assert store.list(BUCKET).objects == []
        assert real.requests == []


def test_nothing_is_written_to_the_real_service(open_store: OpenStore) -> None:
    with FakeHttpEngine() as real:
        store = open_store({}, service=real.url, unknown_buckets="forward")
        with pytest.raises(NotFound):
            store.writer("public-data", "x")
        with pytest.raises(NotFound):
            store.delete("public-data", "x")
        assert real.requests == []


def test_what_a_service_refuses(open_store: OpenStore) -> None:
    with FakeHttpEngine() as real:
        real.on("GET", "/storage/v1/b/private/o/x", error_answer(403, "PERMISSION_DENIED", "no access"))
        real.on("GET", "/storage/v1/b/private/o/y", error_answer(503, "UNAVAILABLE", "try again"))
        real.on("GET", "/storage/v1/b/private/o/z", Answer(200, body=b"<html>"))
        real.on("GET", "/storage/v1/b/private", error_answer(401, "UNAUTHENTICATED", "who are you"))
        store = open_store({}, service=real.url, unknown_buckets="forward")
        with pytest.raises(EngineError, match=r"no access.*without credentials"):
            store.get("private", "x")
        for name in ("y", "z"):
            with pytest.raises(Unavailable):
                store.get("private", name)
        assert store.get_bucket("private").name == "private"
        assert all("authorization" not in request.headers for request in real.requests)


def test_content_that_breaks_off_is_an_error(open_store: OpenStore, service: str, tmp_path: Path) -> None:
    store = open_store({}, service=service, unknown_buckets="forward")
    _, file = store.open_read("public-data", "d/f/g")
    blobs = tmp_path / "service" / "blobs"
    with file:
        shutil.rmtree(blobs)
        with pytest.raises((OSError, EngineError)):
            file.read()


def test_the_proxy_of_the_environment_is_used(open_store: OpenStore) -> None:
    with FakeHttpEngine() as proxy:
        service = Service({"http_proxy": proxy.url}, "http://storage.example")
        with pytest.raises(NotFound):
            service.json("/storage/v1/b/x", {})
        assert len(proxy.requests) == 1
        direct = Service({"http_proxy": proxy.url, "no_proxy": "127.0.0.1"}, NOWHERE)
        with pytest.raises(Unavailable):
            direct.json("/storage/v1/b/x", {})
        assert len(proxy.requests) == 1
