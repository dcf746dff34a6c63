"""Contract tests of listings."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from enginehouse.core.errors import (
    InvalidArgument,
)
from enginehouse.storage.base import (
    ObjectStore,
)
from enginehouse.storage.resource import BASE_URL, object_resource
from enginehouse.testing.storage.helpers import (
    BUCKET,
    StoreFixtures,
    list_entries,
    naive_listing,
    put,
)


class ListingContract(StoreFixtures):
    """A listing tells every name once, in order."""

    def test_listing_agrees_with_a_naive_model(self, store: ObjectStore) -> None:
        dice = random.Random(7)
        names = sorted({"".join(dice.choices("ab/é~", k=dice.randint(1, 6))) for _ in range(120)} - {".", ".."})
        for name in names:
            put(store, name)
        for _ in range(150):
            query: dict[str, Any] = {
                "prefix": "".join(dice.choices("ab/é", k=dice.choice([0, 0, 1, 2]))),
                "delimiter": dice.choice(["", "/", "a/", "é"]),
                "start_offset": "".join(dice.choices("ab/é", k=dice.choice([0, 0, 2]))),
                "end_offset": "".join(dice.choices("ab/é~", k=dice.choice([0, 0, 2]))),
                "include_trailing_delimiter": dice.random() < 0.5,
            }
            max_results = dice.choice([1, 2, 3, 10, 1000])
            found, prefixes, sizes = list_entries(store, max_results=max_results, **query)
            assert (found, prefixes) == naive_listing(names, **query)
            assert max(sizes) <= max(max_results, 2)

    def test_a_page_is_full_and_the_last_has_no_token(self, store: ObjectStore) -> None:
        for i in range(6):
            put(store, f"o{i}")
        assert list_entries(store, max_results=3)[2] == [3, 3]
        assert list_entries(store, max_results=4)[2] == [4, 2]

    def test_a_listing_goes_on_although_objects_come_and_go(self, store: ObjectStore) -> None:
        for i in range(6):
            put(store, f"o{i}")
        page = store.list(BUCKET, max_results=3)
        store.delete(BUCKET, "o3")
        put(store, "o1a")
        put(store, "o31")
        rest = store.list(BUCKET, max_results=10, page_token=page.next_page_token)
        assert [info.name for info in rest.objects] == ["o31", "o4", "o5"]

    def test_the_texts_of_a_listing_are_its_objects_as_they_are(self, store: ObjectStore) -> None:
        def texts(**query: Any) -> list[Any]:
            page = store.list_texts(BUCKET, **query)
            if page is None:
                pytest.skip("the store has no such texts")
            assert page.next_page_token == store.list(BUCKET, **query).next_page_token
            return [json.loads(text.replace(BASE_URL, b"http://h")) for text in page.objects]

        def resources(**query: Any) -> list[Any]:
            return [object_resource(info, "http://h") for info in store.list(BUCKET, **query).objects]

        for name in ('a"selfLink":"', "b\x1f", "c/d e", "c/é", "z"):
            put(store, name)
        for _ in range(2):
            assert texts() == resources()
            assert texts(prefix="c/", max_results=1) == resources(prefix="c/", max_results=1)
            assert texts(start_offset="b", end_offset="c/é") == resources(start_offset="b", end_offset="c/é")
        store.update(BUCKET, "z", lambda old: replace(old, metadata={"selfLink": "\x1f", '"mediaLink":"': "\n"}))
        put(store, "a/new")
        store.delete(BUCKET, "c/é")
        assert texts() == resources()
        with pytest.raises(InvalidArgument):
            store.list_texts(BUCKET, max_results=0)
        assert store.list_texts("no-such-bucket") is None

    def test_a_bad_page_is_refused(self, store: ObjectStore) -> None:
        for token in ("*", "a", "_w"):
            with pytest.raises(InvalidArgument):
                store.list(BUCKET, page_token=token)
        with pytest.raises(InvalidArgument):
            store.list(BUCKET, max_results=0)
