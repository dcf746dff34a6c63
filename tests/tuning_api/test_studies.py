"""The service of studies on a real store, with a policy that is easy to foresee."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from enginehouse.core.errors import AlreadyExists, EngineError, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import LocationOperationName, StudyName
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.schemas import optimizer as messages
from enginehouse.schemas.ml_v1 import Operation
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.testing.clock import FakeClock
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.service import StudyService

NAME = StudyName("demo", "us-central1", "s")
CONFIG = {
    "metrics": [{"metric": "acc", "goal": "MAXIMIZE"}, {"metric": "cost", "goal": "MINIMIZE"}],
    "parameters": [
        {"parameter": "x", "type": "DOUBLE", "doubleValueSpec": {"minValue": 0, "maxValue": 9}},
        {
            "parameter": "model",
            "type": "CATEGORICAL",
            "categoricalValueSpec": {"values": ["linear", "deep"]},
            "childParameterSpecs": [
                {
                    "parameter": "layers",
                    "type": "INTEGER",
                    "integerValueSpec": {"minValue": "1", "maxValue": "3"},
                    "parentCategoricalValues": {"values": ["deep"]},
                }
            ],
        },
    ],
}


class Counting:
    """Suggests x = 0, 1, 2… and knows ten of them; stops trials that are below a half."""

    def check(self, config: messages.StudyConfig) -> None:
        pass

    def suggest(
        self, study: StudyRecord, trials: Sequence[TrialRecord], count: int
    ) -> list[list[messages.TrialParameter]]:
        first = study.next_trial_id - 1
        return [
            [
                messages.TrialParameter(parameter="x", float_value=float(x)),
                messages.TrialParameter(parameter="model", string_value="linear"),
            ]
            for x in range(first, min(first + count, 10))
        ]

    def should_stop(self, study: StudyRecord, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
        values = [metric["value"] for measurement in trial.measurements for metric in measurement["metrics"]]
        return StopDecision(bool(values) and max(values) < 0.5, f"best of {len(trials)}")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], StudyService]]:
    """Opens the store, again and again, as engines do that are killed and started."""
    stores: list[SqlMetadataStore] = []

    def open_service() -> StudyService:
        stores.append(SqlMetadataStore.open_sqlite(tmp_path / "metadata.sqlite3", FakeClock()))
        return StudyService(stores[-1], Counting(), FakeClock())

    yield open_service
    for store in stores:
        store.close()


@pytest.fixture
def studies(opened: Callable[[], StudyService]) -> StudyService:
    service = opened()
    service.create(NAME, study())
    return service


def study(**changes: Any) -> messages.Study:
    return from_builtins(messages.Study, {"studyConfig": {**CONFIG, **changes}})


def measurement(acc: float | None = None, cost: float | None = None, step: int = 0) -> messages.Measurement:
    given = {"acc": acc, "cost": cost}
    metrics = [messages.MeasurementMetric(metric=n, value=v) for n, v in given.items() if v is not None]
    return from_builtins(
        messages.Measurement, {"stepCount": str(step), "metrics": [to_builtins(metric) for metric in metrics]}
    )


def suggest(studies: StudyService, client: str, count: int = 1) -> list[dict[str, Any]]:
    operation = studies.suggest(NAME, messages.SuggestTrialsRequest(suggestion_count=count, client_id=client))
    assert operation.done and operation.response is not None
    trials: list[dict[str, Any]] = operation.response.get("trials", [])
    return trials


def ids(trials: list[dict[str, Any]]) -> list[int]:
    return [int(trial["name"].rpartition("/")[2]) for trial in trials]


def report(studies: StudyService, trial_id: int, *measurements: messages.Measurement) -> messages.Trial:
    for each in measurements:
        trial = studies.add_measurement(NAME.trial(trial_id), messages.AddTrialMeasurementRequest(measurement=each))
    return trial


def complete(studies: StudyService, trial_id: int, **request: Any) -> messages.Trial:
    return studies.complete(NAME.trial(trial_id), messages.CompleteTrialRequest(**request))


# --- studies ---


def test_a_study_is_made_once_however_often_it_is_asked_for(studies: StudyService) -> None:
    made = studies.create(NAME, study())
    assert (made.name, made.state) == (str(NAME), "ACTIVE")
    assert made == studies.get(NAME)
    assert studies.list("demo", "us-central1").studies == [made]
    with pytest.raises(AlreadyExists):
        studies.create(NAME, study(algorithm="RANDOM_SEARCH"))
    studies.delete(NAME)
    assert studies.list("demo", "us-central1").studies == []


def _parameter(**fields: Any) -> dict[str, Any]:
    return {"parameters": [{"parameter": "p", **fields}]}


CHILD = {"parameter": "c", "type": "CATEGORICAL", "categoricalValueSpec": {"values": ["a"]}}
NUMBERS = {"type": "INTEGER", "integerValueSpec": {"minValue": "1", "maxValue": "3"}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"metrics": []}, "metrics"),
        ({"metrics": [{"metric": "a"}]}, "metrics[0].goal"),
        ({"metrics": [{"metric": "a", "goal": "MAXIMIZE"}] * 2}, "metrics[0].metric"),
        ({"parameters": []}, "parameters"),
        ({"parameters": CONFIG["parameters"] * 2}, "parameters[0].parameter"),
        ({"parameters": [{"parameter": str(n)} for n in range(201)]}, "parameters"),
        (_parameter(), "parameters[0].type"),
        (_parameter(type="DOUBLE"), "parameters[0].double_value_spec"),
        (_parameter(**NUMBERS, doubleValueSpec={}), "parameters[0].double_value_spec"),
        (
            _parameter(type="DOUBLE", doubleValueSpec={"minValue": 2, "maxValue": 1}),
            "parameters[0].double_value_spec",
        ),
        (
            _parameter(type="DOUBLE", doubleValueSpec={"minValue": 0, "maxValue": "NaN"}),
            "parameters[0].double_value_spec",
        ),
        (
            _parameter(type="DISCRETE", discreteValueSpec={"values": [1, 1]}),
            "parameters[0].discrete_value_spec.values",
        ),
        (
            _parameter(type="CATEGORICAL", categoricalValueSpec={"values": []}),
            "parameters[0].categorical_value_spec.values",
        ),
        (
            _parameter(type="CATEGORICAL", categoricalValueSpec={"values": ["a"]}, scaleType="UNIT_LOG_SCALE"),
            "parameters[0].scale_type",
        ),
        (
            _parameter(
                type="DOUBLE", doubleValueSpec={"minValue": 0, "maxValue": 1}, scaleType="UNIT_REVERSE_LOG_SCALE"
            ),
            "parameters[0].scale_type",
        ),
        (_parameter(**NUMBERS, parentIntValues={"values": ["1"]}), "parameters[0].parent_int_values"),
        (
            _parameter(**NUMBERS, childParameterSpecs=[{**CHILD, "parentIntValues": {"values": ["4"]}}]),
            "parameters[0].child_parameter_specs[0].parent_int_values",
        ),
        (
            _parameter(**NUMBERS, childParameterSpecs=[{**CHILD, "parentIntValues": {"values": ["1", "2"]}}] * 2),
            "parameters[0].child_parameter_specs[0].parameter",
        ),
        (
            _parameter(type="DOUBLE", doubleValueSpec={"minValue": 0, "maxValue": 1}, childParameterSpecs=[CHILD]),
            "parameters[0].child_parameter_specs",
        ),
        ({"algorithm": "GRID_SEARCH"}, "parameters[0].type"),
        ({"automatedStoppingConfig": {}}, "automated_stopping_config"),
    ],
)
def test_a_wrong_configuration_names_its_field(studies: StudyService, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        studies.create(StudyName("demo", "us-central1", "other"), study(**changes))
    assert error.value.field == f"study.study_config.{field}"


def test_children_of_one_name_may_have_parents_that_exclude_each_other(studies: StudyService) -> None:
    one, two = ({**CHILD, "parentIntValues": {"values": [value]}} for value in ("1", "2"))
    name = StudyName("demo", "us-central1", "other")
    studies.create(name, study(**_parameter(**NUMBERS, childParameterSpecs=[one, two])))
    beside = {"parameter": "q", **NUMBERS, "childParameterSpecs": [one]}
    with pytest.raises(InvalidArgument, match="at the same time"):
        both = [*_parameter(**NUMBERS, childParameterSpecs=[one])["parameters"], beside]
        studies.create(StudyName("demo", "us-central1", "third"), study(parameters=both))


# --- suggestions ---


def test_a_client_gets_its_own_trials_again_until_it_completes_them(studies: StudyService) -> None:
    first = suggest(studies, "a")
    assert (ids(first), first[0]["state"], first[0]["clientId"]) == ([1], "ACTIVE", "a")
    assert first[0]["parameters"] == [
        {"parameter": "x", "floatValue": 0.0},
        {"parameter": "model", "stringValue": "linear"},
    ]
    assert suggest(studies, "a") == first
    assert ids(suggest(studies, "b", 2)) == [2, 3]
    assert ids(suggest(studies, "a", 3)) == [1, 4, 5]
    assert ids(suggest(studies, "b")) == [2]
    complete(studies, 1, final_measurement=measurement(0.5, 1.0))
    assert ids(suggest(studies, "a")) == [4]


def test_a_restart_in_the_middle_gives_the_same_study(opened: Callable[[], StudyService]) -> None:
    opened().create(NAME, study())
    before = suggest(opened(), "a", 2)
    report(opened(), 1, measurement(0.5, 1.0, step=1))
    report(opened(), 1, measurement(0.5, 1.0, step=1))
    assert suggest(opened(), "a", 2)[1] == before[1]
    trial = opened().get_trial(NAME.trial(1))
    assert trial.measurements == [measurement(0.5, 1.0, step=1)]
    assert complete(opened(), 1) == complete(opened(), 1)
    assert ids(suggest(opened(), "a", 2)) == [2, 3]


def test_a_space_that_is_exhausted_completes_the_study(studies: StudyService) -> None:
    assert len(suggest(studies, "a", 12)) == 10
    done = studies.get(NAME)
    assert (done.state, done.inactive_reason) == ("COMPLETED", "The search space is exhausted.")
    assert len(suggest(studies, "a", 12)) == 10
    with pytest.raises(FailedPrecondition, match="exhausted"):
        suggest(studies, "b")


@pytest.mark.parametrize(
    ("count", "client", "field"), [(0, "a", "suggestion_count"), (101, "a", "suggestion_count"), (1, "", "client_id")]
)
def test_a_wrong_request_for_suggestions(studies: StudyService, count: int, client: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        suggest(studies, client, count)
    assert error.value.field == field


def test_an_operation_is_kept(studies: StudyService) -> None:
    operation = studies.suggest(NAME, messages.SuggestTrialsRequest(suggestion_count=1, client_id="a"))
    name = LocationOperationName(*operation.name.split("/")[1::2])
    assert studies.get_operation(name) == operation
    assert operation.metadata == {
        "@type": "type.googleapis.com/google.cloud.ml.v1.SuggestTrialsMetadata",
        "study": str(NAME),
        "createTime": operation.metadata["createTime"],
        "suggestionCount": 1,
        "clientId": "a",
    }
    assert operation.response is not None
    assert operation.response["@type"].endswith(".SuggestTrialsResponse")
    assert operation.response["studyState"] == "ACTIVE"


# --- trials of users ---


def trial(**fields: Any) -> messages.Trial:
    parameters = [
        {"parameter": "x", "floatValue": 4.5},
        {"parameter": "model", "stringValue": "deep"},
        {"parameter": "layers", "intValue": "2"},
    ]
    return from_builtins(messages.Trial, {"parameters": parameters, **fields})


def test_a_trial_of_a_user_is_suggested_before_new_ones(studies: StudyService) -> None:
    assert studies.create_trial(NAME, trial()).state == "REQUESTED"
    (given,) = suggest(studies, "a")
    assert (ids([given]), given["state"], given["parameters"][2]) == (
        [1],
        "ACTIVE",
        {"parameter": "layers", "intValue": "2"},
    )


def test_a_trial_of_a_user_may_be_complete(studies: StudyService) -> None:
    final = to_builtins(measurement(0.5, 1.0, step=9))
    made = studies.create_trial(NAME, trial(finalMeasurement=final))
    assert (made.state, made.final_measurement) == ("COMPLETED", measurement(0.5, 1.0, step=9))
    made = studies.create_trial(NAME, trial(state="COMPLETED", measurements=[final]))
    assert made.final_measurement == measurement(0.5, 1.0, step=9)
    with pytest.raises(FailedPrecondition, match="No measurement"):
        studies.create_trial(NAME, trial(state="COMPLETED"))
    assert len(studies.list_trials(NAME).trials) == 2


def test_a_create_under_a_callers_name_is_done_once(studies: StudyService) -> None:
    assert studies.create_trial(NAME, trial(), "me") == studies.create_trial(NAME, trial(), "me")
    assert len(studies.list_trials(NAME).trials) == 1
    studies.create_trial(NAME, trial())
    studies.create_trial(NAME, trial())
    assert len(studies.list_trials(NAME).trials) == 3


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        [{"parameter": "x", "floatValue": 4.5}],
        [{"parameter": "x", "floatValue": 9.5}, {"parameter": "model", "stringValue": "linear"}],
        [{"parameter": "x", "floatValue": "NaN"}, {"parameter": "model", "stringValue": "linear"}],
        [{"parameter": "x", "intValue": "4"}, {"parameter": "model", "stringValue": "linear"}],
        [{"parameter": "x", "floatValue": 4.5}, {"parameter": "model", "stringValue": "huge"}],
        [{"parameter": "x", "floatValue": 4.5}, {"parameter": "model", "stringValue": "deep"}],
        [{"parameter": "x", "floatValue": 4.5}] * 2 + [{"parameter": "model", "stringValue": "linear"}],
        [
            {"parameter": "x", "floatValue": 4.5},
            {"parameter": "model", "stringValue": "linear"},
            {"parameter": "layers", "intValue": "2"},
        ],
    ],
)
def test_parameters_that_are_not_of_the_space(studies: StudyService, parameters: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidArgument) as error:
        studies.create_trial(NAME, trial(parameters=parameters))
    assert error.value.field == "trial.parameters"


# --- measurements and ends ---


def test_measurements_are_in_the_order_of_steps(studies: StudyService) -> None:
    suggest(studies, "a")
    both = report(studies, 1, measurement(0.75, step=20), measurement(0.5, step=10), measurement(1.0, step=20))
    assert both.measurements == [measurement(0.5, step=10), measurement(1.0, step=20)]


def test_numbers_that_are_none_survive(studies: StudyService) -> None:
    suggest(studies, "a")
    report(studies, 1, measurement(math.nan, math.inf))
    shown = to_builtins(complete(studies, 1))
    values = [metric.get("value") for metric in shown["finalMeasurement"]["metrics"]]
    assert values == ["NaN", "Infinity"]
    assert math.isnan(from_builtins(messages.Trial, shown).final_measurement.metrics[0].value)  # type: ignore[union-attr]
    assert studies.list_optimal(NAME).trials == []


def test_the_last_whole_measurement_counts_where_no_final_one_is_given(studies: StudyService) -> None:
    suggest(studies, "a")
    report(studies, 1, measurement(0.5, 1.0, step=1), measurement(0.75, 2.0, step=2), measurement(0.25, step=3))
    ended = complete(studies, 1)
    assert (ended.state, ended.final_measurement) == ("COMPLETED", measurement(0.75, 2.0, step=2))
    assert ended.end_time


def test_an_end_is_final(studies: StudyService) -> None:
    suggest(studies, "a", 2)
    final = measurement(0.5, 1.0)
    assert complete(studies, 1, final_measurement=final) == complete(studies, 1, final_measurement=final)
    infeasible = complete(studies, 2, trial_infeasible=True, infeasible_reason="out of memory")
    assert (infeasible.state, infeasible.trial_infeasible) == ("COMPLETED", True)
    refused: list[Callable[[], Any]] = [
        lambda: complete(studies, 1, final_measurement=measurement(0.25, 1.0)),
        lambda: complete(studies, 1, trial_infeasible=True),
        lambda: report(studies, 1, measurement(0.5)),
        lambda: studies.stop(NAME.trial(1)),
        lambda: studies.check_early_stopping(NAME.trial(1)),
    ]
    for call in refused:
        with pytest.raises(FailedPrecondition):
            call()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, "measurement"),
        ({"metrics": []}, "measurement.metrics"),
        ({"metrics": [{"metric": "acc", "value": 1}] * 2}, "measurement.metrics"),
        ({"metrics": [{"metric": "acc"}], "stepCount": "-1"}, "measurement.step_count"),
        ({"metrics": [{"metric": "acc"}], "elapsedTime": "soon"}, "measurement.elapsed_time"),
        ({"metrics": [{"metric": "acc"}], "elapsedTime": "-1s"}, "measurement.elapsed_time"),
    ],
)
def test_a_wrong_measurement(studies: StudyService, given: dict[str, Any] | None, field: str) -> None:
    suggest(studies, "a")
    with pytest.raises(InvalidArgument) as error:
        request = from_builtins(messages.AddTrialMeasurementRequest, {"measurement": given})
        studies.add_measurement(NAME.trial(1), request)
    assert error.value.field == field


def test_a_final_measurement_has_all_metrics(studies: StudyService) -> None:
    suggest(studies, "a")
    with pytest.raises(InvalidArgument, match="missing: cost"):
        complete(studies, 1, final_measurement=measurement(0.5))
    with pytest.raises(FailedPrecondition, match="No measurement"):
        complete(studies, 1)


# --- stopping ---


def _should_stop(operation: Operation) -> bool:
    assert operation.done and operation.response is not None
    return bool(operation.response.get("shouldStop", False))


def test_early_stopping_is_decided_with_a_reason(opened: Callable[[], StudyService]) -> None:
    studies = opened()
    studies.create(NAME, study())
    suggest(studies, "a", 2)
    name = NAME.trial(1)
    assert not _should_stop(studies.check_early_stopping(name))
    report(studies, 1, measurement(0.25))
    assert _should_stop(studies.check_early_stopping(name))
    assert studies.get_trial(name).state == "STOPPING"
    report(studies, 1, measurement(0.75, 1.0, step=9))
    assert _should_stop(opened().check_early_stopping(name))
    assert [event.message for event in studies._store.events(str(name))] == ["best of 2"]
    assert complete(studies, 1).final_measurement == measurement(0.75, 1.0, step=9)
    assert ids(suggest(studies, "a", 1)) == [2]


def test_a_user_stops_a_trial(studies: StudyService) -> None:
    suggest(studies, "a")
    assert studies.stop(NAME.trial(1)).state == "STOPPING"
    assert studies.stop(NAME.trial(1)).state == "STOPPING"
    assert ids(suggest(studies, "a")) == [2]


def test_what_is_not_there(studies: StudyService) -> None:
    other = StudyName("demo", "us-central1", "other")
    calls: list[Callable[[], Any]] = [
        lambda: studies.get(other),
        lambda: studies.list_trials(other),
        lambda: studies.create_trial(other, trial()),
        lambda: studies.suggest(other, messages.SuggestTrialsRequest(suggestion_count=1, client_id="a")),
        lambda: studies.get_trial(NAME.trial(1)),
        lambda: studies.delete_trial(NAME.trial(1)),
        lambda: report(studies, 1, measurement(0.5)),
        lambda: complete(studies, 1),
        lambda: studies.check_early_stopping(NAME.trial(1)),
        lambda: studies.get_operation(LocationOperationName("demo", "us-central1", "o")),
    ]
    for call in calls:
        with pytest.raises(EngineError) as error:
            call()
        assert isinstance(error.value, NotFound)
