"""Documents of the Cloud Storage XML API: errors and listings.

Source: https://cloud.google.com/storage/docs/xml-api/reference-status and …/xml-api/get-bucket-list.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import Response

from enginehouse.core import errors
from enginehouse.storage.base import ObjectInfo

Node = tuple[str, "str | list[Node]"]
"""An element: its name, and its text or its children."""

_NAMESPACE = "http://doc.s3.amazonaws.com/2006-03-01"
_ESCAPED = re.compile(r"[&<>\x00-\x1f\x7f]")
_CODES: tuple[tuple[type[errors.EngineError], str], ...] = (
    (errors.InvalidArgument, "InvalidArgument"),
    (errors.ConditionNotMet, "PreconditionFailed"),
    (errors.Unauthenticated, "AuthenticationRequired"),
    (errors.PermissionDenied, "AccessDenied"),
    (errors.NotFound, "NoSuchKey"),
    (errors.Unavailable, "ServiceUnavailable"),
)
_OTHER_CODE = "InternalError"


def document(root: str, children: Iterable[Node], *, namespace: bool = True) -> bytes:
    """An XML document, in UTF-8."""
    attribute = f" xmlns='{_NAMESPACE}'" if namespace else ""
    inner = "".join(_element(node) for node in children)
    return f"<?xml version='1.0' encoding='UTF-8'?><{root}{attribute}>{inner}</{root}>".encode()


def xml_response(body: bytes, status: int = HTTPStatus.OK) -> Response:
    """An answer with an XML body."""
    return Response(body, status, media_type="application/xml; charset=UTF-8")


def xml_error(status: int, code: str, message: str) -> Response:
    """`<Error><Code>NoSuchKey</Code><Message>…</Message></Error>`."""
    nodes: list[Node] = [("Code", code), ("Message", message)]
    return xml_response(document("Error", nodes, namespace=False), status)


def xml_error_response(error: errors.EngineError, *, code: str = "") -> Response:
    """The answer to a request that failed with `error`; `code` where the kind of error does not say enough."""
    code = code or next((code for kind, code in _CODES if isinstance(error, kind)), _OTHER_CODE)
    message = error.violations[0].description if error.violations else error.message
    return xml_error(error.http_status, code, message)


def xml_etag(info: ObjectInfo) -> str | None:
    """The ETag header of the XML API: the MD5 in hexadecimal, by which old tools check what they got.

    None for a composed object, whose ETag says nothing of its content, and where no MD5 is known.
    """
    if info.component_count is not None or not info.md5:
        return None
    try:
        return f'"{binascii.hexlify(base64.b64decode(info.md5)).decode()}"'
    except ValueError:
        return None


def _element(node: Node) -> str:
    name, content = node
    inner = _escape(content) if isinstance(content, str) else "".join(_element(child) for child in content)
    return f"<{name}>{inner}</{name}>" if inner else f"<{name}/>"


def _escape(text: str) -> str:
    # Names may hold control characters that XML 1.0 can't; as in Cloud Storage they become references all the same,
    # and a client that minds asks for encoding-type=url.
    return _ESCAPED.sub(lambda found: f"&#{ord(found[0])};", text)
