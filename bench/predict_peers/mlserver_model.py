"""MLServer: a runtime of its own kind, in the server's process, adaptive batching on; no compression, no metrics."""

import os
import sys

import numpy as np
from bare_model import load
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        self.model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        answer = np.asarray(self.model(x), np.float32).reshape(len(x), -1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", answer)])


if __name__ == "__main__":
    import asyncio

    port = int(sys.argv[1])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        parallel_workers=0,
        debug=False,
        gzip_enabled=False,
        metrics_endpoint=None,
    )
    model = ModelSettings(name="model", implementation=Model, max_batch_size=64, max_batch_time=0.001)
    asyncio.run(MLServer(settings).start([model]))
