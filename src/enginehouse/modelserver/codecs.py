"""JSON to Python and arrays, and back.

Comes in: the bytes of a request body; goes out: the bytes of an answer. Called by the batcher and the adapters.

**NaN.** JSON has no NaN or Infinity. In predictions they become `null`, as orjson writes them; in instances `null` is
read as NaN where a floating-point number is expected (scikit-learn's and XGBoost's missing value). The literals `NaN`
and `Infinity` in a body are refused as malformed JSON.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from enginehouse.modelserver.errors import OUTPUTS_CODE, MalformedRequest, PredictionError
from enginehouse.modelserver.frames import TENSORS, TENSORS_HEADER

Array = npt.NDArray[Any]


def loads_slowly(data: bytes) -> Any:
    """Parse JSON, strictly, with the standard library."""
    return json.loads(data, parse_constant=_refuse_constant)


def dumps_slowly(value: Any) -> bytes:
    """Write compact JSON with the standard library; NaN and infinities become null."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(value), separators=(",", ":"), allow_nan=False)
    return text.encode()


loads: Callable[[bytes], Any] = loads_slowly
dumps: Callable[[Any], bytes] = dumps_slowly
with contextlib.suppress(ImportError):  # an option of the runtime, 2 to 10 times faster
    import orjson

    loads, dumps = orjson.loads, orjson.dumps


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value


def parse_request(body: bytes, *, as_arrays: bool = False) -> dict[str, Any]:
    """The JSON object of a request, `instances` a list in it.

    Args:
        as_arrays: where tensors came instead (`frames.pack_tensors`), let the rows be arrays rather than lists.

    Raises:
        MalformedRequest: saying what is missing.
    """
    if body[:1] == TENSORS:
        return _unpack_tensors(body, as_arrays)
    try:
        request = loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"Invalid JSON in the request body: {error}") from None
    if type(request) is not dict or type(request.get("instances")) is not list:
        raise MalformedRequest('The request body must be a JSON object with a list "instances".')
    return request


def _unpack_tensors(body: bytes, as_arrays: bool) -> dict[str, Any]:
    """The request that `frames.pack_tensors` was given; bare values of one tensor, objects of several."""
    _, size_bytes = TENSORS_HEADER.unpack_from(body)
    start = TENSORS_HEADER.size + size_bytes
    request: dict[str, Any] = loads(body[TENSORS_HEADER.size : start])
    columns = {}
    for told in request.pop("tensors"):
        array = np.frombuffer(body, told["dtype"], math.prod(told["shape"]), start).reshape(told["shape"])
        columns[told["name"]] = list(array) if as_arrays else array.tolist()
        start += array.nbytes
    if len(columns) == 1:
        request["instances"] = next(iter(columns.values()))
    else:
        request["instances"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return request


def is_b64(value: Any) -> bool:
    """Whether `value` is `{"b64": …}`: an object with exactly that key."""
    return type(value) is dict and len(value) == 1 and "b64" in value


def decode_b64(value: Any) -> Any:
    """`value` with every `{"b64": "…"}` in it, however deep, replaced by its bytes."""
    if type(value) is dict:
        if is_b64(value):
            return _b64_bytes(value["b64"])
        return {key: decode_b64(item) for key, item in value.items()}
    if type(value) is list:
        return [decode_b64(item) for item in value]
    return value


def _b64_bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise PredictionError('Error processing input: the value of "b64" must be a string.')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PredictionError(f"Error processing input: invalid base64 in a b64 value: {error}.") from None


def encode_bytes(value: Any, *, alias: str) -> Any:
    """The string values of one output, nested as they are, as JSON can carry them.

    Outputs whose alias ends in `_bytes` become `{"b64": …}`, all others text.

    Raises:
        PredictionError: the bytes of a text output are not UTF-8.
    """
    if isinstance(value, list):
        return [encode_bytes(item, alias=alias) for item in value]
    raw = value if isinstance(value, bytes) else str(value).encode()
    if alias.endswith("_bytes"):
        return {"b64": base64.b64encode(raw).decode("ascii")}
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise PredictionError(
            f"The output {alias} holds bytes that are not UTF-8. Let the alias of a binary output end in _bytes.",
            OUTPUTS_CODE,
        ) from None


def jsonable(value: Any) -> Any:
    """`value` with what `ndarray.tolist` leaves behind (bytes, numpy scalars, dates, exotic objects) made JSON."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    return str(value)


def rows_of(output: Array) -> list[Any]:
    """One JSON value per row of an array, of whatever dtype."""
    rows: list[Any] = output.tolist()
    return rows if output.dtype.kind in "fiubU" else jsonable(rows)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """A dtype's name as the messages and reports write it: "float32", "string"."""
    return "string" if dtype.kind in "OSU" else dtype.name


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """`(?, 4)` for (None, 4); `unknown` for None."""
    return "unknown" if shape is None else "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"
