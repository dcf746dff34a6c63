"""Python's other clients of Google Cloud in a wired shell: programs that are told nothing about the engine.

Slow because of TensorFlow, and of clients that are installed when they are first needed.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import uv

from conformance.conftest import PROJECT
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.tools import installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STORAGE = """\
import base64, hashlib, io, random
import google_crc32c
from google.cloud import storage

data = random.Random(1).randbytes(9 * 2**20 + 5)
client = storage.Client()
bucket = client.create_bucket("python-clients")
for name, chunk in (("simple", None), ("resumable", 2**20)):
    bucket.blob(name, chunk_size=chunk).upload_from_file(io.BytesIO(data), checksum="crc32c")
    blob = bucket.get_blob(name)
    assert blob.md5_hash == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert blob.crc32c == base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    assert blob.download_as_bytes(checksum="md5") == data
with bucket.blob("simple").open("rb") as file:
    file.seek(2**20)
    assert file.read(10) == data[2**20:2**20 + 10]
composed = bucket.blob("composed")
composed.compose([bucket.blob("simple"), bucket.blob("resumable")])
assert composed.download_as_bytes() == data + data
rewritten, token = bucket.blob("rewritten"), None
while True:
    token, done, total = rewritten.rewrite(composed, token=token)
    if token is None:
        break
assert (done, total) == (2 * len(data),) * 2
assert rewritten.crc32c == bucket.get_blob("composed").crc32c
assert [blob.name for blob in bucket.list_blobs()] == ["composed", "resumable", "rewritten", "simple"]
with client.batch():
    for name in ("composed", "resumable"):
        bucket.blob(name).delete()
print("left", sorted(blob.name for blob in bucket.list_blobs()))
"""
GCSFS = """\
import fsspec, pandas
frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
fs = fsspec.filesystem("gs")
fs.mkdir("pandas-bucket")
frame.to_csv("gs://pandas-bucket/dir/frame.csv", index=False)
assert pandas.read_csv("gs://pandas-bucket/dir/frame.csv").equals(frame)
with fsspec.open("gs://pandas-bucket/dir/text", "w") as file:
    file.write("line")
print(fs.ls("pandas-bucket/dir"), fs.exists("pandas-bucket/none"), fs.du("pandas-bucket"))
fs.rm("pandas-bucket/dir", recursive=True)
print(fs.find("pandas-bucket"))
"""
LOGGING = """\
import os
from google.cloud import logging
client = logging.Client()
resource = logging.Resource(type="ml_job", labels={"job_id": "made_1", "task_name": "notebook"})
client.logger("notebook").log_text("written by a program", severity="WARNING", resource=resource)
wanted = 'resource.type="ml_job" AND resource.labels.job_id="made_1"'
entries = list(client.list_entries(filter_=wanted, order_by=logging.ASCENDING))
texts = [e.payload["message"] if isinstance(e.payload, dict) else e.payload for e in entries]
print("line two" in texts, "Job completed successfully." in texts, "written by a program" in texts)
"""
TENSORFLOW = """\
import numpy as np
import tensorflow as tf

g, root = tf.io.gfile, "gs://tf-files"
g.makedirs(root + "/a/b")
with g.GFile(root + "/a/b/text", "w") as file:
    file.write("one\\n")
with g.GFile(root + "/a/b/text", "a") as file:
    file.write("two\\n")
assert g.GFile(root + "/a/b/text").read() == "one\\ntwo\\n"
assert g.listdir(root + "/a") == ["b/"], g.listdir(root + "/a")
assert g.glob(root + "/a/b/t*") == [root + "/a/b/text"]
assert g.isdir(root + "/a") and not g.isdir(root + "/a/b/text")
assert g.stat(root + "/a/b/text").length == 8
g.rename(root + "/a/b/text", root + "/a/renamed")
g.copy(root + "/a/renamed", root + "/copied")
assert [folder for folder, _, _ in g.walk(root)], "walk"
g.remove(root + "/copied")
assert not g.exists(root + "/copied")
g.rmtree(root + "/a")
assert not g.exists(root + "/a")

variable = tf.Variable(np.random.default_rng(0).standard_normal((13, 2**20)).astype("float64"))
kept = variable.numpy().copy()
path = tf.train.Checkpoint(variable=variable).save(root + "/checkpoint/c")
variable.assign(tf.zeros_like(variable))
tf.train.Checkpoint(variable=variable).restore(tf.train.latest_checkpoint(root + "/checkpoint")).assert_consumed()
assert (variable.numpy() == kept).all()
size = sum(g.stat(name).length for name in g.glob(root + "/checkpoint/*"))
assert size > 100 * 2**20, size

class Double(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, x):
        return 2 * x

tf.saved_model.save(Double(), root + "/model")
assert tf.saved_model.load(root + "/model")(tf.constant([1.0, 2.0])).numpy().tolist() == [2.0, 4.0]
print("all of it")
"""


def run(python: Path | str, code: str, environ: Mapping[str, str], cwd: Path) -> str:
    """What a program prints that ends well."""
    done = subprocess.run([python, "-c", code], env=environ, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.proves("google-cloud-storage", state="works")
def test_google_cloud_storage(wired: dict[str, str], tmp_path: Path) -> None:
    assert run(sys.executable, STORAGE, wired, tmp_path) == "left ['rewritten', 'simple']\n"


@pytest.mark.proves("gcsfs, and pandas by it", state="works")
def test_gcsfs(wired: dict[str, str], tmp_path: Path) -> None:
    python = installed("gcsfs==2026.10.1", "pandas==3.1.1") / "python"
    listed, found = run(python, GCSFS, wired, tmp_path).splitlines()
    assert listed == "['pandas-bucket/dir/frame.csv', 'pandas-bucket/dir/text'] False 16"
    assert found == "[]"


@pytest.mark.proves("google-cloud-logging", state="works")
def test_google_cloud_logging(wired: dict[str, str], trained_model: str, tmp_path: Path) -> None:
    python = installed("google-cloud-logging==3.17.0") / "python"
    assert run(python, LOGGING, wired, tmp_path) == "True True True\n"


@pytest.mark.proves("TensorFlow's gs://", state="works")
def test_tensorflow(wired: dict[str, str], tmp_path: Path) -> None:
    resolution = Catalogue.load().resolve("2.21")
    python = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin())).ensure(resolution, print).python
    create = "from google.cloud import storage; storage.Client().create_bucket('tf-files')"
    run(sys.executable, create, wired, tmp_path)
    assert run(python, TENSORFLOW, wired, tmp_path).endswith("all of it\n")


@pytest.mark.proves("curl", state="works")
def test_curl(wired: dict[str, str], shared_engine: EngineProcess, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        done = subprocess.run(["curl", "-sS", *arguments], env=wired, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    api = "https://storage.googleapis.com/storage/v1/b"
    header = ("-H", "Content-Type: application/json")
    made = json.loads(curl("-X", "POST", *header, "-d", '{"name": "curl-bucket"}', f"{api}?project={PROJECT}"))
    assert made["name"] == "curl-bucket"
    (tmp_path / "file").write_text("content")
    upload = "https://storage.googleapis.com/upload/storage/v1/b/curl-bucket/o?uploadType=media&name=dir/file"
    curl("-X", "POST", "--data-binary", f"@{tmp_path / 'file'}", upload)
    assert curl("https://storage.googleapis.com/curl-bucket/dir/file") == "content"
    assert "us-central1" in curl(f"https://us-central1-ml.googleapis.com/v1/projects/{PROJECT}/locations")
