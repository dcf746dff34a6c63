"""Contract tests of the short way to the local disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginehouse.core.errors import (
    InvalidArgument,
    NotFound,
)
from enginehouse.storage.base import (
    ObjectStore,
)
from enginehouse.testing.storage.helpers import (
    BUCKET,
    StoreFixtures,
    put,
)


class ExportContract(StoreFixtures):
    """Objects become files inside the directory, or nothing is written."""

    @pytest.mark.parametrize("link", [True, False])
    def test_a_folder_is_exported(self, store: ObjectStore, tmp_path: Path, link: bool) -> None:
        for name in ("m/v1/model.bin", "m/v1/variables/data", "m/v1/empty/", "m/v1/", "m/v10", "m/v10/other"):
            put(store, name, name.encode())
        target = tmp_path / "out"
        (target / "variables").mkdir(parents=True)
        (target / "variables" / "data").write_text("from before")
        (target / "kept").write_text("kept")
        for prefix in ("m/v1", "m/v1/"):
            done = store.export(BUCKET, prefix, target, link=link)
            assert [info.name for info in done] == ["m/v1/empty/", "m/v1/model.bin", "m/v1/variables/data"]
            files = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
            assert files == {
                "kept": "kept",
                "model.bin": "m/v1/model.bin",
                "variables/data": "m/v1/variables/data",
            }
            assert (target / "empty").is_dir()
        put(store, "m/v1/model.bin", b"new")
        assert (target / "model.bin").read_text() == "m/v1/model.bin"

    def test_a_whole_bucket_is_exported(self, store: ObjectStore, tmp_path: Path) -> None:
        for name in ("a", "b/c"):
            put(store, name, name.encode())
        assert len(store.export(BUCKET, "", tmp_path / "out")) == 2
        assert (tmp_path / "out" / "b" / "c").read_text() == "b/c"
        with pytest.raises(NotFound):
            store.export("no-such-bucket", "", tmp_path / "out")

    @pytest.mark.parametrize(
        "name", ["f/../../up", "f/..", "f//absolute", "f/a//b", "f/./b", "f/a/../../../up", "f/" + "x" * 256]
    )
    def test_no_object_is_exported_out_of_the_directory(self, store: ObjectStore, tmp_path: Path, name: str) -> None:
        put(store, "f/good", b"good")
        put(store, name, b"evil")
        with pytest.raises(InvalidArgument):
            store.export(BUCKET, "f", tmp_path / "deep" / "out")
        assert not any(path.is_file() for path in tmp_path.glob("deep/**/*"))
        assert not (tmp_path / "up").exists() and not (tmp_path / "deep" / "up").exists()

    def test_names_that_exclude_each_other_are_not_exported(self, store: ObjectStore, tmp_path: Path) -> None:
        put(store, "f/a")
        put(store, "f/a/b")
        with pytest.raises(InvalidArgument):
            store.export(BUCKET, "f", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_no_link_in_the_directory_leads_an_export_out(self, store: ObjectStore, tmp_path: Path) -> None:
        put(store, "f/trap/file", b"evil")
        (tmp_path / "out").mkdir()
        (tmp_path / "victim").mkdir()
        (tmp_path / "out" / "trap").symlink_to(tmp_path / "victim")
        with pytest.raises(InvalidArgument):
            store.export(BUCKET, "f", tmp_path / "out")
        assert list((tmp_path / "victim").iterdir()) == []

    def test_what_is_in_the_way_of_an_export_is_told(self, store: ObjectStore, tmp_path: Path) -> None:
        put(store, "f/a/b")
        put(store, "g/a")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").write_text("a file")
        with pytest.raises(InvalidArgument):
            store.export(BUCKET, "f", tmp_path / "out")
        (tmp_path / "out2" / "a").mkdir(parents=True)
        with pytest.raises(InvalidArgument):
            store.export(BUCKET, "g", tmp_path / "out2")

    def test_a_local_path_has_the_content_if_there_is_one(self, store: ObjectStore) -> None:
        put(store, "x", b"data")
        path = store.local_path(BUCKET, "x")
        assert path is None or path.read_bytes() == b"data"
        with pytest.raises(NotFound):
            store.local_path(BUCKET, "y")
