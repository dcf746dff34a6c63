"""LitServe with its fast queue; its batching, which cost a lone client a wait and gained nothing, is off."""

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

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Api()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
