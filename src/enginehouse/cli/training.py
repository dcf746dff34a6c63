"""`mle jobs submit training`: check, package, upload, submit, follow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.base import Command
from enginehouse.cli.body import BodyFlag, accelerator, build, comma_list, count, enum, flags, load_config, mapping
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import AlreadyExists, EngineError, InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri, check_resource_id

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client

DEFAULT_REGION = "us-central1"


def _role_flags(role: str, field: str, *, counted: bool) -> tuple[BodyFlag, ...]:
    title = role.replace("-", " ")
    rows = (
        BodyFlag(f"--{role}-machine-type", f"trainingInput.{field}Type", f"Machine type of the {title}."),
        BodyFlag(
            f"--{role}-accelerator",
            f"trainingInput.{field}Config.acceleratorConfig",
            f"Accelerators of the {title}.",
            accelerator,
            "count=N,type=TYPE",
        ),
        BodyFlag(f"--{role}-image-uri", f"trainingInput.{field}Config.imageUri", f"Container image of the {title}."),
    )
    if not counted:
        return rows
    return (
        *rows,
        BodyFlag(f"--{role}-count", f"trainingInput.{field}Count", f"Number of {title}s.", count, "N"),
    )


TRAINING_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--module-name", "trainingInput.pythonModule", "Module to run: trainer.task.", metavar="MODULE"),
    BodyFlag(
        "--job-dir", "trainingInput.jobDir", "Where the trainer writes; given to it as --job-dir.", metavar="GS_URI"
    ),
    BodyFlag(
        "--runtime-version", "trainingInput.runtimeVersion", "Runtime to train in; `mle runtimes list` has them."
    ),
    BodyFlag(
        "--python-version", "trainingInput.pythonVersion", "Python of the runtime (default: the runtime's first)."
    ),
    BodyFlag("--scale-tier", "trainingInput.scaleTier", "Shape of the cluster: BASIC (default), CUSTOM, …", enum),
    BodyFlag("--region", "trainingInput.region", f"Region to name in the job (default: {DEFAULT_REGION})."),
    BodyFlag("--labels", "labels", "Labels of the job.", mapping, "KEY=VALUE,..."),
    *_role_flags("master", "master", counted=False),
    *_role_flags("worker", "worker", counted=True),
    *_role_flags("parameter-server", "parameterServer", counted=True),
    BodyFlag("--service-account", "trainingInput.serviceAccount", "Account that the trainer acts as."),
    BodyFlag("--kms-key", "trainingInput.encryptionConfig.kmsKeyName", "Key that protects the job's data."),
    BodyFlag("--network", "trainingInput.network", "Network to peer with."),
    BodyFlag("--enable-web-access", "trainingInput.enableWebAccess", "Allow a shell into the replicas.", switch=True),
    BodyFlag(
        "--use-chief-in-tf-config",
        "trainingInput.useChiefInTfConfig",
        "Call the first replica `chief` in TF_CONFIG.",
        switch=True,
    ),
)


@click.command(
    "training",
    cls=Command,
    user_args=True,
    examples="""
        mle jobs submit training iris_1 --module-name trainer.task --package-path trainer/ \
            --job-dir gs://iris/jobs/iris_1 --runtime-version 2.21 --stream-logs -- --train-steps 1000
        mle jobs submit training iris_2 --config config.yaml --packages dist/trainer-0.1.tar.gz --staging-bucket gs://iris
    """,
)
@click.argument("job")
@click.option("--package-path", metavar="DIR", help="Folder of the Python package to run; it is packed and uploaded.")
@click.option("--packages", metavar="PATH,...", help="More packages: local files (uploaded) or gs:// URIs.")
@click.option("--staging-bucket", metavar="BUCKET", help="Where packages go (default: below --job-dir).")
@click.option("--config", metavar="FILE", help="yaml of a Job; flags override it.")
@click.option("--stream-logs", is_flag=True, help="Follow the job's log until it ends; exit 1 unless it succeeds.")
@click.option("--async", "asynchronous", is_flag=True, help="Return once the job is submitted (the default).")
@flags(TRAINING_FLAGS)
@pass_invocation
def training(
    invocation: Invocation,
    job: str,
    package_path: str | None,
    packages: str | None,
    staging_bucket: str | None,
    config: str | None,
    stream_logs: bool,
    asynchronous: bool,
    user_args: tuple[str, ...],
    **given: Any,
) -> None:
    """Submit a training job.

    JOB is its id: letters, digits and underscores, unique in the project. What follows a lone `--` is given to the
    trainer.
    """
    if stream_logs and asynchronous:
        raise click.UsageError("--stream-logs and --async exclude each other.", invocation.context)
    check_resource_id(job, kind="job", field="job_id")
    body = training_body(job, load_config(config), given, user_args)
    client = invocation.client()
    staged = Staging(client, job, body, staging_bucket or invocation.settings().staging_bucket)
    uris = staged.upload(package_path, comma_list(packages or ""))
    if uris:
        body["trainingInput"]["packageUris"] = uris
    submitted = client.jobs.create(body)
    invocation.say(f"Job [{job}] submitted successfully.")
    if stream_logs:
        follow_to_end(invocation, client, job)
    else:
        print_submitted(invocation, submitted)


def print_submitted(invocation: Invocation, submitted: dict[str, Any]) -> None:
    """What to do next, and the job's id and state, as gcloud prints them after submitting."""
    from enginehouse.cli.output import print_resource

    job = submitted["jobId"]
    invocation.say(
        "Your job is still active. You may view the status of your job with the command\n\n"
        f"  $ mle jobs describe {job}\n\n"
        "or continue streaming the logs with the command\n\n"
        f"  $ mle jobs stream-logs {job}"
    )
    print_resource(invocation, {key: submitted[key] for key in ("jobId", "state") if key in submitted})


def training_body(
    job: str, config: Mapping[str, Any], given: Mapping[str, Any], user_args: Sequence[str]
) -> dict[str, Any]:
    """The Job to submit, without its packages: what `config` says, overridden by the flags and arguments."""
    body = build(config, TRAINING_FLAGS, given)
    body["jobId"] = job
    training_input = body.setdefault("trainingInput", {})
    if not isinstance(training_input, dict):
        raise InvalidArgument("trainingInput in the --config file should hold fields.")
    training_input.setdefault("region", DEFAULT_REGION)
    if user_args:
        training_input["args"] = list(user_args)
    return body


class Staging:
    """Judges a job's packages and bucket before any work, then builds and uploads what is local.

    Args:
        body: the Job; its jobDir is where packages go when there is no staging bucket.
        bucket: `BUCKET` or `gs://BUCKET[/PREFIX]`, or empty.
    """

    def __init__(self, client: Client, job: str, body: Mapping[str, Any], bucket: str) -> None:
        self._client = client
        self._job = job
        self._input: Mapping[str, Any] = body["trainingInput"]
        self._bucket = bucket

    def upload(self, package_path: str | None, packages: Sequence[str]) -> list[str]:
        """Check everything, then upload the local packages.

        Returns:
            packageUris: the gs:// ones first, then the uploaded ones; empty when no package was given.
        """
        from enginehouse.sdk import packaging

        remote = [each for each in packages if each.startswith("gs://")]
        local = [Path(each).expanduser() for each in packages if not each.startswith("gs://")]
        for path in local:
            packaging.check_archive(path)
        if package_path is not None:
            packaging.check_package(Path(package_path), self._input.get("pythonModule"))
        self._check_buckets(remote)
        if package_path is None and not local:
            self._check_new()
            return remote
        place = self._place()
        self._check_new()
        with tempfile.TemporaryDirectory(prefix="mle-") as scratch:
            if package_path is not None:
                local.append(packaging.build_package(Path(package_path), Path(scratch)))
            packaging.check_names(local)
            folder = place.join(packaging.digest(local))
            for path in local:
                self._client.storage.upload_file(path, folder.join(path.name))
        return remote + [str(folder.join(path.name)) for path in local]

    def _place(self) -> ObjectUri:
        """Where local packages go: `<staging>/<job>/<digest>/` or `<job dir>/packages/<digest>/`, as gcloud does."""
        if self._bucket:
            return ObjectUri.parse(_with_scheme(self._bucket), field="staging_bucket").join(self._job)
        job_dir = self._input.get("jobDir")
        if not job_dir:
            raise InvalidArgument(
                "A local package has to be uploaded, but nothing says where to: give --staging-bucket or --job-dir."
            )
        return ObjectUri.parse(str(job_dir), field="training_input.job_dir").join("packages")

    def _check_buckets(self, packages: Sequence[str]) -> None:
        """Refuse a bucket that does not exist, naming where it was named and how to make it."""
        named = [("--packages", uri) for uri in packages]
        if self._bucket:
            named.append(("--staging-bucket", _with_scheme(self._bucket)))
        if job_dir := self._input.get("jobDir"):
            named.append(("--job-dir", str(job_dir)))
        for flag, text in named:
            field = flag.lstrip("-").replace("-", "_")
            bucket = ObjectUri.parse(text, field=field).bucket
            if not self._client.storage.bucket_exists(bucket):
                raise NotFound(
                    f"{flag} {text}: there is no bucket {bucket}. Make it with: mle storage mb gs://{bucket}"
                )

    def _check_new(self) -> None:
        if self._client.jobs.exists(self._job):
            raise AlreadyExists(f"Job [{self._job}] exists already; a job id is used once.", field="job_id")


def _with_scheme(bucket: str) -> str:
    return bucket if bucket.startswith("gs://") else f"gs://{bucket}"


def follow_to_end(invocation: Invocation, client: Client, job: str) -> None:
    """Print a job's log on stderr, then how it ended on stdout; exit 1 unless it succeeded."""
    from enginehouse.cli.logs import stream
    from enginehouse.cli.output import print_resource

    try:
        stream(invocation, client, job, to_stderr=True)
    except EngineError as error:
        invocation.say(f"Polling logs failed: {error.message}")
    ended = client.jobs.get(job)
    print_resource(invocation, {k: ended[k] for k in ("jobId", "state", "startTime", "endTime") if k in ended})
    if ended.get("state") != "SUCCEEDED":
        if message := ended.get("errorMessage"):
            click.echo(f"ERROR: ({invocation.command}) Job [{job}] is {ended.get('state')}: {message}", err=True)
        raise click.exceptions.Exit(1)
