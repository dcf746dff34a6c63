"""The real gcloud in a wired shell: every command of its ml groups, on its tracks, with and without a region.

Slow because gcloud takes seconds a command.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.conftest import BUCKET, MODEL_URI, PARENT, PROJECT, write

GCLOUD = shutil.which("gcloud")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(GCLOUD is None, reason="no Cloud SDK is installed (gcloud on PATH)"),
]
INSTANCES = "[5.1, 3.5, 1.4, 0.2]\n[6.3, 2.9, 5.6, 1.8]\n"
VERSION_YAML = f"deploymentUri: {MODEL_URI}\nruntimeVersion: scikit-learn-1.9\nframework: SCIKIT_LEARN\n"
POLICY = '{"bindings": [{"role": "roles/ml.viewer", "members": ["user:set@example.com"]}]}'

JOB_COMMANDS = ("submit training", "submit prediction", "list", "describe", "update", "cancel", "stream-logs")
IAM_COMMANDS = ("get-iam-policy", "set-iam-policy", "add-iam-policy-binding", "remove-iam-policy-binding")
MODEL_COMMANDS = ("create", "list", "describe", "update", "delete", *IAM_COMMANDS)
VERSION_COMMANDS = ("create", "list", "describe", "update", "set-default", "delete")
OPERATION_COMMANDS = ("list", "describe", "wait", "cancel")


@dataclass(frozen=True)
class Group:
    """gcloud's words before the command, and the region that the commands name."""

    track: str
    name: str
    region: str

    @property
    def words(self) -> list[str]:
        return [word for word in (self.track, self.name) if word]

    @property
    def tag(self) -> str:
        """A part of names that keeps the groups' resources apart."""
        return f"{self.track or 'ga'}_{self.name.replace('-', '_')}"

    def marks(self) -> list[pytest.MarkDecorator]:
        """What the scenario proves."""
        commands = [
            *(f"jobs {each}" for each in JOB_COMMANDS),
            *(f"models {each}" for each in MODEL_COMMANDS),
            *(f"versions {each}" for each in VERSION_COMMANDS),
            *(f"operations {each}" for each in OPERATION_COMMANDS),
            "predict",
            *(["explain"] if self.track else []),
            *(["locations list", "locations describe"] if self.track == "alpha" else []),
        ]
        prefix = " ".join(["gcloud", *self.words])
        return [pytest.mark.proves(f"{prefix} {each}", state="works") for each in commands]


GROUPS = (
    Group("", "ai-platform", ""),
    Group("", "ml-engine", "us-central1"),
    Group("beta", "ai-platform", "us-central1"),
    Group("alpha", "ai-platform", ""),
)


class Shell:
    """Runs gcloud as a user would; each call is one command."""

    def __init__(self, group: Group, environ: Mapping[str, str], directory: Path) -> None:
        self._group = group
        self._environ = environ
        self._directory = directory

    def run(self, command: str, *arguments: str, regional: bool = False) -> subprocess.CompletedProcess[str]:
        assert GCLOUD is not None
        region = ["--region", self._group.region] if regional and self._group.region else []
        return subprocess.run(
            [GCLOUD, *self._group.words, *command.split(), *region, *arguments],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def good(self, command: str, *arguments: str, regional: bool = False) -> str:
        """What a command printed that succeeds."""
        done = self.run(command, *arguments, regional=regional)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def read(self, command: str, *arguments: str, regional: bool = False) -> object:
        """What a command that succeeds printed as JSON."""
        done = self.run(command, *arguments, "--format", "json", regional=regional)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def bad(self, command: str, *arguments: str, regional: bool = False) -> str:
        """What a command said that fails."""
        done = self.run(command, *arguments, regional=regional)
        assert done.returncode == 1, (command, done.stdout, done.stderr)
        return done.stderr


def jobs_scenario(shell: Shell, tag: str) -> None:
    job = f"job_{tag}"
    submitted = shell.good(
        *("jobs submit training", job, "--region", "us-central1", "--runtime-version", "scikit-learn-1.9"),
        *("--module-name", "trainer.task", "--packages", f"gs://{BUCKET}/trainer-0.1.tar.gz", "--stream-logs"),
        *("--job-dir", f"gs://{BUCKET}/jobs/{job}", "--labels", "team=a"),
    )
    assert f"Job [{job}] submitted successfully." in submitted
    assert "\tmaster-replica-0\t\tline two\n" in submitted
    assert "\tservice\t\tJob completed successfully.\n" in submitted
    assert "state: SUCCEEDED" in submitted
    assert job in [each["jobId"] for each in shell.read("jobs list", "--filter", f"jobId:{job}")]  # type: ignore[attr-defined]
    summary = shell.good("jobs describe", job, "--summarize")
    assert "trainer.task" in summary
    assert f"Updated ml engine job [{job}]." in shell.good("jobs update", job, "--update-labels", "team=b")
    assert shell.read("jobs describe", job)["labels"] == {"team": "b"}  # type: ignore[index]
    assert "\tline one\n" in shell.good("jobs stream-logs", job, "--polling-interval", "1")
    shell.good("jobs cancel", job)
    conflict = shell.bad(
        *("jobs submit training", job, "--region", "us-central1", "--runtime-version", "scikit-learn-1.9"),
        *("--module-name", "trainer.task", "--packages", f"gs://{BUCKET}/trainer-0.1.tar.gz"),
    )
    assert "conflict" in conflict
    batch = f"batch_{tag}"
    submitted = shell.good(
        *("jobs submit prediction", batch, "--model-dir", MODEL_URI, "--runtime-version", "scikit-learn-1.9"),
        *("--data-format", "text", "--region", "us-central1", "--batch-size", "10", "--max-worker-count", "1"),
        *("--input-paths", f"gs://{BUCKET}/instances*", "--output-path", f"gs://{BUCKET}/{batch}"),
    )
    assert f"Job [{batch}] submitted successfully." in submitted
    streamed = shell.good("jobs stream-logs", batch)
    assert "\tservice\t\tJob completed successfully.\n" in streamed, streamed
    predicted = shell.read("jobs describe", batch)
    assert predicted["state"] == "SUCCEEDED"  # type: ignore[index]
    assert predicted["predictionOutput"]["predictionCount"] == "2"  # type: ignore[index]


def models_scenario(shell: Shell, tag: str, directory: Path, group: Group) -> None:
    model = f"model_{tag}"
    named = ("--model", model)
    regions = () if group.region else ("--regions", "us-central1")
    assert f"[{PARENT}/models/{model}]" in shell.good("models create", model, *regions, regional=True)
    conflict = shell.bad("models create", model, *regions, "--description", "other", regional=True)
    assert "conflict" in conflict
    config = write(directory / "config.yaml", VERSION_YAML)
    shell.good("versions create", "v1", *named, "--config", str(config), regional=True)
    shell.good(
        *("versions create", "v2", *named, "--origin", MODEL_URI, "--runtime-version", "scikit-learn-1.9"),
        *("--framework", "scikit-learn", "--python-version", "3.11"),
        regional=True,
    )
    assert len(shell.read("versions list", *named, regional=True)) == 2  # type: ignore[arg-type]
    described = shell.read("versions describe", "v1", *named, regional=True)
    assert (described["state"], described["isDefault"]) == ("READY", True)  # type: ignore[index]
    shell.good("versions update", "v2", *named, "--description", "second", regional=True)
    assert shell.read("versions set-default", "v2", *named, regional=True)["isDefault"]  # type: ignore[index]
    instances = str(write(directory / "instances.json", INSTANCES))
    for version in ((), ("--version", "v1")):
        predicted = shell.good("predict", *named, *version, "--json-instances", instances, regional=True)
        assert "[0, 2]" in predicted
    if group.track:
        shell.good(
            *("versions create", "v3", *named, "--origin", MODEL_URI, "--runtime-version", "scikit-learn-1.9"),
            *("--framework", "scikit-learn", "--python-version", "3.11"),
            *("--explanation-method", "sampled-shapley", "--num-paths", "24"),
            regional=True,
        )
        explained = shell.good("explain", *named, "--version", "v3", "--json-instances", instances, regional=True)
        assert explained.count('"attributions_by_label"') == 2
        assert '"label_index": 2' in explained
        shell.good("versions delete", "v3", *named, "--quiet", regional=True)
    operations = shell.read("operations list", "--filter", f"metadata.modelName:{model}")
    latest = operations[0]["name"].rpartition("/")[2]  # type: ignore[index]
    assert shell.read("operations describe", latest)["done"]  # type: ignore[index]
    shell.good("operations wait", latest)
    shell.good("operations cancel", latest)
    shell.good("versions delete", "v1", *named, "--quiet", regional=True)
    shell.good("versions delete", "v2", *named, "--quiet", regional=True)
    shell.good("models update", model, "--description", "d", "--update-labels", "a=b", regional=True)
    assert shell.read("models describe", model, regional=True)["labels"] == {"a": "b"}  # type: ignore[index]
    assert model in shell.good("models list", regional=True)
    member = ("--member", "user:reader@example.com", "--role", "roles/ml.viewer")
    # Policies are of the global endpoint's commands, too, but take the region where there is one.
    assert "reader@example.com" in shell.good("models add-iam-policy-binding", model, *member, regional=True)
    removed = shell.good("models remove-iam-policy-binding", model, *member, regional=True)
    assert "reader@example.com" not in removed.partition("bindings")[2]
    policy = str(write(directory / "policy.json", POLICY))
    assert "set@example.com" in shell.good("models set-iam-policy", model, policy, "--quiet", regional=True)
    assert "set@example.com" in shell.good("models get-iam-policy", model, regional=True)
    shell.good("models delete", model, "--quiet", regional=True)
    assert "NOT_FOUND" in shell.bad("models describe", model, regional=True)
    if group.track == "alpha":
        assert "us-central1" in shell.good("locations list")
        assert "us-central1" in shell.good("locations describe", "us-central1")


@pytest.mark.parametrize("group", [pytest.param(each, id=each.tag, marks=each.marks()) for each in GROUPS])
def test_commands(group: Group, wired: dict[str, str], trained_model: str, tmp_path: Path) -> None:
    environ = {**wired, "CLOUDSDK_ML_ENGINE_POLLING_INTERVAL": "1"}
    shell = Shell(group, environ, tmp_path)
    scenarios: list[Callable[[], None]] = [
        lambda: jobs_scenario(shell, group.tag),
        lambda: models_scenario(shell, group.tag, tmp_path, group),
    ]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(scenario) for scenario in scenarios]:
            done.result()


def test_the_project_is_the_wired_one(wired: dict[str, str], tmp_path: Path) -> None:
    shell = Shell(Group("", "config", ""), wired, tmp_path)
    assert shell.good("get-value project").splitlines()[0] == PROJECT


@pytest.mark.proves("gcloud ai-platform local train", state="works")
def test_local_train(wired: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "trainer" / "__init__.py", "")
    write(tmp_path / "trainer" / "task.py", "import os, sys; print('ARGS', sys.argv[1:], 'TF_CONFIG' in os.environ)")
    shell = Shell(Group("", "ai-platform", ""), wired, tmp_path)
    printed = shell.good("local train", "--module-name", "trainer.task", "--package-path", "trainer", "--", "--a=1")
    assert "ARGS ['--a=1'] True" in printed
