"""The index of a local store: one SQLite file that says which objects there are and which blob holds each.

Comes in: transactions of `local`, `uploads` and `listing`. An object exists when, and only when, a row here names its
blob. Names are TEXT with SQLite's BINARY collation, whose order is that of the UTF-8 bytes.

A kill of the process loses no committed transaction. After a power cut the last seconds may be missing
(`synchronous=NORMAL`, and blobs are not fsynced), as for the engine's other data.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from enginehouse.core.errors import FailedPrecondition, Unavailable
from enginehouse.storage.rows import Rows

T = TypeVar("T")

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30.0
_SCHEMA = """
CREATE TABLE buckets (
    name TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    location TEXT NOT NULL,
    storage_class TEXT NOT NULL,
    labels TEXT NOT NULL,               -- JSON object
    metageneration INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE objects (
    bucket TEXT NOT NULL REFERENCES buckets (name),
    name TEXT NOT NULL,
    blob TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    crc32c TEXT NOT NULL,
    generation INTEGER NOT NULL,
    metageneration INTEGER NOT NULL,
    component_count INTEGER,
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    attributes TEXT NOT NULL,           -- JSON of base.ObjectAttributes
    PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    blob TEXT NOT NULL UNIQUE,
    request TEXT NOT NULL,              -- JSON: what the object shall be, see uploads.Request
    result TEXT,                        -- JSON of base.ObjectInfo; NULL while bytes may come
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('generation', 0);
"""


class Index:
    """A pool of connections to the index. Safe from any thread, and beside other processes."""

    def __init__(self, path: Path) -> None:
        """Open the index, making it if need be.

        Raises:
            FailedPrecondition: it was written by a newer release.
        """
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._peek_lock = threading.Lock()
        self._peeking: sqlite3.Connection | None = None
        with self.write() as rows:
            version = rows.connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    rows.connection.execute(statement)
                rows.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise FailedPrecondition(
                    f"The objects were written by a newer release of Enginehouse (index version {version}; this one "
                    f"knows {SCHEMA_VERSION}). Upgrade Enginehouse, or use another data directory."
                )

    @contextlib.contextmanager
    def read(self) -> Iterator[Rows]:
        """A transaction that sees one state of everything and changes nothing."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield Rows(connection)
            finally:
                connection.execute("ROLLBACK")

    def peek(self, read: Callable[[Rows], T]) -> T | None:
        """What one query of `read` finds, without waiting for anybody; None when the index is busy."""
        if not self._peek_lock.acquire(blocking=False):
            return None
        try:
            if self._peeking is None:
                self._peeking = self._connect(timeout_s=0.0)
            return read(Rows(self._peeking))
        except sqlite3.OperationalError:
            return None
        finally:
            self._peek_lock.release()

    @contextlib.contextmanager
    def write(self) -> Iterator[Rows]:
        """A transaction that may change things; one at a time. It is undone when the block raises.

        Raises:
            Unavailable: another process kept the index locked for too long.
        """
        with self._write_lock, self._connection() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise Unavailable(f"The object index is busy: {error}. Try again.") from error
            try:
                yield Rows(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._pool_lock:
            while self._idle:
                self._idle.pop().close()
        with self._peek_lock:
            if self._peeking is not None:
                self._peeking.close()
                self._peeking = None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._pool_lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._pool_lock:
                self._idle.append(connection)

    def _connect(self, timeout_s: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
        # isolation_level=None: BEGIN is ours to write. One thread at a time uses a connection, not always the same.
        connection = sqlite3.connect(self._path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection
