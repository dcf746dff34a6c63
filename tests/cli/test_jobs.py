"""Submitting, listing and following jobs, against recorded shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginehouse.cli.logs import format_entry
from enginehouse.cli.training import training_body
from enginehouse.core.errors import InvalidArgument
from enginehouse.testing.http import Answer, FakeHttpEngine, Request, error_answer

Mle = Callable[..., Any]
JOBS = "/v1/projects/p/jobs"
LOGS = "/enginehouse/v1/projects/p/jobs/j1/logs"
JOB = {"jobId": "j1", "state": "QUEUED", "createTime": "2026-01-31T12:00:00Z"}

WAITING = "/enginehouse/v1/projects/{}/jobs/j1/waiting"


def entry(message: str, *, severity: str = "INFO", task: str = "service") -> dict[str, Any]:
    time = "2026-01-31T12:00:01.123456789Z"
    return {
        "timestamp": time,
        "insertId": "1",
        "severity": severity,
        "message": message,
        "taskName": task,
        "trialId": "",
    }


@pytest.fixture
def accepting(engine: FakeHttpEngine) -> FakeHttpEngine:
    """An engine that has the bucket `bkt`, takes uploads and any job."""

    def store(request: Request) -> dict[str, Any]:
        _head, _, rest = request.body.partition(b"\r\n\r\n")
        resource, _, rest = rest.partition(b"\r\n--")
        data = rest.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        name = yaml.safe_load(resource)["name"]
        return {"bucket": "bkt", "name": name, "size": str(len(data))}

    engine.on("GET", "/storage/v1/b/bkt", {"name": "bkt"})
    engine.on("GET", f"{JOBS}/j1", error_answer(404, "NOT_FOUND", "no job"))
    engine.on("POST", "/upload/storage/v1/b/bkt/o", store)
    engine.on("POST", JOBS, JOB)
    return engine


def submitted(engine: FakeHttpEngine) -> dict[str, Any]:
    """The job that arrived."""
    bodies = [request.json() for request in engine.of("POST") if request.path == JOBS]
    assert len(bodies) == 1
    return dict(bodies[0])


class TestBody:
    def test_flags_override_config(self) -> None:
        config = {
            "labels": {"a": "1"},
            "trainingInput": {"scaleTier": "CUSTOM", "region": "europe-west1", "args": ["--old"], "workerCount": "2"},
        }
        given = {"scale_tier": "BASIC", "labels": {"b": "2"}, "runtime_version": "2.21"}
        assert training_body("j", config, given, ["--new", "1"]) == {
            "jobId": "j",
            "labels": {"b": "2"},
            "trainingInput": {
                "scaleTier": "BASIC",
                "region": "europe-west1",
                "args": ["--new", "1"],
                "workerCount": "2",
                "runtimeVersion": "2.21",
            },
        }
        assert config["trainingInput"]["scaleTier"] == "CUSTOM", "the config itself is left as it was"  # type: ignore[index]

    def test_what_no_flag_says_is_passed_through(self) -> None:
        hyperparameters = {"goal": "MAXIMIZE", "params": [{"parameterName": "x"}]}
        body = training_body("j", {"trainingInput": {"hyperparameters": hyperparameters}, "bogus": 1}, {}, [])
        assert body["trainingInput"]["hyperparameters"] == hyperparameters
        assert body["bogus"] == 1, "the service judges it"

    def test_region_has_a_default(self) -> None:
        assert training_body("j", {}, {}, [])["trainingInput"] == {"region": "us-central1"}

    def test_a_config_of_the_wrong_shape(self) -> None:
        with pytest.raises(InvalidArgument, match="trainingInput"):
            training_body("j", {"trainingInput": "x"}, {"region": "r"}, [])
        with pytest.raises(InvalidArgument, match="trainingInput"):
            training_body("j", {"trainingInput": ["x"]}, {}, [])


def test_all_the_flags_of_the_cluster(mle: Mle, accepting: FakeHttpEngine) -> None:
    flags = (
        "--scale-tier custom --master-machine-type n1-standard-4 --worker-machine-type n1-standard-4 "
        "--worker-count 2 --parameter-server-machine-type large_model --parameter-server-count 3 "
        "--master-accelerator count=2,type=nvidia-tesla-k80 --labels owner=ada,stage=dev --service-account me@x "
        "--python-version 3.11 --runtime-version 2.21 --region europe-west1 --enable-web-access "
        "--job-dir gs://bkt/jobs/j1 --packages gs://bkt/a.tar.gz,gs://bkt/b.whl --module-name trainer.task"
    )
    assert mle("jobs", "submit", "training", "j1", *flags.split(), "--", "--flag", "--", "x").code == 0
    assert submitted(accepting) == {
        "jobId": "j1",
        "labels": {"owner": "ada", "stage": "dev"},
        "trainingInput": {
            "scaleTier": "CUSTOM",
            "masterType": "n1-standard-4",
            "masterConfig": {"acceleratorConfig": {"count": "2", "type": "NVIDIA_TESLA_K80"}},
            "workerType": "n1-standard-4",
            "workerCount": "2",
            "parameterServerType": "large_model",
            "parameterServerCount": "3",
            "serviceAccount": "me@x",
            "pythonVersion": "3.11",
            "runtimeVersion": "2.21",
            "region": "europe-west1",
            "enableWebAccess": True,
            "jobDir": "gs://bkt/jobs/j1",
            "packageUris": ["gs://bkt/a.tar.gz", "gs://bkt/b.whl"],
            "pythonModule": "trainer.task",
            "args": ["--flag", "--", "x"],
        },
    }


class TestPackages:
    FLAGS = ("jobs", "submit", "training", "j1", "--module-name", "trainer.task")

    def test_below_the_job_dir(self, mle: Mle, accepting: FakeHttpEngine, package: Path) -> None:
        result = mle(*self.FLAGS, "--package-path", package, "--job-dir", "gs://bkt/jobs/j1/")
        assert result.code == 0
        (uri,) = submitted(accepting)["trainingInput"]["packageUris"]
        start, digest, name = uri.rsplit("/", 2)
        assert start == "gs://bkt/jobs/j1/packages"
        assert len(digest) == 64
        assert name == "trainer-0.0.0-py2.py3-none-any.whl"

    def test_below_the_staging_bucket(self, mle: Mle, accepting: FakeHttpEngine, package: Path) -> None:
        for bucket in ("bkt", "gs://bkt"):
            accepting.requests.clear()
            assert mle(*self.FLAGS, "--package-path", package, "--staging-bucket", bucket).code == 0
            (uri,) = submitted(accepting)["trainingInput"]["packageUris"]
            assert uri.startswith("gs://bkt/j1/")

    def test_the_staging_bucket_may_be_a_setting(
        self, mle: Mle, accepting: FakeHttpEngine, package: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ENGINEHOUSE_STAGING_BUCKET", "bkt")
        assert mle(*self.FLAGS, "--package-path", package).code == 0

    def test_several_remote_ones_first(
        self, mle: Mle, accepting: FakeHttpEngine, package: Path, tmp_path: Path
    ) -> None:
        archive = tmp_path / "extra-1.0.tar.gz"
        archive.write_bytes(b"x")
        packages = f"{archive},gs://bkt/far.whl"
        assert (
            mle(*self.FLAGS, "--package-path", package, "--packages", packages, "--staging-bucket", "bkt").code == 0
        )
        uris = submitted(accepting)["trainingInput"]["packageUris"]
        assert [uri.rpartition("/")[2] for uri in uris] == [
            "far.whl",
            "extra-1.0.tar.gz",
            "trainer-0.0.0-py2.py3-none-any.whl",
        ]
        assert len({uri.rsplit("/", 2)[1] for uri in uris[1:]}) == 1, "one folder for all that was uploaded"


class TestRefusals:
    """Nothing is uploaded and nothing submitted."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["1bad", "--module-name", "trainer.task"], "A job id should contain only mixed-case letters"),
            (["j1", "--module-name", "trainer.tsk", "--package-path", "{package}"], "there is no trainer/tsk.py"),
            (["j1", "--module-name", "trainer.task", "--package-path", "{package}"], "--staging-bucket or --job-dir"),
            (["j1", "--package-path", "{package}/none"], "there is no such folder"),
            (["j1", "--packages", "none.whl"], "--packages none.whl: there is no such file"),
            (["j1", "--config", "none.yaml"], "--config none.yaml: No such file"),
            (
                ["j1", "--module-name", "trainer.task", "--package-path", "{package}", "--job-dir", "gs://missing/x"],
                "--job-dir gs://missing/x: there is no bucket missing. Make it with: mle storage mb gs://missing",
            ),
            (["j1", "--job-dir", "/local"], "Field: job_dir Error: '/local' is not a Cloud Storage path"),
            (["j1", "--packages", "gs://missing/a.whl"], "--packages gs://missing/a.whl: there is no bucket missing"),
        ],
    )
    def test_before_any_work(
        self, mle: Mle, accepting: FakeHttpEngine, package: Path, arguments: list[str], message: str
    ) -> None:
        accepting.on("GET", "/storage/v1/b/missing", error_answer(404, "NOT_FOUND", "no bucket"))
        result = mle("jobs", "submit", "training", *(each.format(package=package) for each in arguments))
        assert result.code == 1
        assert message in result.err
        assert accepting.of("POST") == []

    def test_an_id_that_exists(self, mle: Mle, accepting: FakeHttpEngine, package: Path) -> None:
        accepting.on("GET", f"{JOBS}/j1", JOB)
        arguments = ("--module-name", "trainer.task", "--package-path", package, "--staging-bucket", "bkt")
        result = mle("jobs", "submit", "training", "j1", *arguments)
        assert result.code == 1
        assert "ALREADY_EXISTS" in result.err
        assert accepting.of("POST") == []

    @pytest.mark.parametrize(("text", "message"), [("a: [", "is not valid yaml"), ("- a", "should hold fields")])
    def test_a_bad_config(self, mle: Mle, accepting: FakeHttpEngine, tmp_path: Path, text: str, message: str) -> None:
        config = tmp_path / "config.yaml"
        config.write_text(text)
        result = mle("jobs", "submit", "training", "j1", "--config", config)
        assert result.code == 1
        assert message in result.err


def test_what_submit_prints(mle: Mle, accepting: FakeHttpEngine) -> None:
    result = mle("jobs", "submit", "training", "j1", "--packages", "gs://bkt/a.whl", "--module-name", "a.b")
    assert result.out == "jobId: j1\nstate: QUEUED\n"
    assert result.err.startswith("Job [j1] submitted successfully.\nYour job is still active.")
    assert "$ mle jobs stream-logs j1" in result.err


class TestStreaming:
    SUBMIT = (
        "jobs",
        "submit",
        "training",
        "j1",
        "--packages",
        "gs://bkt/a.whl",
        "--module-name",
        "a.b",
        "--stream-logs",
    )

    @pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
    def test_submit_follows_to_the_end(self, mle: Mle, accepting: FakeHttpEngine, state: str, code: int) -> None:
        ended = {**JOB, "state": state, "startTime": "2026-01-31T12:00:01Z", "endTime": "2026-01-31T12:00:09Z"}
        if code:
            ended["errorMessage"] = "The replica master 0 exited with a non-zero status of 1."
        accepting.on("GET", f"{JOBS}/j1", error_answer(404, "NOT_FOUND", "no job"), ended)
        accepting.on("GET", LOGS, {"entries": [entry("Validating…")], "cursor": "1", "ended": True})
        result = mle(*self.SUBMIT)
        assert result.code == code
        assert "INFO\t2026-01-31 12:00:01 +0000\tservice\t\tValidating…\n" in result.err
        shown = yaml.safe_load(result.out)
        assert list(shown) == ["endTime", "jobId", "startTime", "state"], "gcloud's fields in gcloud's order"
        assert shown["state"] == state
        assert ("exited with a non-zero status" in result.err) is bool(code)

    def test_stream_logs_prints_on_stdout_and_picks_a_task(self, mle: Mle, engine: FakeHttpEngine) -> None:
        entries = [entry("a"), entry("two\nlines", task="master-replica-0", severity="ERROR")]
        engine.on("GET", LOGS, {"entries": entries, "cursor": "2", "ended": True})
        prefix = "ERROR\t2026-01-31 12:00:01 +0000\tmaster-replica-0\t\t"
        picked = mle("jobs", "stream-logs", "j1", "--task-name", "master-replica-0")
        assert picked.out == f"{prefix}two\n{prefix}lines\n"
        whole = mle("jobs", "stream-logs", "j1", "--task-name", "master-replica-0", "--allow-multiline-logs")
        assert whole.out == f"{prefix}two\nlines\n"
        assert len(mle("jobs", "stream-logs", "projects/p/jobs/j1").out.splitlines()) == 3

    def test_an_unknown_job(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", LOGS, error_answer(404, "NOT_FOUND", "no job j1"))
        result = mle("jobs", "stream-logs", "j1")
        assert result.code == 1
        assert result.err == "ERROR: (mle.jobs.stream-logs) NOT_FOUND: no job j1\n"

    def test_an_interrupt_ends_the_following_not_the_job(self, mle: Mle, engine: FakeHttpEngine) -> None:
        def interrupt(_: object) -> Answer:
            import _thread

            _thread.interrupt_main()
            return Answer(json_body={"entries": [], "cursor": "2", "ended": False})

        engine.on("GET", LOGS, {"entries": [entry("a")], "cursor": "1", "ended": False}, interrupt)
        result = mle("jobs", "stream-logs", "j1")
        assert result.code == 130
        assert "it goes on" in result.err
        assert "mle jobs stream-logs j1" in result.err
        assert not [request for request in engine.requests if "cancel" in request.path]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (entry("m"), "INFO\t2026-01-31 12:00:01 +0000\tservice\t\tm"),
        (entry(""), "INFO\t2026-01-31 12:00:01 +0000\tservice\t\t"),
        ({**entry("m"), "trialId": "3"}, "INFO\t2026-01-31 12:00:01 +0000\tservice\t3\tm"),
        (
            {"timestamp": "2026-01-31T12:00:01Z", "message": "m"},
            "DEFAULT\t2026-01-31 12:00:01 +0000\tunknown_task\t\tm",
        ),
    ],
)
def test_log_lines(told: dict[str, Any], line: str) -> None:
    assert format_entry(told, multiline=False) == [line]


class TestOtherCommands:
    def test_list(self, mle: Mle, engine: FakeHttpEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        engine.on("GET", JOBS, {"jobs": [JOB, {**JOB, "jobId": "a_longer_name", "state": "FAILED"}]})
        assert mle("jobs", "list").out == (
            "JOB_ID         STATUS  CREATED\n"
            "j1             QUEUED  2026-01-31T12:00:00\n"
            "a_longer_name  FAILED  2026-01-31T12:00:00\n"
        )
        assert len(mle("jobs", "list", "--limit", "1").out.splitlines()) == 2
        assert mle("jobs", "list", "--format", "value(jobId,state)").out == "j1\tQUEUED\na_longer_name\tFAILED\n"
        mle("jobs", "list", "--filter", "jobId:iris*")
        assert engine.requests[-1].query["filter"] == "jobId:iris*"

    def test_describe_in_every_format(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", f"{JOBS}/j1", {"state": "RUNNING", "jobId": "j1", "labels": {"a": "b"}})
        assert mle("jobs", "describe", "j1").out == "jobId: j1\nlabels:\n  a: b\nstate: RUNNING\n"
        assert mle("jobs", "describe", "j1", "--format", "value(labels.a)").out == "b\n"
        assert mle("jobs", "describe", "j1", "--format", "json").out.startswith('{\n  "jobId": "j1"')
        assert mle("jobs", "describe", "j1", "--format", "table").out == (
            "FIELD     VALUE\njobId     j1\nlabels.a  b\nstate     RUNNING\n"
        )

    def test_describe_says_why_a_job_waits(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", f"{JOBS}/j1", JOB)
        engine.on("GET", WAITING.format("p"), {"reason": "It asks for 2 GPUs, and 1 is free."})
        assert "waitingReason: It asks for 2 GPUs, and 1 is free.\n" in mle("jobs", "describe", "j1").out

    def test_describe_of_a_job_that_just_left_the_queue(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", f"{JOBS}/j1", JOB)
        engine.on("GET", WAITING.format("p"), {"reason": ""})
        assert "waitingReason" not in mle("jobs", "describe", "j1").out

    def test_the_project_in_a_name_wins(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", "/v1/projects/other/jobs/j1", JOB)
        engine.on("GET", WAITING.format("other"), {"reason": ""})
        assert mle("jobs", "describe", "projects/other/jobs/j1").code == 0
        assert mle("jobs", "describe", "https://ml.googleapis.com/v1/projects/other/jobs/j1").code == 0

    def test_cancel_is_silent(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", f"{JOBS}/j1:cancel", {})
        assert mle("jobs", "cancel", "j1") == type(mle("jobs", "cancel", "j1"))(0, "", "")

    def test_update_labels(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", f"{JOBS}/j1", {**JOB, "labels": {"a": "1", "b": "2"}})
        engine.on("PATCH", f"{JOBS}/j1", JOB)
        result = mle("jobs", "update", "j1", "--update-labels", "c=3", "--remove-labels", "a")
        assert result.err == "Updated ml engine job [j1].\n"
        assert engine.requests[-1].json() == {"labels": {"b": "2", "c": "3"}}
        assert engine.requests[-1].query == {"updateMask": "labels"}
        mle("jobs", "update", "j1", "--clear-labels")
        assert engine.requests[-1].json() == {"labels": {}}
        assert mle("jobs", "update", "j1").code == 2
