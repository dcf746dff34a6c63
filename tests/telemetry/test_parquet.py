"""Our Parquet files as DuckDB reads them."""

from __future__ import annotations

import datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginehouse.telemetry.parquet import Column, write

COLUMNS = (Column("name", "text"), Column("moment", "time"), Column("remark", "text", optional=True))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(st.tuples(TEXTS, st.integers(0, 4_000_000_000_000_000), st.none() | TEXTS), max_size=40)


@given(ROWS)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duckdb_reads_what_was_written(tmp_path: Path, rows: list[tuple[str, int, str | None]]) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(write(COLUMNS, rows))
    found = duckdb.sql(f"SELECT name, epoch_us(moment), remark FROM '{path}'").fetchall()
    assert found == rows


def test_types_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(write(COLUMNS, [("a", 1_700_000_000_000_001, None)]))
    [(name, at, remark)] = duckdb.sql(f"SELECT * FROM '{path}'").fetchall()
    moment = datetime.datetime(2023, 11, 14, 22, 13, 20, 1, datetime.UTC)
    assert (name, at.astimezone(datetime.UTC), remark) == ("a", moment, None)
    types = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM '{path}')").fetchall())
    assert types == {"name": "VARCHAR", "moment": "TIMESTAMP WITH TIME ZONE", "remark": "VARCHAR"}


def test_a_required_value_is_required() -> None:
    with pytest.raises(ValueError, match="name needs a value"):
        write(COLUMNS, [(None, 1, "x")])
