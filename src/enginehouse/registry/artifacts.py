"""What a deployment directory holds: is it a model, of which framework, and not too much?

In: a gs:// directory. Out: the framework, or `FailedPrecondition` in the original's words. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Iterable

from enginehouse.core.errors import FailedPrecondition, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.core.units import format_size
from enginehouse.storage.base import ObjectInfo, ObjectStore

MAX_FILES = 1000
MAX_SIZE_BYTES = 10 * 1024**3
_FIELD = "version.deployment_uri"

# The files that make a directory a model of a framework, at its top.
MODEL_FILES: dict[str, tuple[str, ...]] = {
    "TENSORFLOW": ("saved_model.pb", "saved_model.pbtxt", "model.keras"),
    "SCIKIT_LEARN": ("model.joblib", "model.pkl", "model.skops"),
    "XGBOOST": ("model.bst", "model.json", "model.ubj", "model.joblib", "model.pkl"),
    "PYTORCH": ("model.pt2", "model.pt"),
    "ONNX": ("model.onnx",),
}


def list_artifacts(storage: ObjectStore, uri: ObjectUri, *, field: str = _FIELD) -> list[ObjectInfo]:
    """All objects of the directory `uri`.

    Raises:
        FailedPrecondition: no bucket, nothing there, too many files or too large.
    """
    try:
        storage.get_bucket(uri.bucket)
    except NotFound:
        raise FailedPrecondition(f"There is no bucket gs://{uri.bucket}.", field=field) from None
    found: list[ObjectInfo] = []
    token = ""
    while len(found) <= MAX_FILES:
        page = storage.list(uri.bucket, prefix=directory_prefix(uri), page_token=token)
        found += [info for info in page.objects if not info.name.endswith("/")]
        token = page.next_page_token
        if not token:
            break
    if not found:
        raise FailedPrecondition(f"There are no files below {uri}; is the path right?", field=field)
    if len(found) > MAX_FILES:
        raise FailedPrecondition(f"{uri} holds more than the allowed maximum of {MAX_FILES} files.", field=field)
    size_bytes = sum(info.size_bytes for info in found)
    if size_bytes > MAX_SIZE_BYTES:
        raise FailedPrecondition(
            f"The total size of files in {uri} is {size_bytes} bytes ({format_size(size_bytes)}), which exceeds the "
            f"allowed maximum of {MAX_SIZE_BYTES} bytes",
            field=field,
        )
    return found


def directory_prefix(uri: ObjectUri) -> str:
    """The prefix that all objects of the directory `uri` share."""
    return uri.name.rstrip("/") + "/" if uri.name else ""


def detect_framework(uri: ObjectUri, artifacts: Iterable[ObjectInfo], requested: str, *, field: str = _FIELD) -> str:
    """The framework of the model files at the top of `uri`.

    Args:
        requested: what the user said; "" or FRAMEWORK_UNSPECIFIED to find out.

    Raises:
        FailedPrecondition: none or more than one file of the framework, or another framework than requested.
    """
    prefix = directory_prefix(uri)
    top = {info.name[len(prefix) :] for info in artifacts}
    if requested in MODEL_FILES:
        _require_one(uri, requested, top, field)
        return requested
    for framework in MODEL_FILES:
        if top & set(MODEL_FILES[framework]):
            _require_one(uri, framework, top, field)
            return framework
    expected = "; ".join(f"{name}: {' or '.join(files)}" for name, files in MODEL_FILES.items())
    raise FailedPrecondition(
        f"The model directory {uri} is expected to contain exactly one model file ({expected}). It holds: "
        f"{_shown(top)}.",
        field=field,
    )


def _require_one(uri: ObjectUri, framework: str, top: set[str], field: str) -> None:
    files = MODEL_FILES[framework]
    if len(top & set(files)) != 1:
        expected = " or ".join(f"'{name}'" for name in files)
        raise FailedPrecondition(
            f"For the framework {framework} the model directory {uri} is expected to contain exactly one of the "
            f"following: {expected} file. It holds: {_shown(top)}.",
            field=field,
        )


def _shown(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
