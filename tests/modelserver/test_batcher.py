"""Merging requests changes how often the model is called, and nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.batcher import Batcher
from enginehouse.modelserver.errors import PredictionError


class Doubler(Adapter):
    """Doubles numbers. An instance may be an order instead:

    "refuse" is refused while it is prepared, "fail" makes the whole call fail, "break" does so with a bug, "exit"
    calls sys.exit, "short" makes it lose a row, "alone" must not be merged.
    """

    def __init__(self) -> None:
        self.calls: list[int] = []

    @classmethod
    def load(cls, directory: Path) -> Doubler:
        return cls()

    def signatures(self) -> dict[str, Any]:
        return {}

    def self_test(self) -> str:
        return "passed"

    def prepare(self, request: Mapping[str, Any]) -> Call:
        instances = request["instances"]
        if "refuse" in instances:
            raise PredictionError("refused")
        signature = request.get("signature_name", "s")
        return Call(signature, (list(instances),), len(instances), None if "alone" in instances else signature)

    def merge(self, calls: Sequence[Call]) -> Call:
        rows = [row for call in calls for row in call.arrays[0]]
        assert len({call.merge_key for call in calls}) == 1 and calls[0].merge_key is not None
        return Call(calls[0].signature, (rows,), len(rows), calls[0].merge_key)

    def run(self, call: Call) -> list[Any]:
        rows = call.arrays[0]
        self.calls.append(len(rows))
        if "fail" in rows:
            raise PredictionError("failed")
        if "break" in rows:
            raise RuntimeError("bug")
        if "exit" in rows:
            raise SystemExit(3)
        return [[call.signature, row] for row in rows if row != "short"]


def expected(body: bytes, max_rows: int) -> tuple[int, Any]:
    """What a request gets that is alone."""
    try:
        request = json.loads(body)
    except ValueError:
        return 400, None
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        return 400, None
    instances = request["instances"]
    if "refuse" in instances:
        return 200, {"error": "Prediction failed: refused (Error code: 1)"}
    if "fail" in instances:
        first = next(i for i, row in enumerate(instances) if row in ("fail", "break", "exit"))
        can_tell = 1 < len(instances) <= max_rows and "alone" not in instances
        blamed = f" (Instance {first}.)" if can_tell else ""
        return 200, {"error": f"Prediction failed: failed{blamed} (Error code: 2)"}
    if "break" in instances:
        return 200, {"error": "Prediction failed: unknown error: RuntimeError: bug (Error code: 2)"}
    if "exit" in instances:
        return 200, {"error": "Prediction failed: unknown error: SystemExit: 3 (Error code: 2)"}
    signature = request.get("signature_name", "s")
    return 200, {"predictions": [[signature, row] for row in instances if row != "short"]}


orders = st.sampled_from(["refuse", "fail", "break", "exit", "short", "alone"])
rows = st.one_of(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999), orders)
requests = st.fixed_dictionaries(
    {"instances": st.lists(rows, max_size=5)}, optional={"signature_name": st.sampled_from(["s", "t"])}
)
request_bodies = st.one_of(
    requests.map(lambda r: json.dumps(r).encode()), st.sampled_from([b"", b"[]", b"{}", b"nonsense"])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(request_bodies, max_size=30), st.lists(st.integers(0, 30), max_size=4), st.integers(1, 20))
def test_each_request_gets_what_it_would_get_alone(bodies: list[bytes], arrivals: list[int], max_rows: int) -> None:
    batcher = Batcher(Doubler(), max_rows=max_rows)
    batch = batcher.open()
    for start, end in itertools.pairwise([0, *sorted(min(each, len(bodies)) for each in arrivals), len(bodies)]):
        batch.add((f"asker {index}", bodies[index]) for index in range(start, end))
    assert batch.n_requests == len(bodies)
    answers = {answer.asker: answer for _, part in batcher.answer(batch) for answer in part}
    assert answers.keys() == {f"asker {index}" for index in range(len(bodies))}
    for index, each in enumerate(bodies):
        status, value = expected(each, max_rows)
        answer = answers[f"asker {index}"]
        assert answer.status == status
        if value is not None:
            assert json.loads(answer.body) == value


def body(*instances: Any, **extra: Any) -> bytes:
    return json.dumps({"instances": list(instances), **extra}).encode()


@pytest.mark.parametrize(
    ("batch", "max_rows", "calls"),
    [
        ([body(1)], 10, [1]),
        ([body(1), body(2, 3), body(4)], 10, [4]),
        ([body(1), body(2, signature_name="t"), body(3)], 10, [2, 1]),
        ([body(1), body(2, 3), body(4)], 2, [1, 2, 1]),
        ([body(1), body(2), body(3)], 1, [1, 1, 1]),
        ([body(*range(9)), body(1)], 5, [9, 1]),
        ([body(1), body("alone"), body("alone"), body(2)], 10, [2, 1, 1]),
        ([body(1), body("fail"), body(2)], 10, [3, 1, 1, 1]),
        ([body(), body()], 10, []),
    ],
)
def test_the_model_is_called_as_often_as_needed(batch: list[bytes], max_rows: int, calls: list[int]) -> None:
    adapter = Doubler()
    batcher = Batcher(adapter, max_rows=max_rows)
    assert sum(len(part) for _, part in batcher.answer(batcher.open(enumerate(batch)))) == len(batch)
    assert sorted(adapter.calls) == sorted(calls)


def test_answers_come_when_their_call_is_done() -> None:
    adapter = Doubler()
    batcher = Batcher(adapter, max_rows=10)
    batch = batcher.open(zip("abc", [body(1), body(2, signature_name="t"), b"nonsense"], strict=True))
    assert list(batch.askers()) == ["a", "b"]
    parts = batcher.answer(batch)
    signature, [answer] = next(parts)
    assert (signature, answer.asker) == (None, "c")
    assert adapter.calls == []
    signature, [answer] = next(parts)
    assert (signature, answer.asker) == ("s", "a")
    assert adapter.calls == [1]


def test_quick_signatures_are_answered_before_slow_ones() -> None:
    usual_s = {"slow": 1.0, "quick": 0.1, "new": 0.0}
    batcher = Batcher(Doubler())
    batch = batcher.open((name, body(1, signature_name=name)) for name in ("slow", "quick", "new", "slow"))
    answers = [[each.asker for each in answers] for _, answers in batcher.answer(batch, usual_s.__getitem__)]
    assert answers == [["new"], ["quick"], ["slow", "slow"]]


def test_a_batch_is_counted_by_signature() -> None:
    bodies = [body(1), body(2, 3), body(4, signature_name="t"), body(), b"nonsense"]
    batch = Batcher(Doubler()).open(enumerate(bodies))
    batch.add([(9, body(5, 6, "alone"))])
    assert {name: (size.n_requests, size.n_rows) for name, size in batch.sizes.items()} == {"s": (3, 6), "t": (1, 1)}
    assert batch.n_requests == 6


def test_a_bug_is_logged_with_its_trace(capfd: pytest.CaptureFixture[str]) -> None:
    batcher = Batcher(Doubler(), max_rows=1)
    list(batcher.answer(batcher.open([(0, body("break"))])))
    assert "RuntimeError: bug" in capfd.readouterr().err


def test_values_that_json_lacks_are_made_to_fit() -> None:
    class Strange(Doubler):
        def run(self, call: Call) -> list[Any]:
            return [Path("a"), 2**70, b"\x00", "\ud800", (float("nan"), 1)]

    batcher = Batcher(Strange(), max_rows=1)
    [(_, [answer])] = batcher.answer(batcher.open([(0, body(1, 2, 3, 4, 5))]))
    assert json.loads(answer.body)["predictions"] == ["a", 2**70, {"b64": "AA=="}, "\ud800", [None, 1]]
