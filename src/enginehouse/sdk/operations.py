"""Long-running operations: read, list, cancel, wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from enginehouse.core.errors import DeadlineExceeded
from enginehouse.sdk.errors import error_from_rpc_status
from enginehouse.sdk.transport import Transport

_FIRST_POLL_S = 0.1
_LAST_POLL_S = 1.0


class Operations:
    """`projects.operations`.

    Args:
        sleep: waits between two looks, in seconds; a parameter so that tests need no real time.
    """

    def __init__(self, transport: Transport, parent: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._transport = transport
        self._path = f"{parent}/operations"
        self._sleep = sleep

    def get(self, operation_id: str) -> dict[str, Any]:
        """One operation by its id or its full name."""
        return dict(self._transport.json("GET", self.path(operation_id)))

    def path(self, operation_id: str) -> str:
        """The URL path of an operation, given by its id or by `projects/P/operations/ID`."""
        if operation_id.startswith("projects/"):
            return f"/v1/{quote(operation_id)}"
        return f"{self._path}/{quote(operation_id, safe='')}"

    def list(self) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = self._transport.json("GET", self._path, query={"pageSize": 100, "pageToken": token})
            yield from page.get("operations", [])
            token = page.get("nextPageToken")
            if not token:
                return

    def cancel(self, operation_id: str) -> None:
        self._transport.json("POST", f"{self.path(operation_id)}:cancel", {})

    def wait(
        self,
        operation: Mapping[str, Any],
        *,
        on_poll: Callable[[], None] = lambda: None,
        timeout_s: float = 3600.0,
    ) -> dict[str, Any]:
        """Wait until an operation is done.

        Args:
            operation: as a create, patch or delete answered; no request is made when it is done already.
            on_poll: called before each look, for a sign of life.

        Returns:
            Its response, without `@type`.

        Raises:
            EngineError: the operation's error.
            DeadlineExceeded: it is still going on after `timeout_s`.
        """
        current = dict(operation)
        waited_s, delay_s = 0.0, _FIRST_POLL_S
        while not current.get("done"):
            if waited_s >= timeout_s:
                raise DeadlineExceeded(f"Operation [{current['name']}] is not done after {timeout_s:g} s.")
            on_poll()
            self._sleep(delay_s)
            waited_s += delay_s
            delay_s = min(delay_s * 1.5, _LAST_POLL_S)
            current = self.get(str(current["name"]))
        if "error" in current:
            raise error_from_rpc_status(current["error"])
        return {key: value for key, value in (current.get("response") or {}).items() if key != "@type"}
