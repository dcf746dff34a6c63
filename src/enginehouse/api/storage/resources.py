"""The JSON resource of a bucket, and the reading of what a client may say in a bucket's or an object's.

Source: https://cloud.google.com/storage/docs/json_api/v1/buckets#resource and …/objects#resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.units import format_time
from enginehouse.storage.base import BucketInfo, Digests, ObjectAttributes
from enginehouse.storage.resource import TEXT_FIELDS, etag

_MULTI_REGIONS = {"US", "EU", "ASIA"}


def bucket_resource(info: BucketInfo, base_url: str) -> dict[str, Any]:
    """`storage#bucket`."""
    resource: dict[str, Any] = {
        "kind": "storage#bucket",
        "id": info.name,
        "selfLink": f"{base_url}/storage/v1/b/{quote(info.name, safe='')}",
        "name": info.name,
        "metageneration": str(info.metageneration),
        "location": info.location,
        "locationType": "multi-region" if info.location in _MULTI_REGIONS else "region",
        "storageClass": info.storage_class,
        "etag": etag(0, info.metageneration),
        "timeCreated": format_time(info.created_ns, digits=3),
        "updated": format_time(info.updated_ns, digits=3),
    }
    if info.labels:
        resource["labels"] = info.labels
    return resource


def merged_attributes(attributes: ObjectAttributes, resource: Mapping[str, Any]) -> ObjectAttributes:
    """`attributes` with what an object resource says laid over them, as PATCH does it; null takes a value away.

    Raises:
        InvalidArgument: a value is no text, or could not be sent in a header.
    """
    changes: dict[str, Any] = {}
    default = ObjectAttributes()
    for field, attribute in TEXT_FIELDS.items():
        if field in resource:
            changes[attribute] = _text(field, resource[field]) or getattr(default, attribute)
    if "metadata" in resource:
        changes["metadata"] = _merged_texts("metadata", attributes.metadata, resource["metadata"])
    return replace(attributes, **changes)


def merged_labels(labels: Mapping[str, str], given: Any) -> dict[str, str]:
    """As `merged_attributes`, for a bucket's labels."""
    return _merged_texts("labels", labels, given)


def digests(resource: Mapping[str, Any]) -> Digests:
    """The checksums that a resource claims."""
    return Digests(md5=_text("md5Hash", resource.get("md5Hash")), crc32c=_text("crc32c", resource.get("crc32c")))


def _merged_texts(field: str, old: Mapping[str, str], given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(value is None or isinstance(value, str) for value in given.values()):
        raise InvalidArgument(f"{field} must be an object of strings.", field=field)
    return {key: value for key, value in {**old, **given}.items() if value is not None}


def _text(field: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or any(ord(ch) < 32 or ord(ch) == 127 for ch in value)):
        raise InvalidArgument(f"{field} must be a string without control characters.", field=field)
    return value
