"""Ray Serve behind HAProxy, which is many times as fast as its own proxy; its throughput options, batching on.

One replica: two were slower on two processors, and so were no batching and a plain ASGI application.
"""

import os
import sys
import time

os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")
os.environ.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 unless it is told
import numpy as np
import orjson
import ray
from bare_model import load
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

QUIET = {"enable_access_log": False, "log_level": "ERROR"}


@serve.deployment(max_ongoing_requests=1000, logging_config=QUIET)
class Model:
    def __init__(self) -> None:
        self.model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def merged(self, tables):
        rows = self.model(np.concatenate(tables))
        return np.split(rows, np.cumsum([len(table) for table in tables])[:-1])

    async def __call__(self, request: Request) -> Response:
        instances = np.asarray(orjson.loads(await request.body())["instances"], np.float32)
        answer = await self.merged(instances)
        return Response(orjson.dumps({"predictions": answer.tolist()}), media_type="application/json")


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config=QUIET)
serve.run(Model.bind(), route_prefix="/predict")
while True:
    time.sleep(3600)
