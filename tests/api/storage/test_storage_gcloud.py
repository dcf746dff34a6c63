"""The real `gcloud storage` against the API, told nothing but where it is."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import list_all, put, read

pytestmark = pytest.mark.skipif(shutil.which("gcloud") is None, reason="the Google Cloud SDK is not installed")

BUCKET = "gcloud-bucket"
URI = f"gs://{BUCKET}"
TIMEOUT_S = 120

Gcloud = Callable[..., str]


@pytest.fixture
def gcloud(url: str, tmp_path: Path) -> Gcloud:
    """Runs `gcloud storage …` and gives what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ |= {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_PROJECT": "demo",
    }

    def run(*arguments: object) -> str:
        command = ["gcloud", "storage", *map(str, arguments)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two files, one of them in a directory."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("hello\n")
    (tree / "sub" / "b.txt").write_text("x")
    return tree


def test_buckets(gcloud: Gcloud) -> None:
    gcloud("buckets", "create", URI)
    assert f"name: {BUCKET}" in gcloud("buckets", "list")
    assert "location: US" in gcloud("buckets", "describe", URI)
    assert gcloud("ls").split() == [f"{URI}/"]
    gcloud("buckets", "delete", URI)
    assert gcloud("buckets", "list") == ""


@pytest.mark.parametrize("size", [1, 9 * 1024 * 1024])
def test_a_file_goes_up_and_comes_back(gcloud: Gcloud, store: LocalObjectStore, tmp_path: Path, size: int) -> None:
    """The larger one takes a resumable upload."""
    store.create_bucket(BUCKET)
    (tmp_path / "up").write_bytes(os.urandom(size))
    gcloud("cp", tmp_path / "up", f"{URI}/d/file")
    assert f"size: {size}" in gcloud("objects", "describe", f"{URI}/d/file")
    gcloud("cp", f"{URI}/d/file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_a_tree_goes_up_is_shown_and_comes_back(
    gcloud: Gcloud, store: LocalObjectStore, tree: Path, tmp_path: Path
) -> None:
    store.create_bucket(BUCKET)
    gcloud("cp", "-r", tree, URI)
    assert list_all(store, bucket=BUCKET) == ["tree/a.txt", "tree/sub/b.txt"]
    assert gcloud("ls", f"{URI}/tree").split() == [f"{URI}/tree/a.txt", f"{URI}/tree/sub/"]
    assert "Hash (MD5):" in gcloud("ls", "-L", f"{URI}/tree/a.txt")
    assert gcloud("du", "-s", URI).split() == ["7", URI]
    assert gcloud("cat", f"{URI}/tree/a.txt") == "hello\n"
    (tmp_path / "down").mkdir()
    gcloud("cp", "-r", f"{URI}/tree", tmp_path / "down")
    assert (tmp_path / "down" / "tree" / "sub" / "b.txt").read_text() == "x"


def test_objects_are_moved_changed_and_removed(gcloud: Gcloud, store: LocalObjectStore) -> None:
    store.create_bucket(BUCKET)
    for name in ("a", "d/b", "d/c"):
        put(store, name, b"1", bucket=BUCKET)
    gcloud("mv", f"{URI}/a", f"{URI}/z")
    gcloud("objects", "update", f"{URI}/z", "--custom-metadata=k=v")
    assert store.get(BUCKET, "z").metadata == {"k": "v"}
    gcloud("rm", "-r", f"{URI}/d")
    assert list_all(store, bucket=BUCKET) == ["z"]
    gcloud("rm", "-r", URI)
    assert store.list_buckets() == []


def test_a_tree_is_mirrored(gcloud: Gcloud, store: LocalObjectStore, tree: Path) -> None:
    store.create_bucket(BUCKET)
    rsync = ("rsync", "-r", "--delete-unmatched-destination-objects", tree, f"{URI}/m")
    gcloud(*rsync)
    (tree / "a.txt").unlink()
    (tree / "sub" / "b.txt").write_text("longer")
    gcloud(*rsync)
    assert list_all(store, bucket=BUCKET) == ["m/sub/b.txt"]
    assert read(store, "m/sub/b.txt", bucket=BUCKET) == b"longer"
    before = store.get(BUCKET, "m/sub/b.txt").generation
    gcloud(*rsync)
    assert store.get(BUCKET, "m/sub/b.txt").generation == before
