"""`mle versions`: create, list, describe, set-default, update, delete."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.body import BodyFlag, accelerator, build, comma_list, enum, flags, load_config, mapping
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.jobs import changed_labels
from enginehouse.cli.names import resource_id
from enginehouse.cli.waiting import confirm, wait_for

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client

FRAMEWORKS = ("TENSORFLOW", "SCIKIT_LEARN", "XGBOOST")


EXPLANATION_METHODS = {
    "integrated-gradients": ("integratedGradientsAttribution", "num_integral_steps"),
    "sampled-shapley": ("sampledShapleyAttribution", "num_paths"),
    "xrai": ("xraiAttribution", "num_integral_steps"),
}
"""The field of each method, and the flag that says how thorough it is."""


def _framework(text: str) -> str:
    if enum(text) not in FRAMEWORKS:
        raise ValueError(f"{text!r} is not one of tensorflow, scikit-learn, xgboost")
    return enum(text)


def _method(text: str) -> str:
    if text not in EXPLANATION_METHODS:
        raise ValueError(f"{text!r} is not one of {', '.join(EXPLANATION_METHODS)}")
    return text


def _ports(text: str) -> list[dict[str, int]]:
    return [{"containerPort": int(part)} for part in comma_list(text)]


def _variables(text: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in mapping(text).items()]


VERSION_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--runtime-version", "runtimeVersion", "Runtime to serve in; `mle runtimes list` has them."),
    BodyFlag("--python-version", "pythonVersion", "Python of the runtime (default: the runtime's first)."),
    BodyFlag("--framework", "framework", "tensorflow, scikit-learn or xgboost (default: by the files).", _framework),
    BodyFlag("--machine-type", "machineType", "Machine type to name in the version."),
    BodyFlag("--description", "description", "What the version is."),
    BodyFlag("--labels", "labels", "Labels of the version.", mapping, "KEY=VALUE,..."),
    BodyFlag("--accelerator", "acceleratorConfig", "Accelerators of a node.", accelerator, "count=N,type=TYPE"),
    BodyFlag("--package-uris", "packageUris", "Packages with the model's own code.", comma_list, "GS_URI,..."),
    BodyFlag("--prediction-class", "predictionClass", "Class in a package that answers predictions."),
    BodyFlag("--service-account", "serviceAccount", "Account that the model's code acts as."),
)

CONTAINER_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--image", "container.image", "Container image that answers, in place of a runtime."),
    BodyFlag("--command", "container.command", "In place of the image's ENTRYPOINT.", comma_list, "COMMAND,..."),
    BodyFlag("--args", "container.args", "In place of the image's CMD.", comma_list, "ARG,..."),
    BodyFlag("--ports", "container.ports", "Port that the container listens on (default: 8080).", _ports, "PORT"),
    BodyFlag("--env-vars", "container.env", "Variables of the container.", _variables, "NAME=VALUE,..."),
    BodyFlag("--predict-route", "routes.predict", "Path in the container that predictions are sent to."),
    BodyFlag("--health-route", "routes.health", "Path in the container that answers 200 when it is ready."),
)

EXPLANATION_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--explanation-method", "", "integrated-gradients, sampled-shapley or xrai.", _method, "METHOD"),
    BodyFlag("--num-integral-steps", "", "Steps of integrated gradients and XRAI (default: 50).", int, "N"),
    BodyFlag("--num-paths", "", "Paths of sampled Shapley (default: 10).", int, "N"),
)

model_option = click.option("--model", required=True, metavar="MODEL", help="The model of the version.")


@click.group(
    cls=Group, examples="mle versions create v1 --model iris --origin gs://iris/model --runtime-version 2.21"
)
def versions() -> None:
    """Manage the versions of a model."""


@versions.command(
    examples="""
        mle versions create v1 --model iris --origin gs://iris/jobs/iris_1/export/iris/170 --runtime-version 2.21
        mle versions create v2 --model iris --origin ./model/ --staging-bucket iris --runtime-version scikit-learn-1.9
        mle versions create v3 --model iris --config config.yaml --async
        mle versions create v4 --model iris --origin gs://iris/m --runtime-version 2.21 --explanation-method xrai
        mle versions create v5 --model iris --image localhost/server:1 --predict-route /predict --health-route /health
    """
)
@click.argument("version")
@model_option
@click.option("--origin", metavar="PATH", help="The model's files: a gs:// folder, or a local one (uploaded).")
@click.option("--staging-bucket", metavar="BUCKET", help="Where a local --origin is uploaded to.")
@click.option("--config", metavar="FILE", help="yaml of a Version; flags override it.")
@click.option("--async", "asynchronous", is_flag=True, help="Return at once, without waiting for the version.")
@flags((*VERSION_FLAGS, *CONTAINER_FLAGS, *EXPLANATION_FLAGS))
@pass_invocation
def create(
    invocation: Invocation,
    version: str,
    model: str,
    origin: str | None,
    staging_bucket: str | None,
    config: str | None,
    asynchronous: bool,
    **given: Any,
) -> None:
    """Deploy a model's files as a version: they are copied, loaded and tried before it is ready."""
    from enginehouse.core.names import check_resource_id

    check_resource_id(version, kind="version", field="version.name")
    model_id = resource_id(invocation, model)
    body = build(load_config(config), (*VERSION_FLAGS, *CONTAINER_FLAGS), given)
    body["name"] = version
    add_explanation(invocation, body, given)
    client = invocation.client()
    if origin is not None:
        body["deploymentUri"] = origin
        if not origin.startswith("gs://"):
            bucket = staging_bucket or invocation.settings().staging_bucket
            body["deploymentUri"] = upload_folder(client, Path(origin).expanduser(), bucket)
    operation = client.versions(model_id).create(body)
    if not asynchronous:
        wait_for(invocation, client, operation, "Creating version (this might take a few minutes)")


def add_explanation(invocation: Invocation, body: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put what the explanation flags say into the body of a new version."""
    method = given.get("explanation_method")
    numbers = {name: given[name] for name in ("num_integral_steps", "num_paths") if given.get(name) is not None}
    if method is None and not numbers:
        return
    if method is None:
        raise click.UsageError(
            f"--{next(iter(numbers)).replace('_', '-')} needs --explanation-method.", invocation.context
        )
    field, flag = EXPLANATION_METHODS[method]
    wrong = next((name for name in numbers if name != flag), None)
    if wrong is not None:
        raise click.UsageError(f"--{wrong.replace('_', '-')} does not go with {method}.", invocation.context)
    path = "numPaths" if flag == "num_paths" else "numIntegralSteps"
    body["explanationConfig"] = {field: {path: numbers[flag]} if numbers else {}}


def upload_folder(client: Client, folder: Path, bucket: str) -> str:
    """Upload a local model folder to `gs://BUCKET/<digest of its files>/`, as gcloud does.

    Raises:
        InvalidArgument: there is no such folder, nothing in it, or no bucket was named.
    """
    from enginehouse.core.errors import InvalidArgument
    from enginehouse.core.names import ObjectUri
    from enginehouse.sdk.transfer import Copy, local_files, run_copies

    if not folder.is_dir():
        raise InvalidArgument(f"--origin {folder}: there is no such folder.")
    if not bucket:
        raise InvalidArgument(f"--origin {folder} is local and has to be uploaded: give --staging-bucket.")
    files = {path.relative_to(folder).as_posix(): path for path in local_files(folder)}
    if not files:
        raise InvalidArgument(f"--origin {folder}: the folder is empty.")
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    text = bucket if bucket.startswith("gs://") else f"gs://{bucket}"
    place = ObjectUri.parse(text, field="staging_bucket").join(total.hexdigest())
    copies = [Copy(path, ObjectUri(place.bucket, f"{place.name}/{name}")) for name, path in files.items()]
    for failure in run_copies(client.storage, copies):
        raise failure.error
    return f"{place}/"


@versions.command("list", examples="mle versions list --model iris")
@model_option
@pass_invocation
def list_versions(invocation: Invocation, model: str) -> None:
    """List a model's versions."""
    from enginehouse.cli.output import field, last_part, print_list

    model_id = resource_id(invocation, model)
    columns = [("NAME", last_part("name")), ("DEPLOYMENT_URI", field("deploymentUri")), ("STATE", field("state"))]
    print_list(invocation, invocation.client().versions(model_id).list(), columns)


@versions.command(examples="mle versions describe v1 --model iris")
@click.argument("version")
@model_option
@pass_invocation
def describe(invocation: Invocation, version: str, model: str) -> None:
    """Show a version, the inputs and outputs of its model, and how it is served now."""
    from enginehouse.cli.output import print_resource

    versions = invocation.client().versions(resource_id(invocation, model))
    shown = versions.get(version)
    if shown.get("state") == "READY":
        shown["serving"] = versions.serving(version)
    print_resource(invocation, shown)


@versions.command(examples="mle versions restart v1 --model iris")
@click.argument("version")
@model_option
@pass_invocation
def restart(invocation: Invocation, version: str, model: str) -> None:
    """Replace a version's model servers by new ones, one after the other; no request is lost."""
    model_id = resource_id(invocation, model)
    invocation.client().versions(model_id).restart(version)
    invocation.say(f"Restarted version [{version}] of model [{model_id}].")


@versions.command("set-default", examples="mle versions set-default v2 --model iris")
@click.argument("version")
@model_option
@pass_invocation
def set_default(invocation: Invocation, version: str, model: str) -> None:
    """Make a version the one that answers when none is named."""
    from enginehouse.cli.output import print_resource

    model_id = resource_id(invocation, model)
    print_resource(invocation, invocation.client().versions(model_id).set_default(version))


@versions.command(
    examples="""
        mle versions update v1 --model iris --description 'Trained in May'
        mle versions update v1 --model iris --bigquery-table-name my-project.monitoring.iris --sampling-percentage 0.1
    """
)
@click.argument("version")
@model_option
@click.option("--description", metavar="TEXT", help="What the version is.")
@click.option("--config", metavar="FILE", help="yaml with the fields to change.")
@click.option(
    "--bigquery-table-name",
    metavar="TABLE",
    help="PROJECT.DATASET.TABLE that sampled requests go to (`mle requests`).",
)
@click.option("--sampling-percentage", type=float, metavar="SHARE", help="Share of the requests to keep, 0 to 1.")
@click.option("--update-labels", metavar="KEY=VALUE,...", help="Add these labels, or change their values.")
@click.option("--remove-labels", metavar="KEY,...", help="Remove these labels.")
@click.option("--clear-labels", is_flag=True, help="Remove all labels first.")
@pass_invocation
def update(
    invocation: Invocation,
    version: str,
    model: str,
    description: str | None,
    config: str | None,
    bigquery_table_name: str | None,
    sampling_percentage: float | None,
    update_labels: str | None,
    remove_labels: str | None,
    clear_labels: bool,
) -> None:
    """Change a version's description, labels, scaling or request logging."""
    model_id = resource_id(invocation, model)
    client = invocation.client()
    change = load_config(config)
    if description is not None:
        change["description"] = description
    logging = {"bigqueryTableName": bigquery_table_name, "samplingPercentage": sampling_percentage}
    if given := {name: value for name, value in logging.items() if value is not None}:
        current = client.versions(model_id).get(version)
        change["requestLoggingConfig"] = {**current.get("requestLoggingConfig", {}), **given}
    if not change or update_labels or remove_labels or clear_labels:
        current = client.versions(model_id).get(version)
        change["labels"] = changed_labels(invocation, current, update_labels, remove_labels, clear_labels)
    operation = client.versions(model_id).patch(version, change, list(change))
    wait_for(invocation, client, operation, f"Updating version [{version}]")


@versions.command(examples="mle versions logs v1 --model iris\nmle versions logs v1 --model iris --kind access")
@click.argument("version")
@model_option
@click.option("--kind", type=click.Choice(["access", "console"]), help="Requests, or what the model's code printed.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="The newest so many lines (default: 100).")
@pass_invocation
def logs(invocation: Invocation, version: str, model: str, kind: str | None, limit: int) -> None:
    """Show the logs that the model's --enable-logging and --enable-console-logging write.

    Lines are there a second after they were written. Cloud Logging's API gives the same:

        gcloud logging read 'resource.type="cloudml_model_version" AND resource.labels.model_id="iris"'
    """
    model_id = resource_id(invocation, model)
    client = invocation.client()
    client.versions(model_id).get(version)
    wanted = [
        'resource.type="cloudml_model_version"',
        f'resource.labels.model_id="{model_id}"',
        f'resource.labels.version_id="{version}"',
    ]
    if kind is not None:
        wanted.append(f'logName="projects/{client.project}/logs/ml.googleapis.com%2F{kind}"')
    for entry in client.log_entries(" AND ".join(wanted), newest=limit):
        time = entry["timestamp"][:23].replace("T", " ")
        click.echo(f"{entry['severity']}\t{time} +0000\t{entry['textPayload']}")


@versions.command(examples="mle versions delete v1 --model iris --quiet")
@click.argument("version")
@model_option
@pass_invocation
def delete(invocation: Invocation, version: str, model: str) -> None:
    """Delete a version; the default one only when it is the last."""
    model_id = resource_id(invocation, model)
    confirm(invocation, f"This will delete version [{version}] of model [{model_id}].")
    client = invocation.client()
    wait_for(invocation, client, client.versions(model_id).delete(version), f"Deleting version [{version}]")
