"""The rows of the index, as typed values: the one place with the SQL of buckets, objects and resumable uploads.

Every method runs inside the transaction that `index` opened; nothing here begins, commits or touches a blob.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from enginehouse.core.errors import NotFound
from enginehouse.storage.base import BucketInfo, ObjectAttributes, ObjectInfo

_MICROSECOND_NS = 1000
_NO_ATTRIBUTES = "{}"
_DEFAULTS = vars(ObjectAttributes())


@dataclass(frozen=True)
class StoredObject:
    """An object and the blob with its content."""

    info: ObjectInfo
    blob: str


@dataclass(frozen=True)
class UploadRow:
    """A resumable upload: `request` is kept as JSON for `uploads`, `result` is None while bytes may come."""

    upload_id: str
    bucket: str
    name: str
    blob: str
    request: dict[str, Any]
    result: ObjectInfo | None
    created_ns: int


class Rows:
    """What one transaction sees and changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def blobs(self, prefix: str) -> set[str]:
        """The blobs of objects and unfinished uploads that begin with `prefix`."""
        query = (
            "SELECT blob FROM objects WHERE blob >= :first AND blob < :end UNION ALL"
            " SELECT blob FROM uploads WHERE blob >= :first AND blob < :end AND result IS NULL"
        )
        end = prefix + "g"  # blobs are hexadecimal
        return {row[0] for row in self.connection.execute(query, {"first": prefix, "end": end})}

    def next_generation(self, now_ns: int) -> int:
        """The time in microseconds, or one more than the last generation where the clock stood or went back."""
        query = "UPDATE counters SET value = max(value + 1, ?) WHERE name = 'generation' RETURNING value"
        return int(self.connection.execute(query, (now_ns // _MICROSECOND_NS,)).fetchall()[0][0])

    def change_mark(self) -> int:
        """Another number after each commit of another connection, in this process or elsewhere."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    # Buckets

    def bucket(self, name: str) -> BucketInfo:
        """The bucket; NotFound when there is none."""
        row = self.connection.execute("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise _no_bucket(name)
        return _bucket(row)

    def check_bucket(self, name: str) -> None:
        """NotFound when there is none."""
        if not self.has_bucket(name):
            raise _no_bucket(name)

    def has_bucket(self, name: str) -> bool:
        return self.connection.execute("SELECT 1 FROM buckets WHERE name = ?", (name,)).fetchone() is not None

    def buckets(self) -> list[BucketInfo]:
        """All, by name."""
        return [_bucket(row) for row in self.connection.execute("SELECT * FROM buckets ORDER BY name")]

    def put_bucket(self, info: BucketInfo) -> None:
        """Insert or replace."""
        values = {**vars(info), "labels": _to_json(info.labels)}
        self.connection.execute(
            "INSERT INTO buckets VALUES (:name, :project, :location, :storage_class, :labels, :metageneration,"
            " :created_ns, :updated_ns) ON CONFLICT (name) DO UPDATE SET storage_class = excluded.storage_class,"
            " labels = excluded.labels, metageneration = excluded.metageneration, updated_ns = excluded.updated_ns",
            values,
        )

    def delete_bucket(self, name: str) -> None:
        self.connection.execute("DELETE FROM buckets WHERE name = ?", (name,))

    # Objects

    def find(self, bucket: str, name: str) -> StoredObject | None:
        """The object, if there is one."""
        query = "SELECT * FROM objects WHERE bucket = ? AND name = ?"
        row = self.connection.execute(query, (bucket, name)).fetchone()
        return _stored(row) if row is not None else None

    def object(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        """The object; NotFound when there is none, or when it has another generation than the asked one."""
        stored = self.find(bucket, name)
        if stored is not None and generation in (None, stored.info.generation):
            return stored
        self.check_bucket(bucket)
        raise NotFound(f"No such object: {bucket}/{name}" + (f"#{generation}" if generation is not None else ""))

    def objects_from(self, bucket: str, start: str, end: str | None) -> Generator[StoredObject]:
        """The objects with `start` <= name < `end`, by name; read lazily. `end` None is the end of the bucket."""
        cursor = self._scan("*", bucket, start, end)
        try:
            for row in cursor:
                yield _stored(row)
        finally:
            cursor.close()

    def versions_from(self, bucket: str, start: str, end: str | None, limit: int) -> list[tuple[str, int, int]]:
        """Name, generation and metageneration of the first of them, at most `limit`."""
        return self._scan("name, generation, metageneration", bucket, start, end, limit).fetchall()

    def _scan(self, columns: str, bucket: str, start: str, end: str | None, limit: int = -1) -> sqlite3.Cursor:
        query = f"SELECT {columns} FROM objects WHERE bucket = ? AND name >= ?"
        arguments: list[object] = [bucket, start]
        if end is not None:
            query += " AND name < ?"
            arguments.append(end)
        cursor = self.connection.execute(query + " ORDER BY name LIMIT ?", [*arguments, limit])
        cursor.row_factory = None  # by position
        return cursor

    def is_empty(self, bucket: str) -> bool:
        query = "SELECT 1 FROM objects WHERE bucket = ? LIMIT 1"
        return self.connection.execute(query, (bucket,)).fetchone() is None

    def put_object(self, stored: StoredObject) -> None:
        """Insert or replace."""
        info = stored.info
        self.connection.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                info.bucket,
                info.name,
                stored.blob,
                info.size_bytes,
                info.md5,
                info.crc32c,
                info.generation,
                info.metageneration,
                info.component_count,
                info.created_ns,
                info.updated_ns,
                attributes_to_json(info.attributes),
            ),
        )

    def delete_object(self, bucket: str, name: str) -> None:
        self.connection.execute("DELETE FROM objects WHERE bucket = ? AND name = ?", (bucket, name))

    # Resumable uploads

    def put_upload(self, row: UploadRow) -> None:
        """Insert or replace."""
        self.connection.execute(
            "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                row.upload_id,
                row.bucket,
                row.name,
                row.blob,
                _to_json(row.request),
                _to_json(vars(row.result)) if row.result is not None else None,
                row.created_ns,
            ),
        )

    def upload(self, upload_id: str) -> UploadRow:
        """The upload; NotFound when there is none."""
        row = self.connection.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        if row is None:
            raise NotFound(f"No such upload: {upload_id}. It was cancelled, failed or is too old; begin again.")
        return _upload(row)

    def uploads_before(self, created_ns: int) -> list[UploadRow]:
        """Those begun before a time."""
        query = "SELECT * FROM uploads WHERE created_ns < ?"
        return [_upload(row) for row in self.connection.execute(query, (created_ns,))]

    def delete_upload(self, upload_id: str) -> None:
        self.connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))


def attributes_to_json(attributes: ObjectAttributes) -> str:
    """The attributes that are not as by default."""
    default = ObjectAttributes()
    return _to_json({name: value for name, value in vars(attributes).items() if value != getattr(default, name)})


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _no_bucket(name: str) -> NotFound:
    return NotFound(f"The specified bucket does not exist: {name}. You can create it: gsutil mb gs://{name}")


def _bucket(row: sqlite3.Row) -> BucketInfo:
    return BucketInfo(**{**dict(row), "labels": json.loads(row["labels"])})


def _stored(row: Sequence[Any]) -> StoredObject:
    # By position, as the table has them, and past the frozen class's own initialiser, which takes much longer:
    # listings are made of this.
    bucket, name, blob, size, md5, crc32c, generation, metageneration, components, created, updated, text = row
    info = object.__new__(ObjectInfo)
    values = vars(info)
    values.update(
        _DEFAULTS,
        bucket=bucket,
        name=name,
        size_bytes=size,
        md5=md5,
        crc32c=crc32c,
        generation=generation,
        metageneration=metageneration,
        component_count=components,
        created_ns=created,
        updated_ns=updated,
    )
    if text != _NO_ATTRIBUTES:
        values.update(orjson.loads(text))
    return StoredObject(info, blob)


def _upload(row: sqlite3.Row) -> UploadRow:
    result = row["result"]
    return UploadRow(
        upload_id=row["id"],
        bucket=row["bucket"],
        name=row["name"],
        blob=row["blob"],
        request=json.loads(row["request"]),
        result=ObjectInfo(**json.loads(result)) if result is not None else None,
        created_ns=row["created_ns"],
    )
