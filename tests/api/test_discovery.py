"""The discovery document against the one that Google's client ships: the same methods and messages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googleapiclient
import pytest
from googleapiclient.discovery import build_from_document
from starlette.applications import Starlette
from starlette.testclient import TestClient

from enginehouse.api.discovery import discovery_routes, ml_document
from enginehouse.api.ml_v1.methods import EXPLAIN, METHODS, PREDICT, ml_routes

SHIPPED = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "ml.v1.json"
PROSE = ("description", "enumDescriptions")
OUR_FIELDS = {
    ("GoogleCloudMlV1__Scheduling", "strategy"),
    ("GoogleCloudMlV1__AutomatedStoppingConfig", "successiveHalvingStoppingConfig"),
}
"""Extensions."""
OUR_MESSAGES = {"GoogleCloudMlV1_AutomatedStoppingConfig_SuccessiveHalvingStoppingConfig"}
OUR_ALGORITHMS = {"AUTO", "QUASI_RANDOM_SEARCH", "TPE", "CMA_ES"}
OUR_VALUES = {
    ("GoogleCloudMlV1__Version", "framework"): {"ONNX", "PYTORCH"},
    ("GoogleCloudMlV1__StudyConfig", "algorithm"): OUR_ALGORITHMS,
    ("GoogleCloudMlV1__HyperparameterSpec", "algorithm"): {*OUR_ALGORITHMS, "GAUSSIAN_PROCESS_BANDIT"},
}
"""Extensions of enumerations."""


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SHIPPED.read_text())
    return document


def bare(value: Any) -> Any:
    """Without prose, and enumerations in any order."""
    if isinstance(value, dict):
        return {
            name: sorted(inner) if name == "enum" else bare(inner)
            for name, inner in value.items()
            if name not in PROSE or not isinstance(inner, (str, list))
        }
    return value


def without(values: set[str], property_: dict[str, Any]) -> dict[str, Any]:
    """A property without values of its enumeration, all of which it must have."""
    if not values:
        return property_
    assert values <= set(property_["enum"])
    return {**property_, "enum": [value for value in property_["enum"] if value not in values]}


def methods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for inner in resource.get("resources", {}).values():
        yield from methods(inner)


def test_the_methods_are_the_apis(shipped: dict[str, Any]) -> None:
    ours = {method["id"]: method for method in methods(ml_document())}
    theirs = {method["id"]: method for method in methods(shipped)}
    assert len(ours) == 46
    assert ours.keys() == theirs.keys()
    for name, method in theirs.items():
        for part in ("httpMethod", "path", "flatPath", "parameters", "parameterOrder", "request", "response"):
            assert bare(ours[name].get(part)) == bare(method.get(part)), (name, part)


def test_the_messages_are_the_apis(shipped: dict[str, Any]) -> None:
    ours = ml_document()["schemas"]
    assert ours.keys() == shipped["schemas"].keys() | OUR_MESSAGES
    added = set()
    for name, schema in shipped["schemas"].items():
        properties = schema.get("properties", {})
        added |= {(name, each) for each in ours[name]["properties"] if each not in properties}
        for each, property_ in properties.items():
            assert bare(without(OUR_VALUES.get((name, each), set()), ours[name]["properties"][each])) == bare(
                property_
            ), (name, each)
    assert added == OUR_FIELDS
    assert bare(ml_document()["parameters"]) == bare(shipped["parameters"])


@pytest.mark.parametrize("path", ["/discovery/v1/apis/ml/v1/rest", "/$discovery/rest?version=v1", "/$discovery/rest"])
def test_both_historic_places_have_it(path: str) -> None:
    with TestClient(Starlette(routes=discovery_routes())) as client:
        document = client.get(path).json()
    assert document == ml_document()
    jobs = build_from_document(document, credentials=None, http=object()).projects().jobs()
    request = jobs.create(parent="projects/p", body={"jobId": "j"})
    assert (request.method, request.uri) == ("POST", "https://ml.googleapis.com/v1/projects/p/jobs?alt=json")


def test_there_is_no_other() -> None:
    with TestClient(Starlette(routes=discovery_routes())) as client:
        answer = client.get("/discovery/v1/apis/compute/v1/rest")
    assert answer.status_code == 404
    assert "only that of ml v1" in answer.json()["error"]["message"]


def test_a_method_without_a_handler_stops_the_engine() -> None:
    async def handler(_request: Any) -> Any: ...

    handlers = {method.id: handler for method in METHODS if method.id not in (PREDICT, EXPLAIN)}
    assert len(ml_routes(handlers)) == 44
    del handlers["projects.jobs.cancel"]
    with pytest.raises(KeyError, match=r"projects\.jobs\.cancel"):
        ml_routes(handlers)
