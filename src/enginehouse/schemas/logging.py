"""Messages of logging v2, as far as clients of jobs and versions use them.

Source: the `logging` v2 discovery document. What a client may send beyond these fields is read and left alone.
"""

from __future__ import annotations

from typing import Any

from enginehouse.schemas.wire import Message


class MonitoredResource(Message, forbid_unknown_fields=False):
    type: str = ""
    labels: dict[str, str] = {}


class LogEntry(Message, forbid_unknown_fields=False):
    log_name: str = ""
    resource: MonitoredResource | None = None
    timestamp: str = ""
    receive_timestamp: str = ""
    severity: str | int = ""
    insert_id: str = ""
    labels: dict[str, str] = {}
    text_payload: str = ""
    json_payload: dict[str, Any] | None = None
    http_request: dict[str, Any] | None = None


class ListLogEntriesRequest(Message, forbid_unknown_fields=False):
    resource_names: list[str] = []
    project_ids: list[str] = []
    filter: str = ""
    order_by: str = ""
    page_size: int = 0
    page_token: str = ""


class ListLogEntriesResponse(Message):
    entries: list[LogEntry] = []
    next_page_token: str = ""


class WriteLogEntriesRequest(Message, forbid_unknown_fields=False):
    log_name: str = ""
    resource: MonitoredResource | None = None
    labels: dict[str, str] = {}
    entries: list[LogEntry] = []
    dry_run: bool = False
