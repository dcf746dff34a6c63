"""Custom containers through a whole engine: where there is no podman that runs, by a program in its place.

Slow because engines of their own are started.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import EngineError
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.client import connect
from enginehouse.testing.containers import FakePodman
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.training import Trainings

pytestmark = pytest.mark.slow

IMAGE = "gcr.io/project/trainer:1"
# Each replica says who it is and reaches gs:// the way that TensorFlow and Google's clients do; the master ends last.
TRAINER = """
import json, os, ssl, sys, time, urllib.error, urllib.request

config, cluster = json.loads(os.environ["TF_CONFIG"]), json.loads(os.environ["CLUSTER_SPEC"])
task = config["task"]["type"]
print(json.dumps([sys.argv[1:], task, sorted(config["cluster"]), cluster["task"]["type"]]), flush=True)
bucket, _, prefix = sys.argv[-1][5:].partition("/")
headers = {"Authorization": "Bearer " + os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"]}
trusted = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])


def ask(path, data=None):
    request = urllib.request.Request("https://storage.googleapis.com" + path, data, headers)
    return urllib.request.urlopen(request, context=trusted).read()


told = json.dumps(config["job"]).encode()
ask("/upload/storage/v1/b/%s/o?uploadType=media&name=%s/%s" % (bucket, prefix, task), told)
if task == "worker":
    time.sleep(600)
for attempt in range(600):
    try:
        ask("/storage/v1/b/%s/o/%s" % (bucket, (prefix + "/worker").replace("/", "%2F")))
        break
    except urllib.error.HTTPError:
        time.sleep(0.1)
"""
CLUSTER = {"scaleTier": "CUSTOM", "masterType": "n1-standard-4", "workerType": "n1-standard-4", "workerCount": "1"}


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> FakePodman:
    images = {IMAGE: {"entrypoint": [sys.executable, "-c", TRAINER], "cmd": ["--own"]}}
    return FakePodman(tmp_path_factory.mktemp("podman"), images)


@pytest.fixture(scope="module")
def trainings(podman: FakePodman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    folder = tmp_path_factory.mktemp("containers")
    path = os.pathsep.join([str(podman.directory), os.environ["PATH"]])
    engine = EngineProcess(folder / "data", {"PATH": path, "ENGINEHOUSE_CANCEL_GRACE_S": "1"})
    with engine:
        yield Trainings(lambda: engine.url, folder)


def submit(trainings: Trainings, job_id: str, **training_input: object) -> None:
    trainings.client.jobs.create(
        {
            "jobId": job_id,
            "trainingInput": {
                "region": "us-central1",
                "masterConfig": {"imageUri": IMAGE},
                "jobDir": trainings.job_dir(job_id),
                **training_input,
            },
        }
    )


def test_a_cluster_of_containers(trainings: Trainings, podman: FakePodman) -> None:
    submit(trainings, "cluster", args=["--steps", "3"], **CLUSTER)
    trainings.succeed("cluster")
    log = trainings.log("cluster")
    job_dir = trainings.job_dir("cluster")
    said = {
        task: json.dumps([["--steps", "3", "--job-dir", job_dir], task, ["master", "worker"], task])
        for task in ("master", "worker")
    }
    assert [line for line in log if ": [[" in line].count(f"master-replica-0: {said['master']}") == 1
    assert f"worker-replica-0: {said['worker']}" in log
    told = json.loads(trainings.read("cluster", "master") or "")
    assert told["master_config"] == {"image_uri": IMAGE} and told["args"] == ["--steps", "3"]
    assert any(line.startswith(f"master-replica-0: Running the image: {IMAGE} --steps 3 --job-dir") for line in log)
    mounts = [line[index + 1] for line in podman.said("run") for index, word in enumerate(line) if word == "--volume"]
    assert any(each.endswith("bundle.pem:/etc/ssl/certs/ca-certificates.crt:ro") for each in mounts)
    assert podman.containers() == []


def test_chief_where_it_is_asked_for_and_arguments_by_role(trainings: Trainings) -> None:
    master = {"imageUri": IMAGE, "containerArgs": ["--of-master"]}
    submit(
        trainings,
        "chief",
        useChiefInTfConfig=True,
        masterConfig=master,
        workerConfig={"containerArgs": ["--of-worker"]},
        **CLUSTER,
    )
    trainings.succeed("chief")
    log = trainings.log("chief")
    tail = ["--job-dir", trainings.job_dir("chief")]
    said = json.dumps([["--of-master", *tail], "chief", ["chief", "worker"], "master"])
    assert f"master-replica-0: {said}" in log
    said = json.dumps([["--of-worker", *tail], "worker", ["chief", "worker"], "worker"])
    assert f"worker-replica-0: {said}" in log


def test_a_crash_begins_the_job_anew_and_a_failure_ends_it(trainings: Trainings) -> None:
    command = [sys.executable, "-c", "import os; os.abort()"]
    submit(trainings, "aborts", masterConfig={"imageUri": IMAGE, "containerCommand": command})
    job = trainings.wait("aborts")
    assert job["state"] == "FAILED" and "exited with a non-zero status of 134" in job["errorMessage"]
    assert len([line for line in trainings.log("aborts") if "The whole job is begun anew" in line]) == 3
    command = [sys.executable, "-c", "raise ValueError('no data')"]
    submit(trainings, "fails", masterConfig={"imageUri": IMAGE, "containerCommand": command})
    job = trainings.wait("fails")
    assert job["errorMessage"].startswith("The replica master 0 exited with a non-zero status of 1. \nTraceback")


def test_cancel_removes_the_container(trainings: Trainings, podman: FakePodman) -> None:
    command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
    submit(trainings, "sleeps", masterConfig={"imageUri": IMAGE, "containerCommand": command})
    trainings.wait_until("sleeps", lambda _job: "master-replica-0: ready" in trainings.log("sleeps"))
    assert len(podman.containers()) == 1
    trainings.client.jobs.cancel("sleeps")
    assert trainings.wait("sleeps")["state"] == "CANCELLED"
    assert podman.containers() == []


def test_what_does_not_go_together_is_refused(trainings: Trainings) -> None:
    def fields(**training_input: object) -> set[str]:
        with pytest.raises(EngineError) as error:
            submit(trainings, "refused", **training_input)
        return {violation.field for violation in error.value.violations}

    assert fields(runtimeVersion="1.8", pythonModule="trainer.task") == {
        "training_input.runtime_version",
        "training_input.python_module",
    }
    both = {"imageUri": IMAGE, "containerArgs": ["--a"]}
    assert fields(masterConfig=both, args=["--b"]) == {"training_input.args"}
    assert fields(masterConfig={"imageUri": "--privileged"}) == {"training_input.master_config.image_uri"}
    assert "training_input.worker_config.image_uri" in fields(
        masterConfig={}, workerConfig={"imageUri": IMAGE}, runtimeVersion="1.8", **CLUSTER
    )


def test_without_an_engine_the_submit_says_what_to_install(tmp_path: Path) -> None:
    environ = {"ENGINEHOUSE_CONTAINER_ENGINE": str(tmp_path / "podman"), "ENGINEHOUSE_GATEWAY": "false"}
    with EngineProcess(tmp_path / "data", environ) as engine, pytest.raises(EngineError) as error:
        body = {"jobId": "job", "trainingInput": {"region": "us-central1", "masterConfig": {"imageUri": IMAGE}}}
        connect(url=engine.url, project="demo").jobs.create(body)
    [violation] = error.value.violations
    assert violation.field == "training_input.master_config.image_uri"
    assert "Install one, such as with 'apt-get install podman'" in violation.description


@pytest.fixture
def real_image(tmp_path: Path) -> Iterator[str]:
    """An image with busybox in a real podman."""
    podman, busybox = shutil.which("podman"), shutil.which("busybox")
    if podman is None or busybox is None:
        pytest.skip("podman and a static busybox are needed")
    image = "localhost/enginehouse-test"
    (tmp_path / "bin").mkdir()
    shutil.copy(busybox, tmp_path / "bin" / "busybox")
    for name in ("sh", "wget", "sleep"):
        (tmp_path / "bin" / name).symlink_to("busybox")
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(archive), "bin"], check=True)
    try:
        for command in (
            ["import", "-c", 'ENTRYPOINT ["/bin/sh", "-c"]', str(archive), image],
            ["run", "--rm", "--network", "host", image, "true"],
        ):
            done = subprocess.run([podman, *command], capture_output=True, text=True, timeout=120)
            if done.returncode != 0:
                pytest.skip(f"podman does not run here: {done.stderr.strip()}")
        yield image
    finally:
        subprocess.run([podman, "rmi", "--force", image], capture_output=True, timeout=120)


def test_a_real_container(real_image: str, tmp_path: Path) -> None:
    """Its own files, the host's network, the job's variables; SIGTERM reaches it."""
    script = (
        'echo "task $TF_CONFIG"; ls /bin; echo failing >&2; '
        'wget -q -O - "$STORAGE_EMULATOR_HOST/storage/v1/b/$0/o/input?alt=media"'
    )
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CANCEL_GRACE_S": "20"}) as engine:
        trainings = Trainings(lambda: engine.url, tmp_path)
        trainings.put("input", "the input\n")
        config = {"imageUri": real_image, "containerArgs": [script, trainings.bucket]}
        submit(trainings, "real", masterConfig=config)
        trainings.succeed("real")
        log = trainings.log("real")
        assert "master-replica-0: busybox" in log and any('task {"cluster": {"master"' in line for line in log)
        assert "master-replica-0: the input" in log
        waits = "trap 'echo saving; exit 0' TERM; echo ready; while true; do sleep 0.1; done"
        submit(trainings, "stops", masterConfig={"imageUri": real_image, "containerArgs": [waits]})
        trainings.wait_until("stops", lambda _job: "master-replica-0: ready" in trainings.log("stops"))
        trainings.client.jobs.cancel("stops")
        assert trainings.wait("stops")["state"] == "CANCELLED"
        assert "master-replica-0: saving" in trainings.log("stops")
    left = subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True)
    assert "enginehouse-" not in left.stdout


def test_real_containers_that_serve(real_image: str, tmp_path: Path) -> None:
    """Each has a network of its own, so that two listen on the same port; the version's files are there."""
    script = """
        busybox mkdir -p /www/cgi-bin; echo ok > /www/health
        echo '#!/bin/sh' > /www/cgi-bin/predict
        echo 'echo; busybox printf "{\\"predictions\\": [\\"%s\\", %s, \\"%s\\"]}" \
            $AIP_VERSION_NAME $AIP_HTTP_PORT "$(busybox cat $AIP_STORAGE_URI/w)"' >> /www/cgi-bin/predict
        busybox chmod +x /www/cgi-bin/predict
        exec busybox httpd -f -p $(AIP_HTTP_PORT) -h /www
    """
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CANCEL_GRACE_S": "0.2"}) as engine:
        client = connect(data_dir=engine.data_dir)
        client.storage.create_bucket("models")
        client.storage.upload(io.BytesIO(b"weights"), ObjectUri("models", "mine/w"))
        client.models.create({"name": "mine"})
        for name in ("v1", "v2"):
            body = {
                "name": name,
                "container": {"image": real_image, "args": [script], "ports": [{"containerPort": 8501}]},
                "routes": {"predict": "/cgi-bin/predict", "health": "/health"},
                "deploymentUri": "gs://models/mine",
            }
            client.operations.wait(client.versions("mine").create(body))
        for name in ("v1", "v2"):
            assert client.predict("mine", name, [1])["predictions"] == [name, 8501, "weights"]
        client.operations.wait(client.versions("mine").delete("v2"))
        engine.kill()  # what is left ends all the same
        deadline = time.monotonic() + 30
        while "enginehouse-v" in subprocess.run(["podman", "ps", "-a"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline
            time.sleep(0.1)
