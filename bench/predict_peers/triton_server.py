"""Triton's own server from the nvidia-pytriton wheel: a Python backend model with dynamic batching, no proxy.

Writes a model repository and becomes the server. Its Python stub needs an interpreter with a shared libpython.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytriton

HERE = Path(__file__).resolve().parent
SERVER = Path(pytriton.__file__).parent / "tritonserver"
CONFIG = """
backend: "python"
max_batch_size: 1024
input [{{ name: "x", data_type: TYPE_FP32, dims: [{features}] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [-1] }}]
instance_group [{{ count: 1, kind: KIND_CPU }}]
dynamic_batching {{ }}
"""

port = int(sys.argv[1])
repository = Path(tempfile.mkdtemp(prefix="triton-"))
(repository / "model" / "1").mkdir(parents=True)
(repository / "model" / "config.pbtxt").write_text(CONFIG.format(features=os.environ["MODEL_FEATURES"]))
shutil.copy(HERE / "triton_model.py", repository / "model" / "1" / "model.py")
backends = tempfile.mkdtemp(prefix="triton-")
shutil.copytree(SERVER / "backends" / "python", Path(backends, "python"))
version = f"{sys.version_info.major}.{sys.version_info.minor}"
stub = SERVER / "python_backend_stubs" / version / "triton_python_backend_stub"
shutil.copy(stub, Path(backends, "python"))
shutil.copy(stub, repository / "model")
environment = {
    **os.environ,
    "MODEL_PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),  # the stub ignores PYTHONPATH
    "LD_LIBRARY_PATH": str(Path(pytriton.__file__).parent.with_name("nvidia_pytriton.libs")),
}
arguments = [
    str(SERVER / "bin" / "tritonserver"),
    f"--model-repository={repository}",
    f"--backend-directory={backends}",
    "--http-address=127.0.0.1",
    f"--http-port={port}",
    "--http-thread-count=2",
    "--allow-grpc=false",
    f"--metrics-port={port + 2}",
]
os.execve(arguments[0], arguments, environment)
