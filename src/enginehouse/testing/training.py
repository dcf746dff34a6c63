"""Training jobs on a real engine, from source text to what they left: for end-to-end tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from enginehouse.core.errors import NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import make_sdist

_POLL_S = 0.05


class Trainings:
    """Submits trainers to an engine and follows them.

    Args:
        url: of the engine; asked each time, since it may be started anew.
        folder: for packages.
    """

    def __init__(
        self, url: Callable[[], str], folder: Path, *, project: str = "demo", bucket: str = "trainings"
    ) -> None:
        self._url = url
        self._folder = folder
        self._project = project
        self.bucket = bucket
        self.client.storage.create_bucket(bucket)

    @property
    def client(self) -> Client:
        return connect(url=self._url(), project=self._project)

    def job_dir(self, job_id: str) -> str:
        return f"gs://{self.bucket}/jobs/{job_id}"

    def upload(self, files: Mapping[str, str]) -> str:
        """The URI of a package with these files."""
        content = make_sdist(files)
        package = self._folder / f"trainer-{abs(hash(content))}" / "trainer-0.1.tar.gz"
        package.parent.mkdir(parents=True, exist_ok=True)
        package.write_bytes(content)
        uri = ObjectUri(self.bucket, f"packages/{package.parent.name}/{package.name}")
        self.client.storage.upload_file(package, uri)
        return str(uri)

    def submit(self, job_id: str, source: str, *args: str, **training_input: Any) -> None:
        """Submit `source` as trainer/task.py; `training_input` in the names of ml v1."""
        self.client.jobs.create(
            {
                "jobId": job_id,
                "trainingInput": {
                    "runtimeVersion": "scikit-learn-1.9",
                    "pythonModule": "trainer.task",
                    "packageUris": [self.upload({"trainer/task.py": source})],
                    "args": list(args),
                    "jobDir": self.job_dir(job_id),
                    **training_input,
                },
            }
        )

    def wait(self, job_id: str, *, timeout_s: float = 300.0) -> dict[str, Any]:
        """The job when it has ended."""
        return self.wait_until(job_id, lambda job: "endTime" in job, timeout_s=timeout_s)

    def wait_until(
        self, job_id: str, reached: Callable[[dict[str, Any]], bool], *, timeout_s: float = 120.0
    ) -> dict[str, Any]:
        """The job once `reached` says yes.

        Raises:
            AssertionError: it did not within `timeout_s`, with the job's log.
        """
        try:
            return self.follow(self.client, job_id, reached, timeout_s=timeout_s)
        except TimeoutError as error:
            raise AssertionError("\n".join([str(error), *self.log(job_id)])) from None

    @staticmethod
    def follow(
        client: Client,
        job_id: str,
        reached: Callable[[dict[str, Any]], bool] = lambda job: "endTime" in job,
        *,
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """A job once `reached` says yes; TimeoutError if it does not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not reached(job := dict(client.jobs.get(job_id))):
            if time.monotonic() > deadline:
                raise TimeoutError(str(job))
            time.sleep(_POLL_S)
        return job

    def succeed(self, job_id: str, *, timeout_s: float = 300.0) -> dict[str, Any]:
        """Wait for the job, which must succeed."""
        job = self.wait(job_id, timeout_s=timeout_s)
        assert job["state"] == "SUCCEEDED", "\n".join([job.get("errorMessage", ""), *self.log(job_id)])
        return job

    def log(self, job_id: str) -> list[str]:
        """`TASK: MESSAGE` of each line so far."""
        lines: list[str] = []
        cursor = ""
        while True:
            answer = self.client.jobs.read_logs(job_id, cursor)
            lines += [f"{entry['taskName']}: {entry['message']}" for entry in answer["entries"]]
            cursor = answer["cursor"]
            if not answer["entries"]:
                return lines

    def put(self, name: str, text: str) -> None:
        """Make an object of the bucket."""
        path = self._folder / "object"
        path.write_text(text)
        self.client.storage.upload_file(path, ObjectUri(self.bucket, name))

    def read(self, job_id: str, name: str) -> str | None:
        """An object below the job-dir as text, None if it is not there."""
        storage = self.client.storage
        found = storage.find(ObjectUri(self.bucket, f"jobs/{job_id}/{name}"))
        try:
            return None if found is None else b"".join(storage.read(found)).decode()
        except NotFound:  # replaced meanwhile
            return self.read(job_id, name)

    def wait_for_object(self, job_id: str, name: str, *, timeout_s: float = 120.0) -> str:
        """The text of an object below the job-dir, once it is there."""
        deadline = time.monotonic() + timeout_s
        while (text := self.read(job_id, name)) is None:
            assert time.monotonic() < deadline, "\n".join(self.log(job_id))
            time.sleep(_POLL_S)
        return text


def user_processes(job_id: str, task_type: str, index: int = 0) -> Iterator[int]:
    """Ids of the processes that run the user code of a replica, known by their TF_CONFIG."""
    job, task = f"CLOUD_ML_JOB_ID={job_id}".encode(), f'"type": "{task_type}", "index": {index}'.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ, command = (entry / "environ").read_bytes().split(b"\0"), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        config = next((each for each in environ if each.startswith(b"TF_CONFIG=")), b"")
        if job in environ and task in config and b"trainer.task" in command:
            yield int(entry.name)


def kill_user_process(job_id: str, task_type: str, index: int = 0, number: int = signal.SIGKILL) -> None:
    """Send a signal to the user code of a replica, which must be running."""
    pids = list(user_processes(job_id, task_type, index))
    assert pids, f"no process of {task_type} {index} of {job_id} runs"
    for pid in pids:
        os.kill(pid, number)
