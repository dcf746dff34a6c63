"""A tuning job whose engine is killed at one of its writes, before or after it: nothing is lost or repeated."""

from pathlib import Path
from random import Random

import pytest

from enginehouse.replica.spec import Outcome
from enginehouse.schemas.optimizer import StudyConfig
from enginehouse.schemas.wire import from_builtins
from enginehouse.tuning.job_study import study_name, texts_of
from enginehouse.tuning.space import Space

from .world import Crash, World

TRIALS = 4
FAILING = 3
WRITES = 46
"""A little more than such a job makes; the last ones find it ended."""
SAMPLE = 5
"""The normal run tries every so-and-so-manieth write, the long one all."""


def trainer(number: int, rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
    """Three reports in three rounds; one trial fails after that."""
    if rounds < 3:
        return [(rounds, number + rounds / 10)], None
    code = 1 if number == FAILING else 0
    return [(rounds, number + rounds / 10)], Outcome("exited", exit_code=code, ended_ns=1)


@pytest.mark.parametrize(("when", "first"), [("before", 1), ("after", 3)])
def test_a_kill_at_some_writes_loses_and_repeats_nothing(tmp_path: Path, when: str, first: int) -> None:
    kill_at(range(first, WRITES, SAMPLE), when, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_write_loses_and_repeats_nothing(tmp_path: Path, when: str) -> None:
    kill_at(range(1, WRITES), when, tmp_path)


def kill_at(writes: range, when: str, folder: Path) -> None:
    died = 0
    for at in writes:
        world = World(folder / str(at), trainer)
        try:
            world.submit(maxTrials=TRIALS, maxParallelTrials=2, algorithm="RANDOM_SEARCH")
            world.store.writes, world.store.dies_at = 0, (at, when)
            died += run_to_its_end(world)
            check(world)
        finally:
            world.close()
    assert died > 0.8 * len(writes), "the kills must meet the job"


def run_to_its_end(world: World) -> bool:
    """Whether the engine died on the way."""
    name = world.real.list_jobs("demo", page_size=1).items[0].name
    try:
        world.finish(name)
    except Crash:
        world.restart()
        world.finish(name)
        return True
    return False


def check(world: World) -> None:
    name = world.real.list_jobs("demo", page_size=2).items[0].name
    job = world.shown(name)
    assert job["state"] == "SUCCEEDED"
    trials = {trial["trialId"]: trial for trial in job["trainingOutput"]["trials"]}
    assert sorted(trials) == [str(number) for number in range(1, TRIALS + 1)]
    assert [trial["trialId"] for trial in job["trainingOutput"]["trials"]] == ["4", "2", "1", "3"]
    study = world.real.get_study(study_name(name))
    space = Space(from_builtins(StudyConfig, study.config).parameters)
    for number in range(1, TRIALS + 1):
        shown = trials[str(number)]
        points = [(point["trainingStep"], point["objectiveValue"]) for point in shown["allMetrics"]]
        assert points == [("1", number + 0.1), ("2", number + 0.2), ("3", number + 0.3)]
        assert shown["state"] == ("FAILED" if number == FAILING else "SUCCEEDED")
        drawn = space.draw(Random(f"{study.seed}/{number}"))
        assert int(shown["hyperparameters"]["units"]) == drawn["units"], "the suggestion of this number"
    launched = sorted(str(directory) for directory in world.backend.launched)
    assert len(launched) == TRIALS, "each trial ran once"
    arguments = {spec.args for spec in world.backend.launched.values()}
    wanted = {("--units", texts_of(trial.parameters)["units"]) for trial in world.real.list_trials(study.name)}
    assert arguments == wanted
    lines = world.lines(name)
    ends = [line.split(":")[0] for line in lines if line.startswith("Trial")]
    assert sorted(ends) == [
        "Trial 1 of 4 completed",
        "Trial 2 of 4 completed",
        "Trial 3 of 4 failed",
        "Trial 4 of 4 completed",
    ], "each is told of once"
    assert lines[-1] == "Job completed successfully."
    assert lines.count("Job completed successfully.") == 1
