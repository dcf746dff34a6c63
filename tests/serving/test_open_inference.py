"""Tensors of the Open Inference Protocol to instances and back; and the protocol on a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.sdk.client import connect
from enginehouse.serving.open_inference import as_json, tensor_metadata, to_instances, to_tensors
from enginehouse.testing.engine import EngineProcess

from .conftest import deploy

FEATURES, LABELS = load_iris(return_X_y=True)


def tensor(name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP32", "data": data}


def test_one_input_gives_bare_instances() -> None:
    flat, nested = tensor("x", [2, 3], [1, 2, 3, 4, 5, 6]), tensor("x", [2, 3], [[1, 2, 3], [4, 5, 6]])
    for each in (flat, nested):
        assert to_instances([each], ["x"]) == [[1, 2, 3], [4, 5, 6]]
    assert to_instances([tensor("x", [2], ["a", "b"])], ["x"]) == ["a", "b"]
    assert to_instances([tensor("x", [0, 3], [])], ["x"]) == []
    image = to_instances([tensor("x", [1, 2, 2, 1], [1, 2, 3, 4])], ["x"])
    assert image == [[[[1], [2]], [[3], [4]]]]


def test_several_inputs_give_objects() -> None:
    inputs = [tensor("a", [2], [1, 2]), tensor("b", [2, 2], [1, 2, 3, 4])]
    assert to_instances(inputs, ["a", "b"]) == [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}]
    columns = [tensor("sl", [2, 1], [1, 2]), tensor("sw", [2, 1], [3, 4])]
    assert to_instances(columns, ["instances"]) == [{"sl": 1, "sw": 3}, {"sl": 2, "sw": 4}]


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (None, "inputs"),
        ([], "inputs"),
        ([3], "inputs"),
        ([{"name": "x", "data": [1]}], "inputs[0].shape"),
        ([{"name": "x", "shape": [1]}], "inputs[0].data"),
        ([tensor("x", [2, 2], [1, 2, 3])], "inputs[0].data"),
        ([tensor("y", [1], [1])], "inputs"),
        ([tensor("x", [1], [1]), tensor("y", [2], [1, 2])], "inputs"),
    ],
)
def test_what_is_wrong_is_named(inputs: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_instances(inputs, ["x"])
    assert caught.value.field == field


def test_predictions_become_tensors() -> None:
    specs = {"p": {"dtype": "float32", "shape": [None, 2]}}
    assert to_tensors([[0.5, 0.5], [1.0, None]], specs) == [
        {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.5, 0.5, 1.0, None]}
    ]
    several = to_tensors([{"id": 1, "raw": {"b64": "YQ=="}}, {"id": 2, "raw": {"b64": "Yg=="}}], {})
    assert [as_json(each) for each in several] == [
        {"name": "id", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "raw", "datatype": "BYTES", "shape": [2], "data": ["YQ==", "Yg=="]},
    ]
    assert several[1]["data"] == [{"b64": "YQ=="}, {"b64": "Yg=="}]
    with pytest.raises(FailedPrecondition, match="output p differ in shape"):
        to_tensors([[1.0, 2.0], [1.0]], {"p": {}})
    assert to_tensors(["a"], {"y": {}})[0]["datatype"] == "BYTES"
    assert tensor_metadata(specs) == [{"name": "p", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data") as engine:
        fitted = LogisticRegression(max_iter=1000).fit(FEATURES, LABELS)
        deploy(connect(data_dir=engine.data_dir), "iris", "v1", fitted)
        yield engine


@pytest.mark.slow
def test_the_protocol_on_an_engine(engine: EngineProcess) -> None:
    """Slow: an engine and a model server."""

    def ask(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(engine.url + path, data), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def refused(path: str, body: Any = None) -> tuple[int, str]:
        with pytest.raises(HTTPError) as caught:
            ask(path, body)
        return caught.value.code, json.loads(caught.value.read())["error"]

    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready", "/v2/models/iris/versions/v1/ready"):
        assert ask(path) is None
    assert ask("/v2")["name"] == "enginehouse"
    told = ask("/v2/models/iris")
    assert (told["name"], told["versions"], told["platform"]) == ("iris", ["v1"], "sklearn_joblib")
    assert told["inputs"] == [{"name": "instances", "datatype": "FP64", "shape": [-1, 4]}]
    values = FEATURES[[0, 60, 120]].ravel().tolist()
    request = {"id": "42", "inputs": [tensor("instances", [3, 4], values)]}
    for path in ("/v2/models/iris/infer", "/v2/models/iris/versions/v1/infer"):
        answer = ask(path, request)
        assert answer == {
            "model_name": "iris",
            "model_version": "v1",
            "id": "42",
            "outputs": [{"name": "predictions", "datatype": "INT64", "shape": [3], "data": [0, 1, 2]}],
        }
    assert refused("/v2/models/nobody/ready")[0] == 404
    assert refused("/v2/models/iris/infer", {"inputs": [tensor("instances", [1, 2], [1, 2])]})[0] == 400
    code, words = refused("/v2/models/iris/infer", {"inputs": [tensor("instances", [1, 4], [1])]})
    assert (code, "holds 1 values" in words) == (400, True)
