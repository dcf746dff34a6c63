"""gs:// paths with wildcards: `*` and `?` within a folder, `**` across folders, `[abc]`; a folder means all below it.

Standard library only: the engine judges jobs by it, and the program of a job finds its inputs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WILD = re.compile(r"\*\*|\*|\?|\[[^\]]+\]")


@dataclass(frozen=True)
class Pattern:
    """One path.

    Attributes:
        bucket: its bucket.
        prefix: what the names of all matching objects begin with.
        regex: matches whole names.
    """

    bucket: str
    prefix: str
    regex: str

    @classmethod
    def parse(cls, path: str) -> Pattern:
        """Take `gs://bucket/folder/part-*.csv` apart; the caller has checked that it is a gs:// path."""
        bucket, _, name = path[len("gs://") :].partition("/")
        if not name or name.endswith("/"):
            name += "**"
        first = _WILD.search(name)
        regex, end = "", 0
        for wild in _WILD.finditer(name):
            regex += re.escape(name[end : wild.start()]) + _regex_of(wild.group())
            end = wild.end()
        return cls(bucket, name[: first.start()] if first else name, regex + re.escape(name[end:]))

    def matches(self, name: str) -> bool:
        """Whether an object of that name is meant; placeholders of folders never are."""
        return not name.endswith("/") and re.fullmatch(self.regex, name, re.DOTALL) is not None


def _regex_of(wild: str) -> str:
    if wild == "**":
        return ".*"
    if wild == "*":
        return "[^/]*"
    if wild == "?":
        return "[^/]"
    body = wild[1:-1]
    negated = body[0] in "!^" and len(body) > 1
    return "[" + ("^" if negated else "") + body[negated:].replace("\\", r"\\") + "]"
