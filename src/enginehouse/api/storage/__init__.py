"""The Cloud Storage JSON API v1 over an object store, as its clients send it.

Comes in: HTTP of google-cloud-storage, gcsfs, gcloud, gsutil and `mle`. Goes out: calls of
`storage.base.ObjectStore`. `storage_routes` is called by the composition root. Each module holds one kind of handler;
`routing` finds them by the path as it was sent and turns errors into the API's shape.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import BaseRoute

from enginehouse.api.storage import buckets, objects, uploads
from enginehouse.api.storage.batch import batch_handler
from enginehouse.api.storage.call import Call
from enginehouse.api.storage.downloads import download
from enginehouse.api.storage.errors import plain_error
from enginehouse.api.storage.routing import Handler, RawPathRoute
from enginehouse.storage.base import ObjectStore

_ROOT = "/storage/v1/b"
_OBJECT = f"{_ROOT}/{{bucket}}/o/{{object}}"
_DESTINATION = "b/{destination_bucket}/o/{destination_object}"
_UPLOAD: dict[str, Handler] = {"POST": uploads.insert, "PUT": uploads.resume, "DELETE": uploads.cancel}

# No two match the same path. In the order of how often they are asked for: the first that matches ends the search.
_TABLE: tuple[tuple[str, dict[str, Handler]], ...] = (
    (f"/download{_OBJECT}", {"GET": download}),
    (_OBJECT, {"GET": objects.get, "PATCH": objects.patch, "PUT": objects.update, "DELETE": objects.delete}),
    (f"/upload{_ROOT}/{{bucket}}/o", _UPLOAD),
    (f"{_ROOT}/{{bucket}}/o", {"GET": objects.list_objects}),
    (_ROOT, {"GET": buckets.list_buckets, "POST": buckets.insert}),
    (
        f"{_ROOT}/{{bucket}}",
        {"GET": buckets.get, "PATCH": buckets.patch, "PUT": buckets.update, "DELETE": buckets.delete},
    ),
    (f"{_ROOT}/{{bucket}}/storageLayout", {"GET": buckets.storage_layout}),
    (f"{_ROOT}/{{bucket}}/managedFolders", {"GET": buckets.managed_folders}),
    (f"{_OBJECT}/copyTo/{_DESTINATION}", {"POST": objects.copy_to}),
    (f"{_OBJECT}/rewriteTo/{_DESTINATION}", {"POST": objects.rewrite_to}),
    (f"{_OBJECT}/moveTo/o/{{destination_object}}", {"POST": objects.move_to}),
    (f"{_OBJECT}/compose", {"POST": objects.compose}),
    # gcloud begins resumable uploads here, all others below /upload.
    (f"/resumable/upload{_ROOT}/{{bucket}}/o", _UPLOAD),
)
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def storage_routes(store: ObjectStore) -> list[BaseRoute]:
    """All routes of the storage API; anything else below its paths is answered in its error shape."""
    routes = [RawPathRoute(store, template, handlers) for template, handlers in _TABLE]
    batch = RawPathRoute(store, "/batch/storage/v1", {"POST": batch_handler(routes)})
    unknown = [
        RawPathRoute(store, template, dict.fromkeys(_METHODS, _unknown))
        for template in ("/storage/*", "/upload/storage/*", "/resumable/upload/storage/*", "/download/storage/*")
    ]
    return [*routes, batch, *unknown]


async def _unknown(call: Call) -> Response:
    path = call.request.scope["path"]
    return plain_error(
        HTTPStatus.NOT_FOUND,
        "notFound",
        f"There is nothing at {path}. The name of an object goes into a path percent-encoded, its slashes too (%2F).",
    )
