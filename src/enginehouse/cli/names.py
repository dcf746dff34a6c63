"""Resources on the command line: an id, a relative name, or the full URL of one; the project in a name wins."""

from __future__ import annotations

import re

from enginehouse.cli.invocation import Invocation

_NAME = re.compile(
    r"(?:https?://[^/]+/v1/)?projects/([^/]+)/(?:jobs|models|operations)/([^/]+)(?:/versions/([^/]+))?/?"
)


def resource_id(invocation: Invocation, text: str) -> str:
    """The id in `X`, `projects/P/jobs/X` or `https://HOST/v1/projects/P/jobs/X` (models and operations likewise).

    The last part counts, so that the full name of a version gives the version's id.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        return text
    invocation.project = match.group(1)
    return str(match.group(3) or match.group(2))
