"""Who is next, and what the others are told."""

from dataclasses import replace

from enginehouse.jobs.queue import decide
from enginehouse.metadata.records import JobRecord
from enginehouse.testing.metadata import make_job


def queued(job_id: str, priority: int = 0) -> JobRecord:
    return replace(make_job(job_id), priority=priority)


def test_first_come_first_served_within_a_priority() -> None:
    jobs = [queued("low"), queued("high_1", 5), queued("high_2", 5), queued("higher", 7)]
    decisions = decide(jobs, max_running_jobs=2)
    assert [d.job.name.job_id for d in decisions] == ["higher", "high_1", "high_2", "low"]
    assert [d.admitted for d in decisions] == [True, True, False, False]
    assert [d.position for d in decisions] == [0, 0, 1, 2]


def test_running_jobs_take_places() -> None:
    jobs = [make_job("a", state="RUNNING"), make_job("b", state="CANCELLING"), queued("c")]
    (decision,) = decide(jobs, max_running_jobs=2)
    assert not decision.admitted
    assert "max_running_jobs" in decision.reason
    (decision,) = decide(jobs, max_running_jobs=3)
    assert decision.admitted
