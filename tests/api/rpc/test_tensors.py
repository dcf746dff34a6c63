"""Tensors of both protocols to the engine's and back."""

from __future__ import annotations

import math
from typing import Any

import pytest

from enginehouse.api.rpc.messages import message
from enginehouse.api.rpc.tensors import (
    column,
    fill_contents,
    from_infer_tensor,
    from_tensor_proto,
    has_contents,
    to_raw,
    to_tensor_proto,
)
from enginehouse.core.errors import InvalidArgument
from enginehouse.modelserver.codecs import parse_request
from enginehouse.serving.open_inference import to_instances, to_packed

TensorProto = message("tensorflow.TensorProto")
InferRequest = message("inference.ModelInferRequest")
InferAnswer = message("inference.ModelInferResponse")

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP16": [-0.5, 65504.0],
    "FP32": [0.25, -1e30],
    "FP64": [0.1, -1e300],
    "BYTES": ["é", {"b64": "/wA="}],
}


def tensor(datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape or [len(data)], "data": data}


def proto(dtype: int, shape: list[int], **values: Any) -> Any:
    made = TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


@pytest.mark.parametrize("datatype", VALUES)
def test_every_type_goes_there_and_back(datatype: str) -> None:
    given = tensor(datatype, VALUES[datatype])
    told = from_tensor_proto("x", to_tensor_proto(given))
    assert told["data"] == pytest.approx(given["data"]) if datatype == "FP32" else told == given
    asked = InferRequest.InferInputTensor(name="x", datatype=datatype, shape=[2])
    told = from_infer_tensor(asked, to_raw(given), "inputs[0]")
    assert to_instances([told], ["x"]) == (pytest.approx(given["data"]) if datatype == "FP32" else given["data"])
    packed = to_packed([told], ["x"], "s")
    assert (packed is None) == (datatype == "BYTES")
    if packed is not None:
        assert parse_request(packed) == {"signature_name": "s", "instances": to_instances([told], ["x"])}
    assert has_contents(given) == (datatype != "FP16")
    if has_contents(given):
        fill_contents(given, asked.contents)
        told = from_infer_tensor(asked, None, "inputs[0]")
        assert told["data"] == pytest.approx(given["data"]) if datatype == "FP32" else told == given


def test_tensor_content_and_repeated_values() -> None:
    content = proto(1, [2, 2], tensor_content=b"\0\0\x80\x3f" * 3 + b"\0\0\0\x40")
    assert to_instances([from_tensor_proto("x", content)], ["x"]) == [[1.0, 1.0], [1.0, 2.0]]
    assert from_tensor_proto("x", proto(3, [4], int_val=[1, 2]))["data"] == [1, 2, 2, 2]
    assert from_tensor_proto("x", proto(3, [2]))["data"] == [0, 0]
    assert from_tensor_proto("x", proto(7, [2]))["data"] == ["", ""]
    huge = from_tensor_proto("x", proto(3, [1 << 40], int_val=[1]))  # refused later, for its size
    assert huge["data"] == [1]


def test_several_tensors_are_packed_if_all_are_bytes() -> None:
    one = {"name": "a", "datatype": "INT16", "shape": [2], "raw": b"\1\0\2\0"}
    other = {"name": "b", "datatype": "BOOL", "shape": [2, 2], "raw": b"\1\0\0\1"}
    packed = to_packed([one, other], ["b", "a"], "")
    assert packed is not None and parse_request(packed) == {
        "instances": [{"a": 1, "b": [True, False]}, {"a": 2, "b": [False, True]}],
    }
    assert to_packed([one, tensor("INT8", [1, 2]) | {"name": "b"}], ["a", "b"], "") is None
    assert to_packed([one, other], ["instances"], "") is None  # columns of a table
    with pytest.raises(InvalidArgument, match=r"holds 4 values, but the shape \[2, 3\] needs 6"):
        to_packed([{**other, "shape": [2, 3]}], ["b"], "")


def test_what_json_lacks() -> None:
    assert math.isnan(to_tensor_proto(tensor("FP32", [None])).float_val[0])
    assert list(to_tensor_proto(tensor("BYTES", [{"a": [1]}, "b"])).string_val) == [b'{"a":[1]}', b"b"]
    assert column([tensor("FP64", [1, 2, 3, 4], [2, 2])], "x") == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (proto(14, [1]), "inputs.x.dtype"),  # bfloat16
        (proto(1, [1], tensor_content=b"123"), "inputs.x.tensor_content"),
    ],
)
def test_tensor_protos_that_are_refused(given: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_tensor_proto("x", given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("datatype", "raw", "field"),
    [
        ("BF16", b"", "inputs[0].datatype"),
        ("FP16", None, "inputs[0].contents"),
        ("INT64", b"1234567", "raw_input_contents"),
        ("BYTES", b"\5\0\0\0abc", "raw_input_contents"),
        ("BYTES", b"\1\0\0", "raw_input_contents"),
    ],
)
def test_infer_tensors_that_are_refused(datatype: str, raw: bytes | None, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_infer_tensor(InferRequest.InferInputTensor(name="x", datatype=datatype, shape=[1]), raw, "inputs[0]")
    assert caught.value.field == field
