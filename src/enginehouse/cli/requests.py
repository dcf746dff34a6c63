"""`mle requests`: the tables of request-response logging, queried with DuckDB."""

from __future__ import annotations

import operator
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client
    from enginehouse.sdk.objects import RemoteObject

Table = tuple[str, str, str]
"""Project, dataset and name."""


@click.group(cls=Group, examples="mle requests list")
def requests() -> None:
    """Look at the sampled requests of versions with a requestLoggingConfig."""


@requests.command("list", examples="mle requests list")
@pass_invocation
def list_tables(invocation: Invocation) -> None:
    """List the tables, with their files."""
    from enginehouse.cli.output import field, print_list

    rows = [
        {"table": ".".join(table), "files": len(objects), "bytes": sum(each.size_bytes for each in objects)}
        for table, objects in sorted(_tables(invocation.client()).items())
    ]
    print_list(invocation, rows, [(name.upper(), field(name)) for name in ("table", "files", "bytes")])


@requests.command(
    examples="""
        mle requests query 'SELECT model_version, count(*) AS n FROM monitoring.iris GROUP BY 1'
        mle requests query 'SELECT time, raw_prediction FROM `my-project.monitoring.iris` ORDER BY time' --format json
    """
)
@click.argument("sql")
@pass_invocation
def query(invocation: Invocation, sql: str) -> None:
    """Run SQL on the tables; they are named as in BigQuery: DATASET.TABLE or `PROJECT.DATASET.TABLE`.

    The project may be left out where it is the one that is worked in, or no other one has a table of that name.
    """
    from enginehouse.cli.output import print_list

    try:
        import duckdb
    except ImportError:
        raise FailedPrecondition(
            "Queries need DuckDB, which is not installed. Install it with: pip install 'enginehouse[query]'"
        ) from None
    client = invocation.client()
    tables = _tables(client)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        for number, (table, objects) in enumerate(sorted(tables.items())):
            if table[2] in sql:
                _download(client, objects, Path(folder) / str(number))
                is_only = sum(each[1:] == table[1:] for each in tables) == 1
                is_short = is_only or table[0] == client.project
                _make_view(connection, table, Path(folder) / str(number), is_short=is_short)
        try:
            answer = connection.execute(_in_duckdb(sql))
            names_of_columns = [column[0] for column in answer.description]
            rows = [dict(zip(names_of_columns, map(_plain, row), strict=True)) for row in answer.fetchall()]
        except duckdb.Error as error:
            known = ", ".join(".".join(table) for table in sorted(tables)) or "none yet"
            raise InvalidArgument(f"{error} (Tables: {known}.)") from None
    columns = [(name.upper(), operator.itemgetter(name)) for name in names_of_columns]
    print_list(invocation, rows, columns)


def _tables(client: Client) -> dict[Table, list[RemoteObject]]:
    """The objects of each table."""
    from enginehouse.core.errors import NotFound

    bucket = client.engine.flush_requests()
    tables: dict[Table, list[RemoteObject]] = {}
    try:
        for each in client.storage.list(bucket):
            parts = each.uri.name.split("/")
            if len(parts) == 4 and parts[3].endswith(".parquet"):
                tables.setdefault((parts[0], parts[1], parts[2]), []).append(each)
    except NotFound:  # nothing was ever sampled
        pass
    return tables


def _download(client: Client, objects: list[RemoteObject], folder: Path) -> None:
    folder.mkdir()
    for number, each in enumerate(objects):
        client.storage.download_file(each, folder / f"{number}.parquet")


def _make_view(connection: Any, table: Table, folder: Path, *, is_short: bool) -> None:
    """The table as project.dataset.table; as dataset.table, too, where it may be called so."""
    catalog, dataset, name = table
    connection.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {_quoted(catalog)}")
    for each in [catalog, "memory"] if is_short else [catalog]:
        schema = f"{_quoted(each)}.{_quoted(dataset)}"
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(f"CREATE VIEW {schema}.{_quoted(name)} AS FROM read_parquet('{folder}/*.parquet')")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _in_duckdb(sql: str) -> str:
    """BigQuery's backticks as DuckDB's quotes: `a.b.c` and `a`.`b`."""
    return re.sub(r"`([^`]*)`", lambda found: ".".join(map(_quoted, found[1].rsplit(".", 2))), sql)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
