"""A process that writes objects is killed at random moments; what it leaves must be whole.

The writer runs as a child: this file called as a program.
"""

import itertools
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from enginehouse.core.clock import SystemClock
from enginehouse.storage.base import ComposeSource
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import md5_of

BUCKET = "killed-bucket"
ROUNDS = 10
START_TIMEOUT_S = 30.0


def content(seed: int) -> bytes:
    """Up to 300 kB that name their own seed, so that a reader can tell what they should be."""
    dice = random.Random(seed)
    return b"%d:" % seed + dice.randbytes(dice.choice([0, 100, 300_000]))


def write_for_ever(root: Path, first_seed: int) -> None:
    """Write, overwrite, copy, move, compose and delete, telling each finished write on stdout."""
    store = LocalObjectStore(root, SystemClock())
    dice = random.Random(first_seed)
    print("ready", flush=True)
    seed = first_seed
    while True:
        seed += 1
        data = content(seed)
        name = f"object-{dice.randrange(8)}"
        if dice.random() < 0.3:
            upload_id = store.create_upload(BUCKET, name).upload_id
            for at in range(0, len(data), 100_000):
                store.append_upload(upload_id, at, data[at : at + 100_000])
            store.finish_upload(upload_id, size_bytes=len(data))
        else:
            with store.writer(BUCKET, name) as writer:
                for at in range(0, len(data), 100_000):
                    writer.write(data[at : at + 100_000])
        print(f"{name} {seed}", flush=True)
        step = dice.choice(["copy", "move", "compose", "delete", "none"])
        if step == "copy":
            store.copy(BUCKET, name, BUCKET, "copied")
        elif step == "move":
            store.move(BUCKET, name, "moved")
        elif step == "compose":
            store.compose(BUCKET, "composed", [ComposeSource(name)], delete_sources=True)
        elif step == "delete":
            store.delete(BUCKET, name)


def write_once_each(root: Path, first_seed: int) -> None:
    """Write one object after the other, telling each finished write on stdout."""
    store = LocalObjectStore(root, SystemClock())
    print("ready", flush=True)
    for seed in itertools.count(first_seed):
        with store.writer(BUCKET, str(seed)) as writer:
            writer.write(content(seed))
        print(seed, flush=True)


def run_and_kill(root: Path, first_seed: int, after_s: float, *, mode: str = "all") -> list[str]:
    """Let a child write for a while, kill it, and return the writes that it told."""
    child = subprocess.Popen(
        [sys.executable, __file__, mode, str(root), str(first_seed)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
        time.sleep(after_s)  # the moment of the kill is the point of this test
        child.send_signal(signal.SIGKILL)
        told = child.stdout.read().splitlines()
    assert child.wait(START_TIMEOUT_S) == -signal.SIGKILL
    return told


def test_a_kill_at_any_moment_leaves_whole_objects_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store = LocalObjectStore(root, SystemClock())
    store.create_bucket(BUCKET)
    store.close()
    dice = random.Random()
    last_generation, writes = 0, 0
    for number in range(ROUNDS):
        told = run_and_kill(root, number * 1_000_000, dice.uniform(0.02, 0.3))
        writes += len(told)
        store = LocalObjectStore(root, SystemClock())
        objects = store.list(BUCKET).objects
        for info in objects:
            _, file = store.open_read(BUCKET, info.name)
            with file:
                data = file.read()
            assert (len(data), md5_of(data)) == (info.size_bytes, info.md5)
            seed = re.match(rb"(\d+):", data)
            assert seed and data == content(int(seed[1]))
        generations = [info.generation for info in objects]
        assert len(set(generations)) == len(generations)
        assert max(generations, default=last_generation) >= last_generation
        last_generation = max([*generations, last_generation])
        with store._index.read() as rows:
            unfinished = [row.blob for row in rows.uploads_before(sys.maxsize) if row.result is None]
        expected = {store.local_path(BUCKET, info.name) for info in objects}
        expected |= {store._blobs.path(blob) for blob in unfinished}
        assert set((root / "blobs").glob("*/*")) == expected
        assert len(unfinished) <= number + 1
        store.close()
    assert writes > ROUNDS


def test_a_told_write_is_there_after_the_kill(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store = LocalObjectStore(root, SystemClock())
    store.create_bucket(BUCKET)
    store.close()
    told = run_and_kill(root, 0, 0.2, mode="once")
    store = LocalObjectStore(root, SystemClock())
    found = {info.name: info.md5 for info in store.list(BUCKET).objects}
    store.close()
    assert len(told) > 1
    assert all(found[name] == md5_of(content(int(name))) for name in told)
    assert len(found) <= len(told) + 1  # one may have been committed and not yet told


if __name__ == "__main__":
    {"all": write_for_ever, "once": write_once_each}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
