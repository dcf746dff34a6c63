"""Random ids and etags."""

from __future__ import annotations

import base64
import secrets

from enginehouse.core.errors import Aborted


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


def check_etag(sent: str, revision: int, *, kind: str = "resource") -> None:
    """Refuse an update that was made from an old state. No etag, no check.

    Args:
        sent: the client's etag, or "".
        revision: what the etag must name.
        kind: the word for what changed, in the error.

    Raises:
        Aborted: the etag names another revision.
    """
    if sent and not etag_matches(sent, revision):
        raise Aborted(f"The {kind} has changed since it was read (etag); read it again and repeat the update.")
