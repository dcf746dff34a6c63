"""The end of a client's connection that may be lent to a model server (`serving.lending`).

`main` gives `LendableProtocol` to uvicorn. An application that has answered a request from a model server calls
`scope["extensions"]["enginehouse.lend"]` with its lender, and what that is to know where requests are told of (else
None); as soon as the answer is out, the connection is lent.
"""

from __future__ import annotations

from typing import Any

from enginehouse.api.protocol import BoundedProtocol
from enginehouse.serving.lending import Head, Lender, Telling


class LendableProtocol(BoundedProtocol):
    """An HTTP connection that pauses while a model server answers on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = b""
        self._at_boundary = True
        self._head: Head | None = None
        self._offer: tuple[Lender, Telling | None] | None = None
        self._lender: Lender | None = None
        self._slot = 0
        self._shutting_down = False
        self._expired = False

    def data_received(self, data: bytes) -> None:
        # Only a request whose head came in one piece, with nothing before it, is taken as it was sent.
        self._received = data if self._at_boundary else b""
        super().data_received(data)
        self._received = b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        received, self._received = self._received, b""
        self._head = None
        self._at_boundary = False
        extensions: dict[str, Any] = {"enginehouse.lend": lambda *offer: self._accept(offer, received)}
        if self._expired:
            extensions["enginehouse.expired"] = {}
            self._expired = False
        self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._at_boundary = True

    def _accept(self, offer: tuple[Lender, Telling | None], received: bytes) -> None:
        self._head = Head.of(received) if received.startswith(b"POST ") else None
        self._offer = offer

    def on_response_complete(self) -> None:
        is_last = not self.pipeline  # else the next request is being answered when uvicorn's part returns
        super().on_response_complete()
        offer, self._offer = self._offer, None
        head, self._head = self._head, None
        if offer is None or head is None or not is_last or not self._at_boundary or self._shutting_down:
            return
        if not self.cycle.keep_alive or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return
        self.flow.pause_reading()
        lender, telling = offer
        slot = lender.lend(self, head, telling)
        if slot is None:
            self.flow.resume_reading()
            return
        self._unset_keepalive_if_required()
        self._lender, self._slot = lender, slot

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lender is not None:
            self._lender.forget(self._slot)
            self._lender = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._shutting_down = True
        if self._lender is not None:
            self._lender.recall(self._slot)
        else:
            super().shutdown()

    # serving.lending.Connection

    def fileno(self) -> int:
        if self.transport.is_closing():
            return -1
        number: int = self.transport.get_extra_info("socket").fileno()
        return number

    def returned(self, *, expired: bool) -> None:
        self._lender = None
        self._expired = expired
        if self.transport.is_closing():
            return
        if self._shutting_down:
            super().shutdown()
            return
        self.flow.resume_reading()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def abort(self) -> None:
        self._lender = None
        self.transport.abort()
