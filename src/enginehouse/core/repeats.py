"""Creates that are safe to repeat: who lost an answer and asks again gets what the first request made.

gcloud repeats a create up to five times after a broken connection or an answer of 500, and would report its own
resource as a conflict. A create carries a key of its caller and content; the same key means the same request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

ANONYMOUS_WINDOW_S = 30.0
"""How long a request without a caller's name counts as a repetition of an equal one: as long as clients try."""
_NAMED = "named-"


class Created(Protocol):
    """What a store keeps of a create."""

    @property
    def creation_key(self) -> str: ...

    @property
    def create_time_ns(self) -> int: ...


def creation_key(caller: str, message: Mapping[str, Any]) -> str:
    """The key of a create.

    Args:
        caller: what names one run of a client, such as gcloud's invocation id; empty if the client has none.
        message: the request's body, JSON-ready.
    """
    digest = hashlib.sha256(json.dumps([caller, message], sort_keys=True).encode()).hexdigest()[:32]
    return (_NAMED if caller else "") + digest


def is_repeat(sent: Created, existing: Created) -> bool:
    """Whether `sent` asks for what `existing` is, once more."""
    if not sent.creation_key or sent.creation_key != existing.creation_key:
        return False
    age_s = (sent.create_time_ns - existing.create_time_ns) / 1e9
    return sent.creation_key.startswith(_NAMED) or age_s <= ANONYMOUS_WINDOW_S
