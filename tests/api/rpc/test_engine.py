"""Predictions by gRPC from a real engine, by Triton's client and plain stubs. Slow: an engine and a model server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import joblib
import numpy as np
import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from enginehouse.api.rpc.messages import message, methods
from enginehouse.cli.invocation import Invocation
from enginehouse.cli.tree import root
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess

pytestmark = pytest.mark.slow

FEATURES, LABELS = load_iris(return_X_y=True)
FLOWERS = FEATURES[[0, 60, 120]].astype(np.float32)
SERVING = "tensorflow.serving.PredictionService"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    environ = {"ENGINEHOUSE_GRPC_PORT": "0", "ENGINEHOUSE_MAX_BODY_BYTES": "100000"}
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data", environ) as engine:
        client = connect(data_dir=engine.data_dir)
        client.storage.create_bucket("models")
        file = io.BytesIO()
        joblib.dump(LogisticRegression(max_iter=1000).fit(FEATURES, LABELS), file)
        client.storage.upload(io.BytesIO(file.getvalue()), ObjectUri("models", "iris/model.joblib"))
        client.models.create({"name": "iris"})
        for name in ("v1", "canary"):
            body = {"name": name, "deploymentUri": "gs://models/iris", "runtimeVersion": "scikit-learn-1.9"}
            client.operations.wait(client.versions("iris").create(body))
        yield engine


@pytest.fixture
def client(engine: EngineProcess) -> Client:
    return connect(data_dir=engine.data_dir)


@pytest.fixture
def address(engine: EngineProcess) -> str:
    with urlopen(f"{engine.url}/enginehouse/v1/status") as answer:
        return str(json.loads(answer.read())["grpcAddress"])


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


def call(channel: grpc.Channel, service: str, method: str, request: Any, **more: Any) -> Any:
    _, answer = methods(service)[method]
    stub = channel.unary_unary(f"/{service}/{method}", type(request).SerializeToString, answer.FromString)
    return stub(request, timeout=30, **more)


def predict_request(rows: np.ndarray[Any, Any], **spec: Any) -> Any:
    request = message("tensorflow.serving.PredictRequest")(model_spec={"name": "iris", **spec})
    tensor = request.inputs["instances"]
    tensor.dtype, tensor.tensor_content = 1, rows.astype("<f4").tobytes()
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    return request


def infer_input(rows: np.ndarray[Any, Any]) -> triton.InferInput:
    told = triton.InferInput("instances", list(rows.shape), "FP32")
    told.set_data_from_numpy(rows)
    return told


def test_the_client_of_triton(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris")
        assert client.is_model_ready("iris", "1")
        assert not client.is_model_ready("iris", "v7")
        assert client.get_server_metadata().name == "enginehouse"
        told = client.get_model_metadata("iris", as_json=True)
        assert (told["name"], told["versions"], told["platform"]) == ("iris", ["v1"], "sklearn_joblib")
        assert told["inputs"] == [{"name": "instances", "datatype": "FP64", "shape": ["-1", "4"]}]
        wanted = [triton.InferRequestedOutput("predictions")]
        for version in ("", "canary"):
            answer = client.infer("iris", [infer_input(FLOWERS)], version, outputs=wanted, request_id="42")
            assert answer.as_numpy("predictions").tolist() == [0, 1, 2]
            assert (answer.get_response().id, answer.get_response().model_version) == ("42", version or "v1")
        with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
            client.infer("nobody", [infer_input(FLOWERS)])
        with pytest.raises(triton.InferenceServerException, match="Prediction failed") as caught:
            client.infer("iris", [infer_input(FLOWERS[:, :2].copy())])
        assert "INVALID_ARGUMENT" in str(caught.value.status())


def test_contents_are_answered_with_contents(channel: grpc.Channel) -> None:
    request = message("inference.ModelInferRequest")(model_name="iris")
    tensor = request.inputs.add(name="instances", datatype="FP64", shape=[3, 4])
    tensor.contents.fp64_contents.extend(FLOWERS.ravel().tolist())
    answer = call(channel, "inference.GRPCInferenceService", "ModelInfer", request)
    assert list(answer.outputs[0].contents.int64_contents) == [0, 1, 2]
    assert not answer.raw_output_contents
    request.raw_input_contents.extend([b"", b""])
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "inference.GRPCInferenceService", "ModelInfer", request)
    assert "send one for each, or none" in caught.value.details()


def test_tensorflow_serving(channel: grpc.Channel) -> None:
    answer = call(channel, SERVING, "Predict", predict_request(FLOWERS))
    assert list(answer.outputs["predictions"].int64_val) == [0, 1, 2]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("iris", 1)
    by_label = call(channel, SERVING, "Predict", predict_request(FLOWERS, version_label="canary"))
    assert by_label.model_spec.version_label == "canary"
    status = message("tensorflow.serving.GetModelStatusRequest")(model_spec={"name": "iris", "version": {"value": 1}})
    told = call(channel, "tensorflow.serving.ModelService", "GetModelStatus", status)
    assert [(each.version, each.state) for each in told.model_version_status] == [(1, 30)]
    wanted = message("tensorflow.serving.GetModelMetadataRequest")(
        model_spec={"name": "iris"}, metadata_field=["signature_def"]
    )
    signatures = message("tensorflow.serving.SignatureDefMap")()
    call(channel, SERVING, "GetModelMetadata", wanted).metadata["signature_def"].Unpack(signatures)
    [signature] = signatures.signature_def.values()
    assert [dim.size for dim in signature.inputs["instances"].tensor_shape.dim] == [-1, 4]


def test_what_is_refused_and_how(channel: grpc.Channel) -> None:
    def refused(request: Any, method: str = "Predict", **more: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, SERVING, method, request, **more)
        return caught.value.code(), caught.value.details()

    code, words = refused(predict_request(FLOWERS, version={"value": 7}))
    assert (code, "v7" in words) == (grpc.StatusCode.NOT_FOUND, True)
    elsewhere = (("x-goog-user-project", "elsewhere"),)
    assert refused(predict_request(FLOWERS), metadata=elsewhere)[0] == grpc.StatusCode.NOT_FOUND
    code, words = refused(predict_request(FLOWERS, signature_name="other"))
    assert (code, "There is no signature 'other'" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    request = predict_request(FLOWERS)
    request.output_filter.append("scores")
    assert refused(request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Field: output_filter Error: There is no output 'scores'; the signature has: predictions.",
    )
    assert refused(predict_request(np.zeros((10_000, 4))))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    classify = message("tensorflow.serving.ClassificationRequest")(model_spec={"name": "iris"})
    assert refused(classify, "Classify")[1] == "Field: input Error: It must hold examples."
    classify.input.example_list.examples.append(b"")
    assert "use Predict" in refused(classify, "Classify")[1]


def test_a_deadline_ends_one_call_alone(channel: grpc.Channel) -> None:
    _, answer = methods(SERVING)["Predict"]
    request = predict_request(FLOWERS)
    stub = channel.unary_unary(f"/{SERVING}/Predict", type(request).SerializeToString, answer.FromString)
    with pytest.raises(grpc.RpcError) as caught:
        stub(request, timeout=0.0001)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert list(stub(request, timeout=30).outputs["predictions"].int64_val) == [0, 1, 2]


def test_requests_count_as_all_others_do(engine: EngineProcess, client: Client, channel: grpc.Channel) -> None:
    def mle(*arguments: str) -> str:
        flags = ["--data-dir", str(engine.data_dir)]
        done = CliRunner().invoke(root, [*arguments, *flags], obj=Invocation(), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    table = f"{client.project}.monitoring.iris"
    mle(
        "versions",
        "update",
        "canary",
        "--model",
        "iris",
        "--bigquery-table-name",
        table,
        "--sampling-percentage",
        "1",
    )
    client.models.set_traffic("iris", {"v1": 0, "canary": 100}, {})
    answer = call(channel, SERVING, "Predict", predict_request(FLOWERS))
    assert answer.model_spec.version_label == "canary"
    found = json.loads(mle("requests", "query", "SELECT raw_data FROM monitoring.iris", "--format", "json"))
    assert [json.loads(row["raw_data"])["instances"] for row in found] == [FLOWERS.tolist()]
    with urlopen(f"{engine.url}/metrics") as metrics:
        lines = metrics.read().decode().splitlines()
    [count] = [line for line in lines if "_count" in line and "canary" in line and 'phase="model"' in line]
    assert float(count.rpartition(" ")[2]) >= 1
    labels = f'{{method="{SERVING}/Predict",code="OK"}}'
    [count] = [line for line in lines if line.startswith(f"enginehouse_grpc_call_seconds_count{labels}")]
    assert float(count.rpartition(" ")[2]) >= 1


def test_status_tells_the_address(engine: EngineProcess, address: str) -> None:
    done = CliRunner().invoke(root, ["status", "--data-dir", str(engine.data_dir)], obj=Invocation())
    assert f"grpcAddress: {address}" in done.output
    assert address == json.loads(Path(engine.data_dir, "engine.json").read_text())["grpcAddress"]
