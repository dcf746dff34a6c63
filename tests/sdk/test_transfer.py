"""cp and rsync: plans and their execution."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.sync import plan_sync
from enginehouse.sdk.transfer import below, plan_copy, run_copies


def put(storage: Storage, *names: str) -> None:
    for name in names:
        storage.upload(io.BytesIO(name.encode()), ObjectUri("bkt", name))


def names(storage: Storage, prefix: str = "") -> list[str]:
    return [each.uri.name for each in storage.list("bkt", prefix)]


def copy(storage: Storage, *sources: str | Path, to: str | Path, recursive: bool = False) -> None:
    copies = plan_copy(storage, [str(source) for source in sources], str(to), recursive=recursive)
    assert run_copies(storage, copies) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a.csv").write_text("a")
    (root / "b.csv").write_text("b")
    (root / "sub" / "c.csv").write_text("c")
    return root


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("gs://bkt", "a.csv"),
        ("gs://bkt/", "a.csv"),
        ("gs://bkt/d/", "d/a.csv"),
        ("gs://bkt/new", "new"),
        ("gs://bkt/old", "old/a.csv"),
    ],
)
def test_one_file_up(storage: Storage, folder: Path, target: str, expected: str) -> None:
    put(storage, "old/x")
    copy(storage, folder / "a.csv", to=target)
    assert expected in names(storage)


def test_several_files_and_local_wildcards(storage: Storage, folder: Path) -> None:
    copy(storage, folder / "a.csv", folder / "b.csv", to="gs://bkt/new")
    copy(storage, folder / "*.csv", to="gs://bkt/wild")
    assert names(storage) == ["new/a.csv", "new/b.csv", "wild/a.csv", "wild/b.csv"]


def test_a_folder_up_keeps_its_name_below_a_folder_and_takes_a_new_one_else(storage: Storage, folder: Path) -> None:
    copy(storage, folder, to="gs://bkt/into/", recursive=True)
    copy(storage, folder, to="gs://bkt/renamed", recursive=True)
    assert names(storage, "into/") == ["into/data/a.csv", "into/data/b.csv", "into/data/sub/c.csv"]
    assert names(storage, "renamed/") == ["renamed/a.csv", "renamed/b.csv", "renamed/sub/c.csv"]


def test_a_prefix_down(storage: Storage, tmp_path: Path) -> None:
    put(storage, "d/a", "d/e/b", "d/")
    copy(storage, "gs://bkt/d", to=tmp_path, recursive=True)
    assert (tmp_path / "d/e/b").read_text() == "d/e/b"
    copy(storage, "gs://bkt/d", to=tmp_path / "renamed", recursive=True)
    assert (tmp_path / "renamed/a").read_text() == "d/a"


def test_a_bucket_to_a_bucket(storage: Storage) -> None:
    put(storage, "d/a", "d//b")
    storage.create_bucket("other")
    copy(storage, "gs://bkt/d", to="gs://other/", recursive=True)
    assert [each.uri.name for each in storage.list("other")] == ["d//b", "d/a"]


def test_one_object_down_under_a_name(storage: Storage, tmp_path: Path) -> None:
    put(storage, "d/a")
    copy(storage, "gs://bkt/d/a", to=tmp_path / "new.txt")
    assert (tmp_path / "new.txt").read_text() == "d/a"


def test_remote_wildcards_leave_folders_alone_without_r(storage: Storage, tmp_path: Path) -> None:
    put(storage, "x1", "x2", "xd/y")
    copy(storage, "gs://bkt/x*", to=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x1", "x2"]


def test_two_sources_for_one_target_are_refused_before_any_copy(storage: Storage, tmp_path: Path) -> None:
    put(storage, "d/a", "e/a")
    with pytest.raises(InvalidArgument, match="would both become"):
        copy(storage, "gs://bkt/**", to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("gs://bkt/d", InvalidArgument, "add -r"),
        ("{folder}", InvalidArgument, "add -r"),
        ("gs://bkt/none", NotFound, "matches no objects"),
        ("{folder}/none", NotFound, "no file"),
    ],
)
def test_refusals(storage: Storage, folder: Path, source: str, kind: type[Exception], message: str) -> None:
    put(storage, "d/a")
    with pytest.raises(kind, match=message):
        copy(storage, source.format(folder=folder), to="gs://bkt/target")


def test_a_missing_target_bucket_is_told_before_any_copy(storage: Storage, folder: Path) -> None:
    with pytest.raises(NotFound):
        copy(storage, folder / "a.csv", to="gs://missing")


def test_many_things_into_a_file(storage: Storage, folder: Path) -> None:
    put(storage, "x", "y")
    with pytest.raises(InvalidArgument, match="name a folder"):
        copy(storage, "gs://bkt/*", to=folder / "a.csv")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//x", "a/./x", ""])
def test_an_object_never_leaves_the_target_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="can't be a local file"):
        below(tmp_path, name)


def test_one_failure_does_not_stop_the_others(storage: Storage, tmp_path: Path) -> None:
    put(storage, "a", "b", "c")
    copies = plan_copy(storage, ["gs://bkt/*"], f"{tmp_path}/out/", recursive=False)
    storage.delete(ObjectUri("bkt", "b"))
    done: list[str] = []
    failures = run_copies(storage, copies, on_done=lambda each: done.append(each.source_text))
    assert [failure.copy.source_text for failure in failures] == ["gs://bkt/b"]
    assert isinstance(failures[0].error, NotFound)
    assert sorted(done) == ["gs://bkt/a", "gs://bkt/c"]


def test_local_to_local_is_refused(storage: Storage, folder: Path, tmp_path: Path) -> None:
    copies = plan_copy(storage, [str(folder / "a.csv")], str(tmp_path / "x"), recursive=False)
    failures = run_copies(storage, copies)
    assert "both local" in str(failures[0].error)


class TestSync:
    def test_up_then_nothing_then_only_what_changed(self, storage: Storage, folder: Path) -> None:
        plan = plan_sync(storage, str(folder), "gs://bkt/d", recursive=True, delete=False)
        assert run_copies(storage, plan.copies) == []
        assert names(storage) == ["d/a.csv", "d/b.csv", "d/sub/c.csv"]

        again = plan_sync(storage, str(folder), "gs://bkt/d", recursive=True, delete=False)
        assert (again.copies, again.unchanged) == ([], 3)

        (folder / "a.csv").write_text("A")  # same size, other bytes
        (folder / "b.csv").write_text("longer")
        changed = plan_sync(storage, str(folder), "gs://bkt/d", recursive=True, delete=False)
        assert sorted(each.source_text for each in changed.copies) == [str(folder / "a.csv"), str(folder / "b.csv")]

    def test_delete_goes_by_the_source(self, storage: Storage, folder: Path) -> None:
        put(storage, "d/a.csv", "d/extra", "d/sub/extra", "elsewhere")
        plan = plan_sync(storage, str(folder), "gs://bkt/d", recursive=True, delete=True)
        assert sorted(map(str, plan.deletions)) == ["gs://bkt/d/extra", "gs://bkt/d/sub/extra"]
        flat = plan_sync(storage, str(folder), "gs://bkt/d", recursive=False, delete=True)
        assert list(map(str, flat.deletions)) == ["gs://bkt/d/extra"]

    def test_down_into_a_new_folder(self, storage: Storage, tmp_path: Path) -> None:
        put(storage, "d/a", "d/e/b")
        plan = plan_sync(storage, "gs://bkt/d", str(tmp_path / "new"), recursive=True, delete=False)
        assert run_copies(storage, plan.copies) == []
        assert (tmp_path / "new/e/b").read_text() == "d/e/b"

    def test_bucket_to_bucket(self, storage: Storage) -> None:
        put(storage, "d/a", "d/b")
        storage.create_bucket("other")
        plan = plan_sync(storage, "gs://bkt/d", "gs://other", recursive=True, delete=True)
        assert run_copies(storage, plan.copies) == []
        again = plan_sync(storage, "gs://bkt/d", "gs://other", recursive=True, delete=True)
        assert (again.copies, again.deletions, again.unchanged) == ([], [], 2)

    def test_excluded_names_are_left_alone_on_both_sides(self, storage: Storage, folder: Path) -> None:
        put(storage, "d/keep.tmp")
        plan = plan_sync(
            storage,
            str(folder),
            "gs://bkt/d",
            recursive=True,
            delete=True,
            exclude=lambda name: not name.endswith(".csv"),
        )
        assert plan.deletions == []
        assert len(plan.copies) == 3

    def test_refusals(self, storage: Storage, folder: Path) -> None:
        with pytest.raises(NotFound, match="no folder"):
            plan_sync(storage, "/no/such/folder", "gs://bkt", recursive=True, delete=False)
        with pytest.raises(InvalidArgument, match="Both folders are local"):
            plan_sync(storage, str(folder), "/tmp/x", recursive=True, delete=False)
        with pytest.raises(NotFound):
            plan_sync(storage, "gs://missing", "gs://bkt", recursive=True, delete=False)
