"""Calls a server with the stubs of tensorflow-serving-api and prints what it was told as JSON.

Runs in a TensorFlow runtime: `call_tf_serving.py ADDRESS`.
"""

import json
import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

channel = grpc.insecure_channel(sys.argv[1])
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
told = {}

request = predict_pb2.PredictRequest()
request.model_spec.name = "served"
inputs = {
    "x": tf.constant([[1.5, 2.0], [3.0, 4.0]]),
    "name": tf.constant([b"a", b"\xff"]),
    "n": tf.constant([1, 2**60], tf.int64),
    "half": tf.constant([0.5, 1.0], tf.float16),
}
for name, value in inputs.items():
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
request.output_filter.extend(["x", "n", "half", "raw_bytes"])
outputs = stub.Predict(request, 60).outputs
told["predict"] = {name: tf.make_ndarray(each).tolist() for name, each in outputs.items() if name != "raw_bytes"}
told["types"] = {name: tf.as_dtype(each.dtype).name for name, each in outputs.items()}
told["raw_bytes"] = [each.hex() for each in outputs["raw_bytes"].string_val]


request = predict_pb2.PredictRequest()
request.model_spec.name, request.model_spec.signature_name = "served", "negative"
request.inputs["image"].CopyFrom(tf.make_tensor_proto([[[0.25, 1.0], [0.5, 0.0]]], tf.float32))
assert request.inputs["image"].tensor_content
told["negative"] = tf.make_ndarray(stub.Predict(request, 60).outputs["negative"]).tolist()


def example(**features):
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
                for name, value in features.items()
            }
        )
    )


request = classification_pb2.ClassificationRequest()
request.model_spec.name, request.model_spec.signature_name = "served", "classify"
request.input.example_list.examples.extend([example(x=0.25), example(x=1.0)])
rows = stub.Classify(request, 60).result.classifications
told["classify"] = [[[each.label, each.score] for each in row.classes] for row in rows]

request = regression_pb2.RegressionRequest()
request.model_spec.name, request.model_spec.signature_name = "served", "regress"
request.input.example_list_with_context.context.CopyFrom(example(x=0.25))
request.input.example_list_with_context.examples.extend([example(y=1.0), example(x=1.5)])
told["regress"] = [each.value for each in stub.Regress(request, 60).result.regressions]

request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
request.model_spec.name = "served"
signatures = get_model_metadata_pb2.SignatureDefMap()
stub.GetModelMetadata(request, 60).metadata["signature_def"].Unpack(signatures)
told["signatures"] = sorted(signatures.signature_def)
told["x"] = str(tf.TensorShape(signatures.signature_def["serving_default"].inputs["x"].tensor_shape))

request = get_model_status_pb2.GetModelStatusRequest()
request.model_spec.name, request.model_spec.version.value = "served", 1
status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, 60)
told["state"] = [[each.version, each.state] for each in status.model_version_status]

request = predict_pb2.PredictRequest()
request.model_spec.name = "served"
request.inputs["y"].CopyFrom(tf.make_tensor_proto([1.0]))
try:
    stub.Predict(request, 60)
except grpc.RpcError as error:
    told["wrong"] = [error.code().name, error.details()]

print(json.dumps(told))
