"""Pages of what passes a filter, from pages of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from enginehouse.core.filters import EVERYTHING, Filter, lookup_in
from enginehouse.metadata.records import Page
from enginehouse.schemas.wire import Message, to_builtins

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_MAX_SCANNED_PAGES = 200


def filtered_page(
    read: Callable[[str], Page[T]], show: Callable[[T], M], wanted: Filter, *, page_size: int, page_token: str
) -> tuple[list[M], str]:
    """Go through `read`'s pages until `page_size` items pass, as messages.

    A page of the answer ends where a page of `read` ends, so that its token is one of `read`'s own; it may hold fewer
    items than asked, as list methods may.

    Args:
        read: page token → the next page of everything, of at most `page_size` items.
        show: the message of an item; the filter looks at its JSON.

    Returns:
        The messages and the next token, empty at the end.
    """
    shown: list[M] = []
    for _ in range(_MAX_SCANNED_PAGES):
        page = read(page_token)
        messages = [show(item) for item in page.items]
        passing = messages
        if wanted is not EVERYTHING:
            passing = [message for message in messages if wanted.matches(lookup_in(to_builtins(message)))]
        if shown and len(shown) + len(passing) > page_size:
            return shown, page_token
        shown += passing
        page_token = page.next_token
        if not page_token or len(shown) >= page_size:
            break
    return shown, page_token
