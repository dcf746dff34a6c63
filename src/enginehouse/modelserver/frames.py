"""The frames on the socket between the engine and a model server. Both sides import this module.

A frame is a header of ten bytes and a payload:

    uint32  payload size in bytes     (little endian, all three)
    uint32  request id                chosen by the engine; 0 is the model server itself
    uint16  status                    what is asked for in a request, the HTTP status in an answer

The engine sends request bodies as they came from the client, or tensors as `pack_tensors` puts them; answers may come
in any order. The first frame of a model server has the id 0 and says how loading went: status 200 and a report, or
status 400 and `{"message": …}`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEADER = struct.Struct("<IIH")
PREDICT, EXPLAIN = 0, 1
"""What a request asks for."""
TENSORS = b"\0"
"""Begins a body that is no JSON, but `pack_tensors`'s."""
TENSORS_HEADER = struct.Struct("<cI")
CONTROL_ID = 0
"""The request id of what the model server says of itself."""


def pack(request_id: int, status: int, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(payload), request_id, status) + payload


def pack_tensors(tensors: Sequence[tuple[Mapping[str, Any], bytes]], signature_name: str) -> bytes:
    """A request body whose instances are the rows of tensors: a header, its size before it, and the tensors' bytes.

    Args:
        tensors: of each, `{"name": …, "dtype": numpy's, such as "<f4", "shape": […]}`, and its bytes.
        signature_name: "" for the default.
    """
    told: dict[str, Any] = {"tensors": [described for described, _ in tensors]}
    if signature_name:
        told["signature_name"] = signature_name
    header = json.dumps(told).encode()
    return b"".join([TENSORS_HEADER.pack(TENSORS, len(header)), header, *(data for _, data in tensors)])


class FrameReader:
    """Cuts a byte stream into frames. Belongs to one reader of one socket."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._needed_bytes = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Take what was read and yield (request id, status, payload) of each frame that is now whole."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed_bytes:
                return
            data = bytes(self._partial)
            self._partial.clear()
        offset, end = 0, len(data)
        needed_bytes = HEADER.size
        while end - offset >= HEADER.size:
            size_bytes, request_id, status = HEADER.unpack_from(data, offset)
            needed_bytes = HEADER.size + size_bytes
            if end - offset < needed_bytes:
                break
            start, offset = offset + HEADER.size, offset + needed_bytes
            needed_bytes = HEADER.size
            yield request_id, status, data[start:offset]
        if offset < end:
            self._partial += data[offset:]
            self._needed_bytes = needed_bytes
