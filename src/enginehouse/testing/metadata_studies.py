"""The part of the metadata store's contract tests that is about studies; `MetadataStoreContract` has it."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import pytest

from enginehouse.core.errors import AlreadyExists, NotFound
from enginehouse.core.names import LocationOperationName, StudyName
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import (
    LocationOperationRecord,
    NewEvent,
    StudyChange,
    StudyRecord,
    TrialRecord,
)

STUDY = StudyName("demo", "us-central1", "s")


def make_study(name: StudyName = STUDY) -> StudyRecord:
    return StudyRecord(name=name, config={"metrics": []}, create_time_ns=1, seed=7)


def make_operation(operation_id: str, create_time_ns: int = 1) -> LocationOperationRecord:
    name = LocationOperationName("demo", "us-central1", operation_id)
    return LocationOperationRecord(name, {"name": str(name), "done": True}, create_time_ns)


def add_trial(study: StudyRecord, _trials: list[TrialRecord]) -> StudyChange:
    trial = TrialRecord(STUDY.trial(study.next_trial_id), "ACTIVE", [{"parameter": "x", "floatValue": 0.5}], 1)
    return StudyChange(replace(study, next_trial_id=study.next_trial_id + 1), [trial])


class StudyStoreContract:
    """What every metadata store does with studies; see `metadata.base.StudyStore`."""

    def test_studies_belong_to_their_location(self, store: MetadataStore) -> None:
        other = make_study(StudyName("demo", "us-east1", "s"))
        assert store.create_study(make_study()) == store.get_study(STUDY) == make_study()
        store.create_study(other)
        assert store.list_studies("demo", "us-east1") == [other]
        assert store.list_studies("another", "us-east1") == []
        with pytest.raises(AlreadyExists):
            store.create_study(make_study())

    def test_a_study_goes_with_its_trials_and_ids_are_never_used_twice(self, store: MetadataStore) -> None:
        store.create_study(make_study())
        for _ in range(2):
            store.change_study(STUDY, add_trial)
        store.delete_trial(STUDY.trial(2))
        store.change_study(STUDY, add_trial)
        assert [trial.name.trial_id for trial in store.list_trials(STUDY)] == [1, 3]
        store.delete_study(STUDY)
        for missing in (
            lambda: store.get_study(STUDY),
            lambda: store.delete_study(STUDY),
            lambda: store.list_trials(STUDY),
            lambda: store.change_study(STUDY, add_trial),
            lambda: store.get_trial(STUDY.trial(1)),
            lambda: store.delete_trial(STUDY.trial(1)),
        ):
            with pytest.raises(NotFound):
                missing()

    def test_trials_that_are_added_at_once_get_ids_of_their_own(self, store: MetadataStore) -> None:
        store.create_study(make_study())
        threads = [threading.Thread(target=store.change_study, args=(STUDY, add_trial)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [trial.name.trial_id for trial in store.list_trials(STUDY)] == list(range(1, 9))
        assert store.get_study(STUDY).revision == 9

    def test_a_refused_change_leaves_everything(self, store: MetadataStore) -> None:
        store.create_study(make_study())
        store.change_study(STUDY, add_trial)

        store.change_study(STUDY, add_trial)
        store.change_trial(STUDY.trial(1), lambda trial: (replace(trial, state="COMPLETED"), []))

        def refuse(study: StudyRecord, unfinished: list[TrialRecord]) -> StudyChange:
            assert (study.next_trial_id, [trial.name.trial_id for trial in unfinished]) == (3, [2])
            raise NotFound("no")

        with pytest.raises(NotFound):
            store.change_study(STUDY, refuse)
        assert store.get_study(STUDY).revision == 3

    def test_a_trial_is_changed_with_its_events_and_operation(self, store: MetadataStore) -> None:
        store.create_study(make_study())
        store.change_study(STUDY, add_trial)
        name = STUDY.trial(1)
        ended = store.change_trial(
            name,
            lambda trial: (
                replace(trial, state="COMPLETED", measurements=[{"stepCount": "1"}], final_measurement={"a": 1}),
                [NewEvent("decision", "because")],
            ),
            operation=make_operation("o"),
        )
        assert store.get_trial(name) == ended
        assert (ended.state, ended.revision) == ("COMPLETED", 2)
        assert [event.message for event in store.events(str(name))] == ["because"]
        assert store.get_location_operation(make_operation("o").name) == make_operation("o")
        assert store.change_trial(name, lambda trial: None) == ended

    def test_operations_are_forgotten_after_a_week(self, store: MetadataStore) -> None:
        store.create_study(make_study())
        day_ns = 86_400 * 10**9
        for day in (1, 6, 9):
            store.change_study(STUDY, partial(_note, make_operation(str(day), day * day_ns)))
        assert store.get_location_operation(make_operation("6").name).message["done"]
        with pytest.raises(NotFound):
            store.get_location_operation(make_operation("1").name)


def _note(operation: LocationOperationRecord, study: StudyRecord, _trials: list[TrialRecord]) -> StudyChange:
    return StudyChange(study, operation=operation)
