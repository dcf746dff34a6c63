"""The frame of every reconciler: passes until the stop, at once when woken, again after a failure."""

import threading

import pytest

from enginehouse.core.background import Background

LONG_S = 600.0


def test_a_wake_makes_the_next_pass_at_once_and_a_stop_ends_the_thread() -> None:
    passed = threading.Semaphore(0)

    def run_pass() -> float:
        passed.release()
        return LONG_S

    background = Background("test", run_pass, retry_s=LONG_S)
    background.start()
    assert passed.acquire(timeout=10)
    assert not passed.acquire(blocking=False), "it waits after a pass"
    background.wake()
    assert passed.acquire(timeout=10)
    assert not background.is_stopping
    background.stop()
    assert background.is_stopping
    assert "test" not in [thread.name for thread in threading.enumerate()]


def test_a_pass_that_fails_is_logged_and_done_again(caplog: pytest.LogCaptureFixture) -> None:
    passes = []
    done = threading.Event()

    def run_pass() -> float:
        passes.append(1)
        if len(passes) == 1:
            raise RuntimeError("the first one")
        done.set()
        return LONG_S

    background = Background("test", run_pass, retry_s=0.0)
    background.start()
    assert done.wait(timeout=10)
    background.stop()
    assert len(passes) == 2
    assert "the pass of test failed" in caplog.text


def test_stopping_what_was_never_started_is_harmless() -> None:
    background = Background("test", lambda: LONG_S, retry_s=LONG_S)
    background.stop()
    assert background.is_stopping
