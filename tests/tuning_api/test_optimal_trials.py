"""The Pareto set, against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.names import StudyName
from enginehouse.metadata.records import TrialRecord
from enginehouse.schemas.optimizer import StudyConfig, StudyMetricSpec
from enginehouse.tuning.study import optimal_trials

STUDY = StudyName("demo", "us-central1", "s")
VALUES = st.one_of(st.integers(0, 3), st.floats(allow_nan=False))


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[bool], list[list[float]]]:
    """Which metrics are to be maximised, and the values of each trial."""
    maximize = draw(st.lists(st.booleans(), min_size=1, max_size=4))
    row = st.lists(VALUES.map(float), min_size=len(maximize), max_size=len(maximize))
    return maximize, draw(st.lists(row, max_size=12))


def trial(number: int, values: list[float], **changes: object) -> TrialRecord:
    final = {"metrics": [{"metric": str(index), "value": value} for index, value in enumerate(values)]}
    fields = {"state": "COMPLETED", "parameters": [], "start_time_ns": 1, "final_measurement": final, **changes}
    return TrialRecord(name=STUDY.trial(number), **fields)  # type: ignore[arg-type]


def config(maximize: list[bool]) -> StudyConfig:
    goals = [StudyMetricSpec(metric=str(i), goal="MAXIMIZE" if up else "MINIMIZE") for i, up in enumerate(maximize)]
    return StudyConfig(metrics=goals)


@given(studies())
def test_exactly_the_trials_that_no_other_dominates(study: tuple[list[bool], list[list[float]]]) -> None:
    maximize, rows = study

    def dominates(one: list[float], other: list[float]) -> bool:
        pairs = [(a, b) if up else (b, a) for a, b, up in zip(one, other, maximize, strict=True)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    expected = [n for n, row in enumerate(rows, 1) if not any(dominates(other, row) for other in rows)]
    found = optimal_trials(config(maximize), [trial(n, row) for n, row in enumerate(rows, 1)])
    assert [each.name.trial_id for each in found] == expected


def test_who_takes_no_part() -> None:
    trials = [
        trial(1, [1.0]),
        trial(2, [9.0], infeasible=True),
        trial(3, [9.0], state="ACTIVE"),
        trial(4, [9.0], final_measurement=None),
        trial(5, [float("nan")]),
        trial(6, [9.0], final_measurement={"metrics": [{"metric": "another", "value": 9.0}]}),
        trial(7, [1.0]),
    ]
    assert [each.name.trial_id for each in optimal_trials(config([True]), trials)] == [1, 7]
