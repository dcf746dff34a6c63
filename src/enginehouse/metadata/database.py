"""Connections and transactions: the part that knows one database from another.

A writer's transaction takes SQLite's write lock at its beginning (`BEGIN IMMEDIATE`): a reader that turns into a
writer fails at once under WAL, whatever the busy timeout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from enginehouse.core.errors import FailedPrecondition

_BUSY_TIMEOUT_MS = 30_000


class Database:
    """A pool of connections to one database. Safe to use from any thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(writer=True)

    @classmethod
    def sqlite(cls, path: Path) -> Database:
        """Open (and if needed make) the SQLite database in `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=32)

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # BEGIN is ours to write
            # NORMAL: a killed process loses nothing; a power cut may lose the last transactions, never the order.
            for pragma in (
                f"busy_timeout={_BUSY_TIMEOUT_MS}",
                "journal_mode=WAL",
                "synchronous=NORMAL",
                "foreign_keys=ON",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            writer = connection.get_execution_options().get("writer")
            # Past SQLAlchemy, which takes longer to hand this over than SQLite to do it.
            connection.connection.cursor().execute("BEGIN IMMEDIATE" if writer else "BEGIN")

        return cls(engine)

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of everything and changes nothing."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may change things; one at a time."""
        with self._writer.connect() as connection, connection.begin():
            yield connection

    def migrate(self) -> None:
        """Bring the tables to the newest shape.

        Raises:
            FailedPrecondition: the database was written by a newer release.
        """
        from enginehouse.metadata import migrations

        with self.read() as connection:
            current = migrations.current_revision(connection)
        if current == migrations.HEAD:
            return
        if current is not None and current not in migrations.REVISIONS:
            raise FailedPrecondition(
                f"The metadata was written by a newer release of Enginehouse (schema {current}; this one knows up to "
                f"{migrations.HEAD}). Upgrade Enginehouse, or use another data directory."
            )
        with self.write() as connection:
            migrations.upgrade(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()
