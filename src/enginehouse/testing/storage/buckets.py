"""Contract tests of buckets."""

from __future__ import annotations

import pytest

from enginehouse.core.errors import (
    AlreadyExists,
    ConditionNotMet,
    InvalidArgument,
    NotEmpty,
    NotFound,
)
from enginehouse.storage.base import (
    ComposeSource,
    ObjectStore,
    Preconditions,
)
from enginehouse.testing.storage.helpers import (
    BUCKET,
    StoreFixtures,
    put,
)


class BucketContract(StoreFixtures):
    """Buckets are made once, listed, changed and deleted when empty."""

    def test_a_bucket_is_made_once_whoever_asks(self, store: ObjectStore) -> None:
        made = store.create_bucket(
            "other-bucket", project="p", location="EU", storage_class="NEARLINE", labels={"team": "a"}
        )
        assert store.get_bucket("other-bucket") == made
        assert (made.project, made.location, made.storage_class, made.labels) == (
            "p",
            "EU",
            "NEARLINE",
            {"team": "a"},
        )
        with pytest.raises(AlreadyExists):
            store.create_bucket("other-bucket", project="another")

    def test_buckets_are_listed_by_name_for_their_project_or_nobodys(self, store: ObjectStore) -> None:
        store.create_bucket("b-of-q", project="q")
        store.create_bucket("a-of-p", project="p")
        names = {project: [b.name for b in store.list_buckets(project=project)] for project in ("", "p", "q")}
        assert names == {
            "": ["a-of-p", "b-of-q", BUCKET],
            "p": ["a-of-p", BUCKET],
            "q": ["b-of-q", BUCKET],
        }
        assert [b.name for b in store.list_buckets(prefix="a-")] == ["a-of-p"]

    def test_a_bucket_is_deleted_only_when_empty(self, store: ObjectStore) -> None:
        put(store, "x")
        with pytest.raises(NotEmpty):
            store.delete_bucket(BUCKET)
        store.delete(BUCKET, "x")
        store.delete_bucket(BUCKET)
        with pytest.raises(NotFound):
            store.get_bucket(BUCKET)
        with pytest.raises(NotFound):
            store.delete_bucket(BUCKET)

    def test_a_bucket_changes_under_its_preconditions(self, store: ObjectStore) -> None:
        changed = store.update_bucket(
            BUCKET, labels={"a": "1"}, preconditions=Preconditions(if_metageneration_match=1)
        )
        assert (changed.labels, changed.metageneration, changed.storage_class) == ({"a": "1"}, 2, "STANDARD")
        assert store.update_bucket(BUCKET, storage_class="ARCHIVE").labels == {"a": "1"}
        with pytest.raises(ConditionNotMet):
            store.delete_bucket(BUCKET, preconditions=Preconditions(if_metageneration_match=2))
        assert store.get_bucket(BUCKET).metageneration == 3

    @pytest.mark.parametrize("name", ["", "ab", "Upper", "a/b", "../up", "a..b", "-ab", "x" * 300])
    def test_a_bad_bucket_name_is_refused(self, store: ObjectStore, name: str) -> None:
        with pytest.raises(InvalidArgument):
            store.create_bucket(name)

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        for bucket in (BUCKET, "no-such-bucket"):
            with pytest.raises(NotFound):
                store.get(bucket, "x")
            with pytest.raises(NotFound):
                store.open_read(bucket, "x")
            with pytest.raises(NotFound):
                store.delete(bucket, "x")
            with pytest.raises(NotFound):
                store.update(bucket, "x", lambda old: old)
            with pytest.raises(NotFound):
                store.copy(bucket, "x", BUCKET, "y")
            with pytest.raises(NotFound):
                store.compose(bucket, "y", [ComposeSource("x")])
        with pytest.raises(NotFound):
            store.writer("no-such-bucket", "x")
        with pytest.raises(NotFound):
            store.list("no-such-bucket")
        with pytest.raises(NotFound):
            store.move(BUCKET, "x", "y")
