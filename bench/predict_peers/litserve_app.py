"""LitServe, its batching on."""

import os
import sys

import litserve
import numpy as np
from bare_model import load


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])

    def decode_request(self, request):
        return np.asarray(request["instances"], np.float32)

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return np.concatenate(inputs)

    def predict(self, x):
        return self.model(x)

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
