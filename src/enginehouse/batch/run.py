"""Blocks of instances to lines of predictions, by an adapter of the model server.

What comes out is one line per instance in the order of the instances, as online predictions give it. An instance
that gets no prediction becomes an error; those around it do not suffer: a failed call is halved until the instance
that is to blame is alone.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from enginehouse.batch.read import Block
from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.codecs import Array, dumps, dumps_slowly, jsonable, loads
from enginehouse.modelserver.errors import PredictionError, describe

FIRST_BATCH_ROWS = 64
LARGEST_BATCH_ROWS = 65_536
_WORTH = 0.9
_SHOWN_BYTES = 64 * 1024

try:
    import pandas  # type: ignore[import-untyped]
except ImportError:
    pandas = None
_PANDAS_OPTIONS: dict[str, Any] = {}
if pandas is not None and int(pandas.__version__.split(".")[0]) < 3:
    _PANDAS_OPTIONS = {"float_precision": "round_trip"}  # what later ones do without being asked
_NO_BLANKS: dict[str, Any] = {"na_filter": False}
_BLANKS: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}


@dataclass
class Result:
    """What came of a block.

    Attributes:
        lines: predictions, each with its line end.
        n_predictions: how many lines.
        errors: one JSON-ready object for each instance without a prediction.
    """

    lines: list[bytes] = field(default_factory=list)
    n_predictions: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Instance:
    """An instance and where it is from. `value` is the PredictionError where it could not be read."""

    offset: int
    raw: bytes
    value: Any


class Predictor:
    """Predicts blocks with one adapter. One thread.

    Args:
        data_format, output_format, signature_name: as in `PredictionInput`; "" takes the default.
        batch_rows: instances per call; 0 begins with 64 and grows while that makes them quicker.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        data_format: str,
        output_format: str = "",
        signature_name: str = "",
        batch_rows: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._adapter = adapter
        self._data_format = data_format
        self._encode = _csv_lines if output_format == "CSV" else json_lines
        self._extra = {"signature_name": signature_name} if signature_name else {}
        self._size = _BatchSize(batch_rows, clock)
        self._takes_text = adapter.takes_text(signature_name)
        self._names = adapter.input_names(signature_name)
        self._cells = _NO_BLANKS

    def predict(self, block: Block, header: bytes = b"") -> Result:
        """The predictions of all instances of a block.

        Args:
            header: the first line of its file; if it is one of CSV that names all inputs of the model, it says which
                column is which and is no instance. Other columns are left out.
        """
        result = Result()
        columns = self._columns(header) if block.data and not self._takes_text else None
        data, offset = block.data, block.offset
        if columns is not None and offset == 0:
            offset = data.find(b"\n") + 1
            data = data[offset:]
        table = self._table(data, columns)
        if table is not None:
            self._predict_table(table, data, offset, block, columns, result)
        elif block.records:
            self._predict_instances(list(self._records(block)), block, result)
        else:
            self._predict_instances(list(self._lines(data, offset, columns)), block, result)
        return result

    def _columns(self, header: bytes) -> list[str] | None:
        try:
            cells = [cell.strip() for cell in _cells(header.decode("utf-8-sig", "replace"))]
        except csv.Error:
            return None
        return cells if self._names and set(self._names) <= set(cells) else None

    # --- tables of numbers: no Python object per cell ---

    def _table(self, data: bytes, columns: list[str] | None) -> Array | None:
        """The lines as one table, None where that takes a closer look at each."""
        if self._takes_text or pandas is None:
            return None
        if not data or data[:1] in b'[{"' or b'"' in data or b"\0" in data:
            return None
        wanted = [columns.index(name) for name in self._names or ()] if columns else None
        frame = self._frame(data, wanted)
        if frame is None or len(frame) != _count(data, "\n"):
            return None  # no numbers, or empty lines
        if columns or self._cells is _BLANKS:  # else each line has a number in each column
            n_columns = len(columns) if columns else frame.shape[1]
            if _count(data, ",") != len(frame) * (n_columns - 1):
                return None  # lines of different lengths
        table: Array = (frame[wanted] if wanted else frame).to_numpy()
        return table if self._call(table[:1], columns) else None

    def _frame(self, data: bytes, wanted: list[int] | None) -> Any:
        """The numbers in the wanted columns, None where there is something else.

        Looking for blank cells costs a tenth: it is done from the first block on that holds one.
        """
        options = {"header": None, "usecols": wanted, "dtype": np.float64, "low_memory": False, **_PANDAS_OPTIONS}
        while True:
            try:
                return pandas.read_csv(_Lines(data) if wanted is None else io.BytesIO(data), **options, **self._cells)
            except (ValueError, pandas.errors.ParserError):
                if self._cells is _BLANKS:
                    return None
                self._cells = _BLANKS

    def _call(self, table: Array, columns: list[str] | None) -> Call | None:
        return self._adapter.prepare_rows(table, self._extra.get("signature_name", ""), named=columns is not None)

    def _predict_table(
        self, table: Array, data: bytes, offset: int, block: Block, columns: list[str] | None, result: Result
    ) -> None:
        start = 0
        lines: list[_Instance] | None = None
        while start < len(table):
            end = start + self._size.rows
            part = np.ascontiguousarray(table[start:end])
            began = self._size.begin()
            call = self._call(part, columns)
            rows = self._run(call) if call is not None else None
            if rows is None:  # find out who is to blame
                lines = lines or list(self._lines(data, offset, columns))
                self._predict_batch(lines[start:end], block, result)
            else:
                self._size.learn(began, len(part))
                result.lines.append(self._encode(rows))
                result.n_predictions += len(rows)
            start = end

    def _run(self, call: Call) -> list[Any] | None:
        try:
            rows = self._adapter.run(call)
        except (Exception, SystemExit):
            return None
        return rows if len(rows) == call.n_rows else None

    # --- instances one by one ---

    def _records(self, block: Block) -> Iterator[_Instance]:
        offset = block.offset
        for record in block.records:
            value: Any = record
            if not self._takes_text:
                value = PredictionError("TFRecord instances need a signature with one input, a string.")
            yield _Instance(offset, record, value)
            offset += len(record) + 16

    def _lines(self, data: bytes, offset: int, columns: list[str] | None) -> Iterator[_Instance]:
        for line in data.split(b"\n")[:-1]:
            raw = line.rstrip(b"\r")
            if raw.strip():
                try:
                    value = self._value(raw.decode("utf-8-sig" if offset == 0 else "utf-8"), columns)
                except UnicodeDecodeError as error:
                    value = PredictionError(f"Error processing input: the line is no UTF-8: {error}")
                except csv.Error as error:
                    value = PredictionError(f"Error processing input: the line is no CSV: {error}")
                yield _Instance(offset, raw, value)
            offset += len(line) + 1

    def _value(self, text: str, columns: list[str] | None) -> Any:
        first = text.lstrip()[:1]
        if columns is not None:
            return self._named(text, columns)
        if self._data_format == "CSV" and not self._takes_text:
            return [_cell(cell) for cell in _cells(text)]
        if self._takes_text and (self._data_format != "JSON" or first not in '{"'):
            return _parsed(text, default=text) if first == "{" else text
        value = _parsed(text, default=None)
        if value is None and text.strip() != "null":
            if self._takes_text:
                return text
            if first in '[{"':
                return PredictionError("Error processing input: the line is no JSON.")
            cells = [_cell(cell) for cell in _cells(text)]
            return cells[0] if len(cells) == 1 else cells
        return value

    def _named(self, text: str, columns: list[str]) -> Any:
        cells = _cells(text)
        if len(cells) != len(columns):
            return PredictionError(
                f"Error processing input: the line has {len(cells)} cells, the header {len(columns)}."
            )
        return {name: _cell(cells[columns.index(name)]) for name in self._names or ()}

    def _predict_instances(self, instances: list[_Instance], block: Block, result: Result) -> None:
        start = 0
        while start < len(instances):
            end = start + self._size.rows
            batch = instances[start:end]
            began = self._size.begin()
            if self._predict_batch(batch, block, result):
                self._size.learn(began, len(batch))
            start = end

    def _predict_batch(self, batch: Sequence[_Instance], block: Block, result: Result) -> bool:
        """Predict them, in halves where the whole fails; whether it went through at once."""
        unread = [each for each in batch if isinstance(each.value, PredictionError)]
        if not unread:
            return self._predict_some(batch, block, result)
        good: list[_Instance] = []
        for each in batch:  # in order, also of the errors
            if isinstance(each.value, PredictionError):
                self._predict_some(good, block, result)
                good = []
                result.errors.append(_error(each, block, each.value))
            else:
                good.append(each)
        self._predict_some(good, block, result)
        return False

    def _predict_some(self, batch: Sequence[_Instance], block: Block, result: Result) -> bool:
        if not batch:
            return True
        try:
            call = self._adapter.prepare({"instances": [each.value for each in batch], **self._extra})
            rows = self._adapter.run(call)
            if len(rows) != len(batch):
                raise PredictionError(f"The model gave {len(rows)} predictions for {len(batch)} instances.")
            result.lines.append(self._encode(rows))
            result.n_predictions += len(rows)
            return True
        except (Exception, SystemExit) as error:  # a model's predict may call sys.exit
            if len(batch) == 1:
                result.errors.append(_error(batch[0], block, error))
                return False
        middle = len(batch) // 2
        self._predict_some(batch[:middle], block, result)
        self._predict_some(batch[middle:], block, result)
        return False


class _Lines:
    """A file for pandas, which would decode what is in an `io.BytesIO`, and encode it again."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError  # pandas takes what has this for a file, and reads


def _count(data: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord(character)))


class _BatchSize:
    """How many instances go into a call: as told, or twice as many as long as that saves a tenth of the time.

    One doubling that does not may be a busy moment of the machine, so it takes two in a row to end the search; the
    quickest size of all stays.
    """

    def __init__(self, told: int, clock: Callable[[], float]) -> None:
        self.rows = told or FIRST_BATCH_ROWS
        self._settled = told > 0
        self._clock = clock
        self._calls: list[float] = []
        self._tried: list[tuple[float, int]] = []

    def begin(self) -> float:
        """The time before a call."""
        return self._clock()

    def learn(self, began: float, n_rows: int) -> None:
        """A call has been made; the quickest of three counts, unless the next smaller size would have done for it."""
        if self._settled or n_rows <= self.rows // 2:
            return
        self._calls.append((self._clock() - began) / n_rows)
        if len(self._calls) < 3:
            return
        self._tried.append((min(self._calls), self.rows))
        self._calls = []
        before, last_two = self._tried[:-2], self._tried[-2:]
        in_vain = bool(before) and min(last_two)[0] > min(before)[0] * _WORTH
        if in_vain or self.rows >= LARGEST_BATCH_ROWS:
            self._settled = True
            self.rows = min(self._tried)[1]
        else:
            self.rows *= 2


def json_lines(rows: list[Any]) -> bytes:
    """One JSON text per row, each with its line end."""
    try:
        whole = dumps(rows)
    except (TypeError, ValueError):  # integers beyond 64 bits, objects
        return b"".join(dumps_slowly(jsonable(row)) + b"\n" for row in rows)
    # A list of numbers, or of lists of numbers, is cut in one go.
    if b'"' not in whole and b"{" not in whole:
        if whole.count(b"[") == 1 and whole.count(b",") == len(rows) - 1:
            return whole[1:-1].replace(b",", b"\n") + b"\n"
        if whole.count(b"[") == len(rows) + 1 and whole.count(b"],[") == len(rows) - 1:
            return whole[1:-1].replace(b"],[", b"]\n[") + b"\n"
    return b"".join(dumps(row) + b"\n" for row in rows)


def _csv_lines(rows: list[Any]) -> bytes:
    """One line of CSV per row: the values of lists and objects side by side, what is nested in them as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        values = list(row.values()) if isinstance(row, dict) else row if isinstance(row, list) else [row]
        writer.writerow([dumps(v).decode() if isinstance(v, (list, dict)) else v for v in values])
    return text.getvalue().encode()


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _cell(text: str) -> Any:
    """A cell as JSON would have it: a number, null where it is empty, else text."""
    stripped = text.strip()
    if not stripped:
        return None
    for kind in (int, float):
        try:
            return kind(stripped)
        except ValueError:
            pass
    return text


def _parsed(text: str, *, default: Any) -> Any:
    try:
        return loads(text.encode())
    except (ValueError, RecursionError):
        return default


def _error(instance: _Instance, block: Block, error: BaseException) -> dict[str, Any]:
    words = error.detail if isinstance(error, PredictionError) else f"{type(error).__name__}: {describe(error)}"
    return {
        "input": block.piece.uri,
        "offset": instance.offset,
        "error": "Prediction failed: " + words,
        "instance": instance.raw[:_SHOWN_BYTES].decode(errors="replace"),
    }
