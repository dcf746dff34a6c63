"""The coordinator's workers: each split is done in the end, unless they die of it again and again."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from enginehouse.batch.coordinator import BatchFailed, Workers
from enginehouse.batch.objects import ObjectError, Objects
from enginehouse.batch.split import Piece, Split
from enginehouse.batch.worker import Committer, Teller
from enginehouse.batch.write import Output, Shard

SPLITS: list[Split] = [[Piece("b", "f", "1", start, start + 10, 60)] for start in range(0, 60, 10)]


def run(work: Callable[[Connection], None], count: int) -> list[int]:
    """The splits in the order in which they were done."""
    workers = Workers(work, SPLITS, count)
    try:
        return [message["done"] for message in workers.run(list(range(len(SPLITS)))) if "done" in message]
    finally:
        workers.close()


def first_time(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def test_a_split_comes_while_the_one_before_is_committed() -> None:
    def work(coordinator: Connection) -> None:
        coordinator.send({"ready": True})
        waiting: list[int] = []
        while True:
            split, pieces = coordinator.recv()
            assert pieces == SPLITS[split]
            coordinator.send({"predicted": split})
            if waiting:  # it got its next one before
                coordinator.send({"done": waiting.pop()})
            waiting.append(split)
            if split == len(SPLITS) - 1:
                coordinator.send({"done": waiting.pop()})

    assert run(work, 1) == list(range(len(SPLITS)))


def test_what_was_not_committed_at_a_death_is_begun_anew(tmp_path: Path) -> None:
    """A worker dies with a split of which it has told that it is predicted, and with the one behind it."""

    def work(coordinator: Connection) -> None:
        coordinator.send({"ready": True})
        while True:
            split, _ = coordinator.recv()
            if split == 3 and first_time(tmp_path / "dead"):
                os.kill(os.getpid(), signal.SIGKILL)
            coordinator.send({"predicted": split})
            if split == 2 and first_time(tmp_path / "late"):
                continue
            coordinator.send({"done": split})

    assert run(work, 1) == [0, 1, 2, 3, 4, 5]
    assert run(work, 1) == [0, 1, 2, 3, 4, 5]  # nobody dies any more
    (tmp_path / "dead").unlink()
    assert sorted(run(work, 3)) == [0, 1, 2, 3, 4, 5]


def test_the_split_at_hand_is_blamed() -> None:
    def work(coordinator: Connection) -> None:
        coordinator.send({"ready": True})
        while True:
            split, _ = coordinator.recv()
            if split == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            coordinator.send({"predicted": split})
            if split != 3:
                coordinator.send({"done": split})

    with pytest.raises(BatchFailed, match=r"was ended by SIGKILL while it predicted gs://b/f from byte 40 on"):
        run(work, 1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ObjectError("The bucket is gone."), "The bucket is gone"),
        (OSError("no space"), "exit status 1 while it pred"),
    ],
)
def test_a_shard_that_cannot_be_committed_ends_a_worker_that_waits(error: Exception, words: str) -> None:
    """An error of the storage ends the job, any other one the worker, as often as it is tried."""

    class Refusing(Objects):
        def upload(self, *_: Any) -> None:
            raise error

    def work(coordinator: Connection) -> None:
        teller = Teller(coordinator)
        committer = Committer(teller, Refusing("http://127.0.0.1:1"))
        teller.tell({"ready": True})
        while True:
            split, _ = coordinator.recv()
            committer.take(split, Shard(Output("b", "", "run"), split, len(SPLITS)))
            if split == 0:
                coordinator.recv()  # as with the last split: there is nothing more to do
            teller.tell({"predicted": split})

    with pytest.raises(BatchFailed, match=words):
        run(work, 1)
