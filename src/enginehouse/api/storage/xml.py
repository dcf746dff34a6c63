"""The reading half of the Cloud Storage XML API: `GET /BUCKET/OBJECT` and the listing `GET /BUCKET`.

Comes in: HTTP of TensorFlow's C++ client (which reads content here and does everything else by the JSON API), of
boto, and of whoever downloads `https://storage.googleapis.com/BUCKET/OBJECT`. Goes out: calls of
`storage.base.ObjectStore`. Called by `hosts`, since only the host of a request tells this API from the others.
"""

from __future__ import annotations

import logging
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from enginehouse.api.storage.call import Call, parse_int64
from enginehouse.api.storage.downloads import download
from enginehouse.api.storage.routing import CLIENT_CLOSED_REQUEST, decode_segment, raw_path
from enginehouse.api.storage.xml_format import Node, document, xml_error, xml_error_response, xml_etag, xml_response
from enginehouse.core.errors import EngineError, Internal, InvalidArgument, NotFound
from enginehouse.core.units import format_time
from enginehouse.storage.base import ListPage, ObjectInfo, ObjectStore
from enginehouse.storage.listing import name_after_prefix
from enginehouse.storage.resource import etag

_LOG = logging.getLogger(__name__)
_METHODS = ("GET", "HEAD")
_MAX_KEYS = 1000
_NANOSECONDS = 1_000_000_000
# Other documents about a bucket or an object, which a plain listing or download must not stand in for.
_SUBRESOURCES = frozenset(
    {"acl", "billing", "cors", "defaultObjectAcl", "encryption", "lifecycle", "location", "logging", "policy"}
    | {"storageClass", "tagging", "uploads", "versioning", "website"}
)


class XmlApi:
    """An ASGI application for reads.

    Args:
        store: what is read.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method not in _METHODS:
            message = f"{request.method} is not served by the XML API here; the JSON API does everything."
            response = xml_error(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            response.headers["Allow"] = ", ".join(_METHODS)
            return response
        bucket, _, name = raw_path(request.scope).lstrip(b"/").partition(b"/")
        try:
            call = Call(self._store, request, {"bucket": decode_segment(bucket), "object": decode_segment(name)})
            return await _answer(call)
        except EngineError as error:
            return xml_error_response(error, code=await self._missing(error, decode_segment(bucket)))
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:
            _LOG.exception("%s %s failed", request.method, request.url.path)
            return xml_error_response(Internal("The engine failed on this request; its log says why."))

    async def _missing(self, error: EngineError, bucket: str) -> str:
        """The code for what was not found: the bucket, or the object in it ("")."""
        if not isinstance(error, NotFound):
            return ""
        try:
            await Call.run(self._store.get_bucket, bucket)
        except EngineError:
            return "NoSuchBucket"
        return ""


async def _answer(call: Call) -> Response:
    if not call.path["bucket"]:
        raise InvalidArgument("Name a bucket: /BUCKET or /BUCKET/OBJECT.")
    asked = _SUBRESOURCES & call.query.keys()
    if asked:
        raise InvalidArgument(f"?{min(asked)} is not served by the XML API here; ask the JSON API.")
    return await (_object(call) if call.path["object"] else _listing(call))


# Objects


async def _object(call: Call) -> Response:
    info = await call.run(
        call.store.get, call.path["bucket"], call.path["object"], generation=call.integer("generation")
    )
    refused = _unmet(call, info)
    if refused is not None:
        return refused
    response = await download(call)
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        error = xml_error(response.status_code, "InvalidRange", "The requested range cannot be satisfied.")
        error.headers["Content-Range"] = response.headers["Content-Range"]
        return error
    # The content may be newer than `info`; then the ETag of the download stays.
    if response.headers.get("x-goog-generation") == str(info.generation) and (tag := xml_etag(info)):
        response.headers["etag"] = tag
    return response


def _unmet(call: Call, info: ObjectInfo) -> Response | None:
    """304 or 412 when a condition of the headers does not hold (RFC 9110 §13.2.2; x-goog-if-…)."""
    headers = call.request.headers
    tags = {xml_etag(info), f'"{etag(info.generation, info.metageneration)}"', "*"}
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    since, unmodified = headers.get("if-modified-since"), headers.get("if-unmodified-since")
    for name, found in (
        ("x-goog-if-generation-match", info.generation),
        ("x-goog-if-metageneration-match", info.metageneration),
    ):
        wanted = headers.get(name)
        if wanted is not None and parse_int64(wanted, name) != found:
            return _precondition_failed(name)
    if match is not None:
        if not tags & _tags(match):
            return _precondition_failed("If-Match")
    elif unmodified is not None and _is_newer(info, unmodified):
        return _precondition_failed("If-Unmodified-Since")
    if none_match is not None:
        if tags & _tags(none_match):
            return Response(status_code=HTTPStatus.NOT_MODIFIED)
    elif since is not None and not _is_newer(info, since):
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    return None


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _is_newer(info: ObjectInfo, date: str) -> bool:
    """Whether the object changed after an HTTP date, which knows no parts of seconds; true for what is no date."""
    try:
        moment_s = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return True
    return info.updated_ns // _NANOSECONDS > moment_s


def _precondition_failed(name: str) -> Response:
    message = f"At least one of the pre-conditions you specified did not hold: {name}."
    return xml_error(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed", message)


# Listings


async def _listing(call: Call) -> Response:
    second_version = call.query.get("list-type") == "2"
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    after = call.query.get("start-after" if second_version else "marker", "")
    size = call.integer("max-keys")
    if size is not None and size < 0:
        raise InvalidArgument("max-keys must not be negative.", field="max-keys")
    page = ListPage([], [], "")
    if size == 0:
        await call.run(call.store.get_bucket, call.path["bucket"])
    else:
        page = await call.run(
            call.store.list,
            call.path["bucket"],
            prefix=prefix,
            delimiter=delimiter,
            start_offset=_start_behind(after, prefix, delimiter),
            page_token=call.query.get("continuation-token", "") if second_version else "",
            max_results=min(size or _MAX_KEYS, _MAX_KEYS),
        )
    encode = quote if call.query.get("encoding-type") == "url" else str
    nodes: list[Node] = [("Name", call.path["bucket"]), ("Prefix", encode(prefix))]
    if delimiter:
        nodes.append(("Delimiter", encode(delimiter)))
    if "encoding-type" in call.query:
        nodes.append(("EncodingType", call.query["encoding-type"]))
    if size is not None:
        nodes.append(("MaxKeys", str(size)))
    nodes += _second_version_nodes(call, page) if second_version else _first_version_nodes(page, encode(after))
    nodes.append(("IsTruncated", "true" if page.next_page_token else "false"))
    nodes += [("Contents", _contents(info, encode(info.name))) for info in page.objects]
    nodes += [("CommonPrefixes", [("Prefix", encode(one))]) for one in page.prefixes]
    return xml_response(document("ListBucketResult", nodes))


def _start_behind(marker: str, prefix: str, delimiter: str) -> str:
    """The first name a listing can begin with when the one before ended with `marker`, a name or a prefix."""
    if not marker:
        return ""
    if delimiter and marker.startswith(prefix) and marker[len(prefix) :].endswith(delimiter):
        return name_after_prefix(marker) or marker
    return marker + "\0"


def _first_version_nodes(page: ListPage, marker: str) -> list[Node]:
    nodes: list[Node] = [("Marker", marker)]
    if page.next_page_token:
        last = max([info.name for info in page.objects[-1:]] + list(page.prefixes[-1:]), key=str.encode)
        nodes.append(("NextMarker", last))
    return nodes


def _second_version_nodes(call: Call, page: ListPage) -> list[Node]:
    nodes: list[Node] = [("KeyCount", str(len(page.objects) + len(page.prefixes)))]
    for element, parameter in (("ContinuationToken", "continuation-token"), ("StartAfter", "start-after")):
        if parameter in call.query:
            nodes.append((element, call.query[parameter]))
    if page.next_page_token:
        nodes.append(("NextContinuationToken", page.next_page_token))
    return nodes


def _contents(info: ObjectInfo, key: str) -> list[Node]:
    return [
        ("Key", key),
        ("Generation", str(info.generation)),
        ("MetaGeneration", str(info.metageneration)),
        ("LastModified", format_time(info.updated_ns, digits=3)),
        ("ETag", xml_etag(info) or f'"{etag(info.generation, info.metageneration)}"'),
        ("Size", str(info.size_bytes)),
        ("StorageClass", info.storage_class),
    ]
