"""The logging API: `entries:list` for those who read the logs of jobs, `entries:write` for programs in them."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, in_thread, message_response, read_message
from enginehouse.jobs.entries import LogEntries
from enginehouse.schemas.logging import ListLogEntriesRequest, WriteLogEntriesRequest
from enginehouse.schemas.ml_v1 import Empty


@dataclass(frozen=True)
class LoggingApi:
    """The handlers of logging v2."""

    entries: LogEntries
    max_body_bytes: int

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v2/entries:list", endpoint(self._list), methods=["POST"]),
            Route("/v2/entries:write", endpoint(self._write), methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        message = await read_message(request, ListLogEntriesRequest, max_bytes=self.max_body_bytes)
        return message_response(request, await in_thread(self.entries.find, message))

    async def _write(self, request: Request) -> Response:
        message = await read_message(request, WriteLogEntriesRequest, max_bytes=self.max_body_bytes)
        await in_thread(self.entries.write, message)
        return message_response(request, Empty())
