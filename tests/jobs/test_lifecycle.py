"""The state table of jobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.jobs.lifecycle import TRANSITIONS, log, transition
from enginehouse.metadata.records import TERMINAL_JOB_STATES
from enginehouse.testing.metadata import make_job


@given(st.lists(st.sampled_from(sorted(TRANSITIONS)), max_size=12))
def test_whatever_is_asked_a_job_ends_at_most_once(wishes: list[str]) -> None:
    job, ends = make_job(), 0
    for now_ns, wish in enumerate(wishes, start=1):
        if wish not in TRANSITIONS[job.state]:
            with pytest.raises(ValueError, match=f"from {job.state} to {wish}"):
                transition(job, wish, reason="", now_ns=now_ns)  # type: ignore[arg-type]
            continue
        job, events = transition(job, wish, reason="because", now_ns=now_ns)  # type: ignore[arg-type]
        assert events[0].data["to"] == wish
        ends += wish in TERMINAL_JOB_STATES
        assert (job.end_time_ns is not None) == (wish in TERMINAL_JOB_STATES)
    assert ends <= 1


def test_every_state_but_the_last_ones_leads_somewhere() -> None:
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL_JOB_STATES
    reachable = set().union(*TRANSITIONS.values())
    assert reachable == set(TRANSITIONS)


def test_the_lines_come_after_the_event_of_the_change() -> None:
    _job, events = transition(
        make_job(), "FAILED", reason="no", now_ns=1, logs=[log("a"), log("b", severity="ERROR")]
    )
    assert [(e.kind, e.message, e.severity) for e in events] == [
        ("state", "no", "INFO"),
        ("log", "a", "INFO"),
        ("log", "b", "ERROR"),
    ]
