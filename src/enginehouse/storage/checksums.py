"""Checksums that grow with the bytes, so that no content is read twice. Called by whatever writes content.

MD5 takes longer than all else that is done with the bytes, so that of a large block is computed in another thread
while the block is written and the next one comes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor

import google_crc32c

from enginehouse.core.errors import InvalidArgument
from enginehouse.storage.base import Digests

_LARGE_BYTES = 256 * 1024
"""To hand a block of this size to another thread costs less than it saves."""
_THREADS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="md5")


class Checksums:
    """Size, md5 and crc32c of the bytes given so far. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashing: Future[None] | None = None  # of one block at a time, in their order
        self._crc32c = 0
        self.size_bytes = 0

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self._wait()
        if len(data) >= _LARGE_BYTES:
            self._hashing = _THREADS.submit(self._md5.update, data)
        else:
            self._md5.update(data)
        self._crc32c = google_crc32c.extend(self._crc32c, data)
        self.size_bytes += len(data)

    @property
    def md5(self) -> str:
        """Base64 of the MD5 digest: the field `md5Hash`."""
        self._wait()
        return base64.b64encode(self._md5.digest()).decode("ascii")

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    @property
    def crc32c(self) -> str:
        """Base64 of the big-endian CRC32C: the field `crc32c`."""
        return base64.b64encode(self._crc32c.to_bytes(4, "big")).decode("ascii")

    def verify(self, expected: Digests) -> None:
        """Hold them against what the client said.

        Raises:
            InvalidArgument: naming the checksum that differs.
        """
        for field, told, computed in (
            ("md5Hash", expected.md5, self.md5),
            ("crc32c", expected.crc32c, self.crc32c),
        ):
            if told is not None and told != computed:
                raise InvalidArgument(
                    f"Provided {field} {told!r} doesn't match the calculated {computed!r}.", field=field
                )
