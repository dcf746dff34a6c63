"""Which storage API a request means, told by its host.

At `storage.googleapis.com` a path is `/BUCKET/OBJECT` of the XML API unless it begins as the JSON API's do, and at
`BUCKET.storage.googleapis.com` it is `/OBJECT`. At every other host, the engine's own address above all, the XML API
does not exist, so that no bucket shadows another API. Called by the composition root.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from enginehouse.api.storage.routing import raw_path
from enginehouse.api.storage.xml import XmlApi
from enginehouse.storage.base import ObjectStore

STORAGE_HOSTS = ("storage.googleapis.com", "storage-download.googleapis.com", "commondatastorage.googleapis.com")
"""Hosts of the XML API; the JSON API is there too. The last one is the name in old settings of boto."""
_JSON_PATH = re.compile(
    rb"/(?:(?:(?:resumable/)?upload/|download/|batch/)?storage/v1|discovery/v1|\$discovery)(?:/.*)?|/batch"
)


class StorageHosts:
    """An ASGI application that answers XML API requests itself and hands everything else on.

    Args:
        store: what the XML API reads.
        app: the rest of the engine.
    """

    def __init__(self, store: ObjectStore, app: ASGIApp) -> None:
        self._xml = XmlApi(store)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if is_for_json_api(scope):
                await self._app(scope, receive, send)
                return
            bucket = bucket_of_host(host_of(scope))
            if bucket:
                path = b"/" + bucket.encode() + raw_path(scope)
                scope = {**scope, "raw_path": path, "path": unquote_to_bytes(path).decode(errors="replace")}
            await self._xml(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_for_json_api(scope: Scope) -> bool:
    """Whether an HTTP request is not for the XML API, by its host and path."""
    bucket = bucket_of_host(host_of(scope))
    return bucket is None or (not bucket and _JSON_PATH.fullmatch(raw_path(scope)) is not None)


def host_of(scope: Scope) -> str:
    """The Host header in lower case, without a port or a dot at its end; empty where there is none."""
    value: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return value.decode("latin-1").lower().partition(":")[0].removesuffix(".")


def bucket_of_host(host: str) -> str | None:
    """The bucket that a storage host names, "" if the path names it; None for any other host."""
    for storage_host in STORAGE_HOSTS:
        if host == storage_host:
            return ""
        if host.endswith("." + storage_host):
            return host.removesuffix("." + storage_host)
    return None
