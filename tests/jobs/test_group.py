"""The failure policy, case by case."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from enginehouse.backends.base import Phase, ReplicaStatus
from enginehouse.jobs.group import End, Failure, Launch, Restart, Retry, Wait, kind_of, look
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.result import Result
from enginehouse.jobs.run import Ending, Run
from enginehouse.replica.spec import Outcome

MASTER, WORKER, PS = ReplicaPlan("master", 0), ReplicaPlan("worker", 0), ReplicaPlan("ps", 0)
PLAN = Plan((MASTER, WORKER, PS), "1.8", "2.7", "", "master")
ABSENT = ReplicaStatus(Phase.ABSENT)
PREPARING = ReplicaStatus(Phase.PREPARING)
DONE = Outcome("exited", exit_code=0, ended_ns=90)
RAISED = Outcome(
    "exited",
    exit_code=1,
    message="The module ended with exit status 1. ValueError: x",
    traceback="Traceback\nValueError: x",
    ended_ns=80,
)
KILLED = Outcome("exited", signal=signal.SIGKILL, message="killed", ended_ns=70)
CRASHED = Outcome("exited", signal=signal.SIGSEGV, message="crashed", ended_ns=60)


def running(since_ns: int) -> ReplicaStatus:
    return ReplicaStatus(Phase.RUNNING, since_ns)


def over(outcome: Outcome) -> ReplicaStatus:
    return ReplicaStatus(Phase.ENDED, 1, outcome)


def verdict(master: ReplicaStatus, worker: ReplicaStatus, ps: ReplicaStatus, run: Run | None = None) -> Any:
    statuses = {"master-replica-0": master, "worker-replica-0": worker, "ps-replica-0": ps}
    return look("iris_1", PLAN, run or Run(), statuses)


def test_what_is_absent_is_launched() -> None:
    assert verdict(ABSENT, ABSENT, ABSENT) == Launch((MASTER, WORKER, PS))
    assert verdict(running(5), ABSENT, PREPARING) == Launch((WORKER,))


def test_the_job_runs_when_its_last_replica_does() -> None:
    assert verdict(running(5), PREPARING, running(6)) == Wait(None)
    assert verdict(running(5), running(9), running(6)) == Wait(9)
    assert verdict(running(5), over(DONE), running(6)) == Wait(6), "a worker may be done early"


def test_the_masters_success_is_the_jobs() -> None:
    for other in (running(1), over(DONE), over(KILLED), over(RAISED)):
        assert verdict(over(DONE), other, running(1)) == End(Result("SUCCEEDED"), 90)


def test_an_exception_anywhere_ends_the_job_with_its_traceback() -> None:
    ended = verdict(running(1), over(RAISED), running(1))
    assert isinstance(ended, End)
    assert ended.result.state == "FAILED"
    assert ended.result.error_message.startswith(
        "The replica worker 0 exited with a non-zero status of 1. \nTraceback\nValueError: x"
    )
    assert "mle jobs stream-logs iris_1" in ended.result.error_message


def test_several_failures_are_told_one_after_the_other() -> None:
    ended = verdict(over(RAISED), over(RAISED), over(KILLED))
    message = ended.result.error_message
    assert message.index("The replica master 0") < message.index("The replica worker 0")
    assert "ps 0" not in message, "what could have been mended did not end the job"


def test_a_killed_replica_is_restarted_five_times_and_then_the_job_three_times() -> None:
    expected = Restart((WORKER,), ("The replica worker 0 exited with a non-zero status of 9(SIGKILL). killed",))
    run = Run()
    for retry in range(4):
        for _ in range(5):
            assert verdict(running(1), over(KILLED), running(1), run) == expected
            run = run.restarted("worker-replica-0")
        last = verdict(running(1), over(KILLED), running(1), run)
        if retry < 3:
            assert last == Retry(expected.reasons[0])
            run = replace(run, again="retry").begun_anew(tuple(each.task_name for each in PLAN.replicas))
            assert (run.retries, run.restarts, run.again) == (retry + 1, {}, "")
    assert isinstance(last, End)
    assert last.result.state == "FAILED"
    assert run.launches["worker-replica-0"] == 4 * 5 + 3, "each launch has a directory of its own"
    assert run.launches["master-replica-0"] == 3


def test_a_crash_of_native_code_begins_the_whole_job_anew() -> None:
    assert isinstance(verdict(running(1), over(CRASHED), running(1)), Retry)
    assert isinstance(verdict(running(1), over(CRASHED), running(1), Run(retries=3)), End)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome("exited", exit_code=1), Failure.PERMANENT),
        (Outcome("exited", exit_code=127), Failure.PERMANENT),
        (Outcome("exited", exit_code=134), Failure.CRASH),
        (Outcome("exited", exit_code=139), Failure.CRASH),
        (Outcome("exited", exit_code=137), Failure.LOSS),
        (Outcome("exited", exit_code=255), Failure.LOSS),
        (Outcome("exited", signal=signal.SIGABRT), Failure.CRASH),
        (Outcome("exited", signal=signal.SIGTERM), Failure.LOSS),
        (Outcome("exited", signal=signal.SIGKILL, out_of_memory=True), Failure.PERMANENT),
        (Outcome("lost"), Failure.LOSS),
        (Outcome("environment_failed"), Failure.PERMANENT),
    ],
)
def test_kinds(outcome: Outcome, kind: Failure) -> None:
    assert kind_of(outcome) is kind


def test_out_of_memory_is_told_in_the_originals_words() -> None:
    outcome = replace(KILLED, out_of_memory=True, message="Its main process had held up to 900 MiB.")
    ended = verdict(over(outcome), running(1), running(1))
    assert ended.result.error_message.startswith(
        "The replica master 0 ran out-of-memory and exited with a non-zero status of 9(SIGKILL). "
        "Its main process had held up to 900 MiB."
    )


def test_a_run_is_stored_and_read_again() -> None:
    run = Run(
        ports={"master-replica-0": (1, 2)},
        devices={"master-replica-0": ("0",)},
        launches={"master-replica-0": 1},
        restarts={"master-replica-0": 1},
        retries=2,
        again="requeue",
        reason="x",
        ending=Ending("FAILED", "y", 3),
    )
    assert Run.from_json(run.to_json()) == run
    assert Run.from_json({}) == Run()
