"""Random ids and etags."""

from __future__ import annotations

import base64
import secrets


def new_id(length: int = 16) -> str:
    """A random lower-case hex id of `length` characters (4 bits each), safe in file names and URLs."""
    return secrets.token_hex((length + 1) // 2)[:length]


def etag(revision: int) -> str:
    """The etag of a resource at `revision`: canonical padded base64, as `format: byte` needs.

    gcloud decodes and encodes it again, and crashes on anything that is not valid base64.
    """
    return base64.b64encode(revision.to_bytes(8, "big")).decode("ascii")


def etag_matches(sent: str, revision: int) -> bool:
    """Whether a client's etag names `revision`. Compared as bytes, since clients re-encode it."""
    try:
        raw = base64.b64decode(sent.replace("-", "+").replace("_", "/") + "=" * (-len(sent) % 4))
    except ValueError:
        return False
    return raw == revision.to_bytes(8, "big")
