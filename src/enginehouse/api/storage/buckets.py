"""Handlers of `/storage/v1/b`: buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from enginehouse.api.storage.call import Call
from enginehouse.api.storage.resources import bucket_resource, merged_labels
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.names import check_labels

PAGE_SIZE = 1000
_NO_PROJECT = "<none>"
"""What google-cloud-storage sends for an emulator when no project is set."""


async def insert(call: Call) -> Response:
    """POST /b?project=P"""
    body = await call.json()
    _refuse_unkept_promises(body)
    name = body.get("name")
    if not isinstance(name, str):
        raise InvalidArgument("Required parameter: name", field="name")
    project = call.query.get("project", "")
    info = await call.run(
        call.store.create_bucket,
        name,
        project="" if project == _NO_PROJECT else project,
        location=str(body.get("location") or "US").upper(),
        storage_class=str(body.get("storageClass") or "STANDARD").upper(),
        labels=check_labels(merged_labels({}, body.get("labels"))),
    )
    return call.reply(bucket_resource(info, call.base_url))


async def list_buckets(call: Call) -> Response:
    """GET /b?project=P. The page token is the last name of the page before."""
    project = call.query.get("project", "")
    found = await call.run(
        call.store.list_buckets,
        project="" if project == _NO_PROJECT else project,
        prefix=call.query.get("prefix", ""),
    )
    size = page_size(call)
    rest = [info for info in found if info.name > call.query.get("pageToken", "")]
    body: dict[str, Any] = {"kind": "storage#buckets"}
    if rest:
        body["items"] = [bucket_resource(info, call.base_url) for info in rest[:size]]
    if len(rest) > size:
        body["nextPageToken"] = rest[size - 1].name
    return call.reply(body)


async def get(call: Call) -> Response:
    """GET /b/B"""
    info = await call.run(call.store.get_bucket, call.path["bucket"], preconditions=call.preconditions())
    return call.reply(bucket_resource(info, call.base_url))


async def patch(call: Call) -> Response:
    """PATCH /b/B: lays what is given over what is there."""
    return await _change(call, await call.json(), replace=False)


async def update(call: Call) -> Response:
    """PUT /b/B: what is not given goes back to its default."""
    return await _change(call, await call.json(), replace=True)


async def delete(call: Call) -> Response:
    """DELETE /b/B"""
    await call.run(call.store.delete_bucket, call.path["bucket"], preconditions=call.preconditions())
    return Response(status_code=204)


async def storage_layout(call: Call) -> Response:
    """GET /b/B/storageLayout: gcloud asks whether folders are real here; they are not."""
    info = await call.run(call.store.get_bucket, call.path["bucket"])
    resource = bucket_resource(info, call.base_url)
    return call.reply(
        {
            "kind": "storage#storageLayout",
            "bucket": info.name,
            "location": resource["location"],
            "locationType": resource["locationType"],
            "hierarchicalNamespace": {"enabled": False},
        }
    )


async def managed_folders(call: Call) -> Response:
    """GET /b/B/managedFolders: gcloud looks for some before it deletes a bucket; there are none."""
    await call.run(call.store.get_bucket, call.path["bucket"])
    return call.reply({"kind": "storage#managedFolders"})


def page_size(call: Call) -> int:
    """`maxResults`, which asks for less than a page but never for more."""
    asked = call.integer("maxResults")
    if asked is not None and asked < 1:
        raise InvalidArgument(f"maxResults must be at least 1, not {asked}.", field="maxResults")
    return min(asked or PAGE_SIZE, PAGE_SIZE)


async def _change(call: Call, body: Mapping[str, Any], *, replace: bool) -> Response:
    _refuse_unkept_promises(body)
    name, preconditions = call.path["bucket"], call.preconditions()
    storage_class = body.get("storageClass") or ("STANDARD" if replace else None)
    labels = None
    if replace or "labels" in body:
        old = {} if replace else (await call.run(call.store.get_bucket, name)).labels
        labels = check_labels(merged_labels(old, body.get("labels")))
    info = await call.run(
        call.store.update_bucket,
        name,
        labels=labels,
        storage_class=None if storage_class is None else str(storage_class).upper(),
        preconditions=preconditions,
    )
    return call.reply(bucket_resource(info, call.base_url))


def _refuse_unkept_promises(body: Mapping[str, Any]) -> None:
    """Refuse what would let a user believe that data is kept or deleted by a rule that nobody follows here.

    Everything else that a bucket can be told (access control, billing, …) has no effect on data and is ignored.
    """
    versioning, lifecycle = body.get("versioning") or {}, body.get("lifecycle") or {}
    for field, asked, what in (
        ("versioning", versioning.get("enabled"), "Only the newest generation of an object is kept"),
        ("retentionPolicy", body.get("retentionPolicy"), "Retention policies are not enforced"),
        ("lifecycle", lifecycle.get("rule"), "Lifecycle rules are not followed"),
    ):
        if asked:
            raise InvalidArgument(f"{what} by this server; leave '{field}' out.", field=field)
