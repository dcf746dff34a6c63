"""gcloud and gsutil for those who have no Cloud SDK, and the retired group's name for those who have one."""

import pytest

from enginehouse.cli.shim import as_it_was, gcloud, gsutil, renamed
from enginehouse.core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("ml-engine jobs list", "ai-platform jobs list"),
        ("beta ml-engine versions list", "beta ai-platform versions list"),
        ("--project=p ml-engine jobs list", "--project=p ai-platform jobs list"),
        ("ai-platform models create ml-engine", "ai-platform models create ml-engine"),
        ("config list", "config list"),
    ],
)
def test_the_retired_group_gets_its_new_name(arguments: str, expected: str) -> None:
    assert renamed(arguments.split()) == expected.split()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "jobs submit training j --scale-tier CUSTOM --config c.yaml -- --x 1",
            "jobs submit training j --config c.yaml -- --x 1",
        ),
        ("jobs submit training j --config=c.yaml --scale-tier=custom", "jobs submit training j --config=c.yaml"),
        ("jobs submit training j --scale-tier BASIC --config c.yaml", None),
        ("jobs submit training j --scale-tier CUSTOM", None),
        ("jobs submit training j --scale-tier CUSTOM --config c.yaml --master-machine-type m", None),
        ("jobs submit training j --config c.yaml -- --scale-tier CUSTOM", None),
    ],
)
def test_machine_types_may_be_in_a_file_alone(arguments: str, expected: str | None) -> None:
    assert as_it_was(arguments.split()) == (expected or arguments).split()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("ai-platform jobs list", "jobs list"),
        ("ml-engine jobs submit training j -- --project x", "jobs submit training j -- --project x"),
        ("alpha ai-platform versions list --model m", "versions list --model m"),
        ("--project p -q ml-engine models list", "--project p --quiet models list"),
        ("storage ls gs://b", "storage ls gs://b"),
    ],
)
def test_gclouds_commands_are_mles(arguments: str, expected: str) -> None:
    assert gcloud(arguments.split()) == expected.split()


@pytest.mark.parametrize("arguments", ["auth login", "auth application-default login", "config set project x"])
def test_what_needs_no_doing_says_so(arguments: str) -> None:
    assert "nothing to do" in str(gcloud(arguments.split()))


def test_the_project_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_CORE_PROJECT", "my-project")
    assert gcloud(["config", "get-value", "project"]) == "my-project"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("mb -l us-central1 -p proj gs://b", "storage mb -l us-central1 gs://b"),
        ("-m cp -r d gs://b", "storage cp -r d gs://b"),
        ("-q cp a gs://b", "--quiet storage cp a gs://b"),
        ("-o GSUtil:x=1 ls -l gs://b/**", "storage ls -l gs://b/**"),
        ("rsync -rd a gs://b", "storage rsync -r -d a gs://b"),
        ("rm -rf gs://b/x", "storage rm -r gs://b/x"),
        ("du -sh gs://b", "storage du -s --readable-sizes gs://b"),
        ("cat gs://b/x", "storage cat gs://b/x"),
        ("stat gs://b/x", "storage stat gs://b/x"),
        ("mv gs://b/x gs://b/y", "storage mv gs://b/x gs://b/y"),
    ],
)
def test_gsutils_commands_are_mles(arguments: str, expected: str) -> None:
    assert gsutil(arguments.split()) == expected.split()


def test_what_only_the_sdk_can_do_says_so() -> None:
    with pytest.raises(InvalidArgument, match="Cloud SDK"):
        gcloud(["compute", "instances", "list"])
    with pytest.raises(InvalidArgument, match="Cloud SDK"):
        gsutil(["notification", "list"])
