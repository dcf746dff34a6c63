"""Wildcards in object and bucket names: `*`, `?`, `[abc]` within one level, `**` across levels.

In: a `gs://` text that may hold wildcards. Out: the objects and folders (prefixes) that it matches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from enginehouse.core.errors import NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.objects import RemoteObject
from enginehouse.sdk.storage import Storage

_WILD = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*/|\*+|\?|\[!?[^\]/]+\]|[^*?\[]+|\[")


@dataclass
class Found:
    """What a text names. `prefixes` are folders: URIs whose names end with `/` (or are empty: the bucket)."""

    objects: list[RemoteObject] = field(default_factory=list)
    prefixes: list[ObjectUri] = field(default_factory=list)


def has_wildcard(text: str) -> bool:
    return _WILD.search(text) is not None


def compile_pattern(text: str) -> re.Pattern[str]:
    """A regular expression for `fullmatch` on a whole object name."""
    parts = []
    for token in _TOKEN.findall(text):
        if token == "**/":
            parts.append("(?:.*/)?")
        elif token.startswith("**"):
            parts.append(".*")
        elif token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif token.startswith("[") and len(token) > 1:
            inner = token[1:-1].replace("\\", r"\\")
            parts.append("[" + ("^" + inner[1:] if inner.startswith("!") else inner) + "]")
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def split_uri(text: str) -> tuple[str, str]:
    """Bucket and name of `gs://BUCKET/NAME`, unjudged, since both may hold wildcards."""
    bucket, _, name = text.removeprefix("gs://").partition("/")
    return bucket, name


def resolve(storage: Storage, text: str) -> Found:
    """The objects and folders that `text` names, wildcards or not.

    Raises:
        NotFound: nothing matches.
        InvalidArgument: a name that no bucket or object can have.
    """
    bucket, name = split_uri(text)
    if has_wildcard(bucket):
        pattern = compile_pattern(bucket)
        matching = [b["name"] for b in storage.list_buckets() if pattern.fullmatch(b["name"])]
        found = Found()
        for each in matching:
            part = _resolve_in(storage, ObjectUri(each, name))
            found.objects += part.objects
            found.prefixes += part.prefixes
    else:
        found = _resolve_in(storage, ObjectUri.parse(text))
    if not found.objects and not found.prefixes:
        raise NotFound(f"{text} matches no objects.")
    return found


def _resolve_in(storage: Storage, uri: ObjectUri) -> Found:
    if not uri.name:
        storage.get_bucket(uri.bucket)
        return Found(prefixes=[uri])
    exact = None if uri.name.endswith("/") else storage.find(uri)
    if exact is not None:
        return Found(objects=[exact])
    if has_wildcard(uri.name):
        return _match_across(storage, uri) if "**" in uri.name else _match_levels(storage, uri)
    folder = ObjectUri(uri.bucket, uri.name.rstrip("/") + "/")
    return Found(prefixes=[folder] if storage.has_prefix(folder) else [])


def _match_across(storage: Storage, uri: ObjectUri) -> Found:
    pattern = compile_pattern(uri.name)
    objects = storage.list(uri.bucket, _literal_start(uri.name))
    return Found(objects=[each for each in objects if pattern.fullmatch(each.uri.name)])


def _match_levels(storage: Storage, uri: ObjectUri) -> Found:
    """Go down one level per segment, so that a wildcard near the top doesn't list the whole bucket."""
    *folders, last = uri.name.rstrip("/").split("/")
    starts = [""]
    for segment in folders:
        pattern = compile_pattern(segment + "/")
        starts = [
            prefix
            for start in starts
            for prefix in storage.list_level(uri.bucket, start + _literal_start(segment)).prefixes
            if pattern.fullmatch(prefix[len(start) :])
        ]
    found = Found()
    pattern = compile_pattern(last)
    for start in starts:
        level = storage.list_level(uri.bucket, start + _literal_start(last))
        if not uri.name.endswith("/"):
            found.objects += [each for each in level.objects if pattern.fullmatch(each.uri.name[len(start) :])]
        found.prefixes += [
            ObjectUri(uri.bucket, prefix)
            for prefix in level.prefixes
            if pattern.fullmatch(prefix[len(start) :].rstrip("/"))
        ]
    return found


def _literal_start(text: str) -> str:
    match = _WILD.search(text)
    return text[: match.start()] if match else text
