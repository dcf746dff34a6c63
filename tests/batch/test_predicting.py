"""Blocks of instances to lines of predictions: order, company of bad instances, formats, sizes of batches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.batch import run
from enginehouse.batch.read import Block
from enginehouse.batch.run import FIRST_BATCH_ROWS, Predictor, Result, json_lines
from enginehouse.batch.split import Piece
from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.errors import PredictionError

PIECE = Piece("b", "in.csv", "1", 0, 10**9, 10**9)


class Sums(Adapter):
    """Predicts the sum of an instance's numbers; refuses negative ones, and what is no list of numbers."""

    def __init__(self, *, names: list[str] | None = None, text: bool = False, tables: bool = False) -> None:
        self.sizes: list[int] = []
        self._names = names
        self._text = text
        self._tables = tables

    @classmethod
    def load(cls, directory: Path) -> "Sums":
        return cls()

    def signatures(self) -> dict[str, Any]:
        return {}

    def self_test(self) -> str:
        return "passed"

    def takes_text(self, signature_name: str) -> bool:
        return self._text

    def input_names(self, signature_name: str) -> list[str] | None:
        return self._names

    def prepare_rows(self, table: Any, signature_name: str, *, named: bool) -> Call | None:
        return Call("", (table,), len(table), None) if self._tables else None

    def prepare(self, request: Mapping[str, Any]) -> Call:
        rows = []
        for index, instance in enumerate(request["instances"]):
            if isinstance(instance, dict):
                instance = [instance[name] for name in self._names or ()]
            if isinstance(instance, (str, bytes)):
                instance = [len(instance)]
            if not all(isinstance(number, (int, float)) for number in instance):
                raise PredictionError(f"Error processing input: no numbers in instance {index}.")
            rows.append(sum(instance))
        return Call("", (np.array(rows, dtype=float)[:, None],), len(rows), None)

    def run(self, call: Call) -> list[Any]:
        self.sizes.append(call.n_rows)
        sums = call.arrays[0].sum(axis=1)
        if (sums < 0).any():
            raise PredictionError("Exception during prediction: negative.")
        if (sums == 666).any():
            raise SystemExit("the model gives up")
        return [] if (sums == 777).any() else sums.tolist()


def predict(adapter: Adapter, text: str | bytes, header: str = "", **options: Any) -> Result:
    options.setdefault("data_format", "JSON")
    data = text if isinstance(text, bytes) else text.encode()
    return Predictor(adapter, **options).predict(Block(PIECE, 0, data), header.encode())


def values(result: Result) -> list[Any]:
    lines = b"".join(result.lines).splitlines()
    assert len(lines) == result.n_predictions
    return [json.loads(line) for line in lines]


@given(numbers=st.lists(st.sampled_from([1, 2, 3, 40, -1, 666, 777, "x"]), max_size=60), batch=st.integers(1, 9))
def test_each_good_instance_has_its_prediction_in_order(numbers: list[Any], batch: int) -> None:
    text = "".join(json.dumps([number]) + "\n" for number in numbers)
    result = predict(Sums(), text, batch_rows=batch)
    assert values(result) == [number for number in numbers if number in (1, 2, 3, 40)]
    bad = [number for number in numbers if number not in (1, 2, 3, 40)]
    assert [json.loads(error["instance"]) for error in result.errors] == [[number] for number in bad]
    for error in result.errors:
        assert text[error["offset"] :].startswith(error["instance"] + "\n")
        assert error["error"].startswith("Prediction failed: ")
        assert error["input"] == "gs://b/in.csv"


def test_lines_of_all_kinds() -> None:
    result = predict(Sums(names=["x", "y"]), '[1, 2]\n\n{"x": 3, "y": 4}\r\n5,6\n[1, 2\nnull\n')
    assert values(result) == [3, 7, 11]
    assert [error["instance"] for error in result.errors] == ["[1, 2", "null"]
    assert "the line is no JSON" in result.errors[0]["error"]


def test_bytes_that_are_no_text() -> None:
    result = predict(Sums(), b"[1]\n\xff\xfe\n[2]\n")
    assert values(result) == [1, 2]
    assert "no UTF-8" in result.errors[0]["error"]


@pytest.mark.parametrize("data_format", ["JSON", "TEXT", "CSV"])
def test_a_header_names_the_columns(data_format: str) -> None:
    adapter = Sums(names=["x", "y"])
    result = predict(adapter, "y,class,x\n1,a,2\n3,b,4\n5,6\n", "y,class,x", data_format=data_format)
    assert values(result) == [3, 7]
    assert [error["instance"] for error in result.errors] == ["5,6"]
    # In the middle of the file the header is known, and no line is taken for it.
    middle = Predictor(adapter, data_format=data_format).predict(Block(PIECE, 50, b"1,a,2\n"), b"y,class,x")
    assert values(middle) == [3]


def test_a_line_that_is_no_csv() -> None:
    result = predict(Sums(names=["x", "y"]), b"1,2\r3,4\n5,6\n", "1,2\r3,4", data_format="CSV")
    assert values(result) == [11]
    assert "the line is no CSV" in result.errors[0]["error"]


def test_a_model_of_text_gets_the_lines_as_they_are() -> None:
    assert values(predict(Sums(text=True), '1,2,3\n"a"\n{"x"\n', data_format="TEXT")) == [5, 3, 4]
    assert values(predict(Sums(text=True), '1,2,3\n"a"\n', data_format="JSON")) == [5, 1]


def test_records() -> None:
    block = Block(PIECE, 0, records=(b"abc", b"", b"\xff"))
    assert values(Predictor(Sums(text=True), data_format="TF_RECORD").predict(block)) == [3, 0, 1]
    refused = Predictor(Sums(), data_format="TF_RECORD").predict(block)
    assert [error["offset"] for error in refused.errors] == [0, 19, 35]
    assert "one input, a string" in refused.errors[0]["error"]


def test_csv_output() -> None:
    class Objects(Sums):
        def run(self, call: Call) -> list[Any]:
            return [{"label": 'a,"b"', "scores": [1, 2], "best": total} for total in call.arrays[0][:, 0].tolist()]

    result = predict(Objects(), "[1]\n[2]\n", output_format="CSV")
    assert b"".join(result.lines) == b'"a,""b""","[1,2]",1.0\n"a,""b""","[1,2]",2.0\n'


def test_batches_are_as_large_as_told() -> None:
    adapter = Sums()
    predict(adapter, "[1]\n" * 250, batch_rows=100)
    assert adapter.sizes == [100, 100, 50]


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> int:
    """The rows of the largest batch."""
    monkeypatch.setattr(run, "LARGEST_BATCH_ROWS", 8192)
    return 8192


def test_batches_grow_while_that_pays(few_rows: int) -> None:
    """A call takes a second and a thousandth for each row."""
    now = 0.0

    class Slow(Sums):
        def run(self, call: Call) -> list[Any]:
            nonlocal now
            now += 1 + call.n_rows / 1000
            return super().run(call)

    adapter = Slow()
    predictor = Predictor(adapter, data_format="JSON", clock=lambda: now)
    for _ in range(10):
        predictor.predict(Block(PIECE, 0, b"[1]\n" * 20_000))
    assert adapter.sizes[0] == FIRST_BATCH_ROWS
    assert max(adapter.sizes) == few_rows


def test_blocks_smaller_than_a_batch_tell_what_it_takes() -> None:
    """A call takes a second whatever its rows; blocks have 100."""
    adapter = Sums()
    predictor = Predictor(adapter, data_format="JSON", clock=lambda: float(len(adapter.sizes)))
    for _ in range(5):
        predictor.predict(Block(PIECE, 0, b"[1]\n" * 100))
    assert adapter.sizes == [64, 36, 64, 36, 100, 100, 100]


def test_batches_stay_small_where_growth_does_not_pay() -> None:
    """Each row takes a second, in batches of whatever size."""
    steady = Sums()
    predictor = Predictor(steady, data_format="JSON", clock=lambda: float(sum(steady.sizes)))
    predictor.predict(Block(PIECE, 0, b"[1]\n" * 20_000))
    assert max(steady.sizes) == 4 * FIRST_BATCH_ROWS, "two doublings in vain"
    assert steady.sizes[-2] == FIRST_BATCH_ROWS


def test_one_busy_moment_does_not_end_the_growth_of_batches(few_rows: int) -> None:
    """A call takes a second whatever its rows, but those of the first doubling take three."""
    now = 0.0

    class Busy(Sums):
        def run(self, call: Call) -> list[Any]:
            nonlocal now
            now += 3 if call.n_rows == 2 * FIRST_BATCH_ROWS else 1
            return super().run(call)

    adapter = Busy()
    predictor = Predictor(adapter, data_format="JSON", clock=lambda: now)
    for _ in range(10):
        predictor.predict(Block(PIECE, 0, b"[1]\n" * 20_000))
    assert max(adapter.sizes) == few_rows


SCALARS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.booleans(), st.none(), st.text())
ROWS = st.one_of(SCALARS, st.lists(SCALARS), st.lists(st.lists(SCALARS)), st.dictionaries(st.text(), SCALARS))


@given(st.one_of(st.lists(ROWS), st.lists(st.floats()), st.lists(st.lists(st.integers(), min_size=1))))
def test_json_lines(rows: list[Any]) -> None:
    lines = json_lines(rows)
    if not rows:
        assert lines == b""
        return
    assert lines.endswith(b"\n")
    read = [json.loads(line) for line in lines.splitlines()]
    assert json.dumps(read) == json.dumps([_finite(row) for row in rows])


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
