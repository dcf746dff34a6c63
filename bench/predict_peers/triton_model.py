"""The model inside Triton's Python backend: the requests of a dynamic batch become one call."""

import os
import sys

sys.path[:0] = os.environ["MODEL_PYTHONPATH"].split(os.pathsep)
import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
from bare_model import load  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])

    def execute(self, requests):
        tables = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        rows = np.asarray(self.model(np.concatenate(tables)), np.float32)
        rows = rows.reshape(len(rows), -1)
        responses, start = [], 0
        for table in tables:
            answer = triton.Tensor("y", rows[start : start + len(table)])
            responses.append(triton.InferenceResponse([answer]))
            start += len(table)
        return responses
