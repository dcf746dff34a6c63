"""Handlers of `/storage/v1/b/B/o`: everything about objects but their bytes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from enginehouse.api.storage.buckets import page_size
from enginehouse.api.storage.call import Call, parse_int64
from enginehouse.api.storage.downloads import download, not_modified
from enginehouse.api.storage.resources import merged_attributes
from enginehouse.core.errors import ConditionNotMet, InvalidArgument
from enginehouse.storage.base import AttributeChange, ComposeSource, ObjectAttributes, ObjectInfo, TextPage
from enginehouse.storage.resource import BASE_URL, object_resource


async def list_objects(call: Call) -> Response:
    """GET /b/B/o"""
    if call.query.get("matchGlob"):
        raise InvalidArgument("matchGlob is not known here; list by prefix and match the names.", field="matchGlob")
    if call.flag("softDeleted"):  # nothing that was deleted is kept
        return call.reply({"kind": "storage#objects"})
    query: dict[str, Any] = {
        "prefix": call.query.get("prefix", ""),
        "start_offset": call.query.get("startOffset", ""),
        "end_offset": call.query.get("endOffset", ""),
        "page_token": call.query.get("pageToken", ""),
        "max_results": page_size(call),
    }
    delimiter = call.query.get("delimiter", "")
    if not delimiter and call.wants_all:
        texts = await call.run(call.store.list_texts, call.path["bucket"], **query)
        if texts is not None:
            return call.reply_json(_listing(texts, call.base_url))
    page = await call.run(
        call.store.list,
        call.path["bucket"],
        delimiter=delimiter,
        include_trailing_delimiter=call.flag("includeTrailingDelimiter"),
        **query,
    )
    body: dict[str, Any] = {"kind": "storage#objects"}
    if page.objects:
        base_url = call.base_url
        body["items"] = [object_resource(info, base_url) for info in page.objects]
    if page.prefixes:
        body["prefixes"] = page.prefixes
    if page.next_page_token:
        body["nextPageToken"] = page.next_page_token
    return call.reply(body)


async def get(call: Call) -> Response:
    """GET /b/B/o/X: the resource, or with alt=media the content."""
    if call.query.get("alt") == "media":
        return await download(call)
    preconditions = call.preconditions()
    try:
        info = await call.run(
            call.store.get,
            call.path["bucket"],
            call.path["object"],
            generation=call.integer("generation"),
            preconditions=preconditions,
        )
    except ConditionNotMet as error:
        return not_modified(preconditions, error)
    return _resource(call, info)


async def patch(call: Call) -> Response:
    """PATCH /b/B/o/X: lays what is given over what is there."""
    body = await call.json()
    return await _change(call, functools.partial(merged_attributes, resource=body))


async def update(call: Call) -> Response:
    """PUT /b/B/o/X: what is not given goes back to its default."""
    new = merged_attributes(ObjectAttributes(), await call.json())
    return await _change(call, lambda _old: new)


async def delete(call: Call) -> Response:
    """DELETE /b/B/o/X"""
    await call.run(
        call.store.delete,
        call.path["bucket"],
        call.path["object"],
        generation=call.integer("generation"),
        preconditions=call.preconditions(),
    )
    return Response(status_code=204)


async def copy_to(call: Call) -> Response:
    """POST /b/B/o/X/copyTo/b/DB/o/DO"""
    return _resource(call, await _copy(call))


async def rewrite_to(call: Call) -> Response:
    """POST /b/B/o/X/rewriteTo/b/DB/o/DO: `copyTo` in a form that could take several calls; here one is enough."""
    info = await _copy(call)
    return call.reply(
        {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(info.size_bytes),
            "objectSize": str(info.size_bytes),
            "done": True,
            "resource": object_resource(info, call.base_url),
        }
    )


async def move_to(call: Call) -> Response:
    """POST /b/B/o/X/moveTo/o/DO"""
    info = await call.run(
        call.store.move,
        call.path["bucket"],
        call.path["object"],
        call.path["destination_object"],
        source_preconditions=call.preconditions("Source"),
        preconditions=call.preconditions(),
    )
    return _resource(call, info)


async def compose(call: Call) -> Response:
    """POST /b/B/o/X/compose"""
    body = await call.json()
    sources = body.get("sourceObjects")
    destination = body.get("destination") or {}
    if not isinstance(sources, list) or not isinstance(destination, dict):
        raise InvalidArgument("sourceObjects must be a list, destination an object.", field="sourceObjects")
    # The destination's checksums are not looked at: gcloud sends those of the first part as the whole's.
    info = await call.run(
        call.store.compose,
        call.path["bucket"],
        call.path["object"],
        [_compose_source(source) for source in sources],
        attributes=merged_attributes(ObjectAttributes(), destination),
        preconditions=call.preconditions(),
        delete_sources=body.get("deleteSourceObjects") is True,
    )
    return _resource(call, info)


def _listing(page: TextPage, base_url: str) -> bytes:
    text = b'{"kind":"storage#objects"'
    if page.objects:
        # The links' base is the request's, and may have anything in it.
        items = b",".join(page.objects).replace(BASE_URL, orjson.dumps(base_url)[1:-1])
        text += b',"items":[' + items + b"]"
    if page.next_page_token:
        text += b',"nextPageToken":"' + page.next_page_token.encode() + b'"'
    return text + b"}"


def _compose_source(source: Any) -> ComposeSource:
    if not isinstance(source, Mapping) or not isinstance(source.get("name"), str):
        raise InvalidArgument("Each source object needs a name.", field="sourceObjects")
    generation = source.get("generation") or (source.get("objectPreconditions") or {}).get("ifGenerationMatch")
    return ComposeSource(
        source["name"], None if generation is None else parse_int64(generation, "sourceObjects.generation")
    )


async def _change(call: Call, change: AttributeChange) -> Response:
    info = await call.run(
        call.store.update,
        call.path["bucket"],
        call.path["object"],
        change,
        generation=call.integer("generation"),
        preconditions=call.preconditions(),
    )
    return _resource(call, info)


async def _copy(call: Call) -> ObjectInfo:
    body = await call.json()
    return await call.run(
        call.store.copy,
        call.path["bucket"],
        call.path["object"],
        call.path["destination_bucket"],
        call.path["destination_object"],
        change=functools.partial(merged_attributes, resource=body),
        source_generation=call.integer("sourceGeneration"),
        source_preconditions=call.preconditions("Source"),
        preconditions=call.preconditions(),
    )


def _resource(call: Call, info: ObjectInfo) -> Response:
    return call.reply(object_resource(info, call.base_url))
