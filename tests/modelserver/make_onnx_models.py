"""Makes models for test_onnx.py; run by the interpreter of a runtime, with a directory to write into."""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = Path(sys.argv[1])


def save(name: str, nodes: list, inputs: list, outputs: list, constants: dict) -> None:
    tensors = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    (folder / name).mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / name / "model.onnx")


weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
save(
    "scores",
    [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["scores"], axis=1)],
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 3])],
    {"w": weights},
)
save(
    "words",
    [helper.make_node("Identity", ["word"], ["same"]), helper.make_node("Neg", ["number"], ["negative"])],
    [
        helper.make_tensor_value_info("word", TensorProto.STRING, ["rows"]),
        helper.make_tensor_value_info("number", TensorProto.INT64, ["rows"]),
    ],
    [
        helper.make_tensor_value_info("same", TensorProto.STRING, ["rows"]),
        helper.make_tensor_value_info("negative", TensorProto.INT64, ["rows"]),
    ],
    {},
)
