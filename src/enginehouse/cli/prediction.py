"""`mle jobs submit prediction`: a batch prediction job."""

from __future__ import annotations

from typing import Any

import click

from enginehouse.cli.base import Command
from enginehouse.cli.body import BodyFlag, build, comma_list, count, enum, flags, mapping
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.names import resource_id
from enginehouse.cli.training import DEFAULT_REGION, follow_to_end, print_submitted
from enginehouse.core.names import ModelName, check_resource_id

_FORMATS = ("text", "json", "csv", "tf-record", "tf-record-gzip")


def _data_format(text: str) -> str:
    if text.lower() not in _FORMATS:
        raise ValueError(f"{text!r} is not one of {', '.join(_FORMATS)}")
    return enum(text)


PREDICTION_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--model-dir", "predictionInput.uri", "Where a model lies that is no version.", metavar="GS_URI"),
    BodyFlag(
        "--input-paths",
        "predictionInput.inputPaths",
        "The instances; *, ** and ? are wildcards, a folder means all below it.",
        comma_list,
        "GS_URI,...",
    ),
    BodyFlag(
        "--data-format",
        "predictionInput.dataFormat",
        "Format of the inputs: text (JSON or text lines), csv, tf-record or tf-record-gzip.",
        _data_format,
        "FORMAT",
    ),
    BodyFlag("--output-path", "predictionInput.outputPath", "Where predictions and errors go.", metavar="GS_URI"),
    BodyFlag("--region", "predictionInput.region", f"Region to name in the job (default: {DEFAULT_REGION})."),
    BodyFlag("--max-worker-count", "predictionInput.maxWorkerCount", "At most this many workers.", count, "N"),
    BodyFlag(
        "--batch-size",
        "predictionInput.batchSize",
        "Instances per call (default: 64 at first, more while that is quicker).",
        count,
        "N",
    ),
    BodyFlag("--signature-name", "predictionInput.signatureName", "Signature (default: serving_default)."),
    BodyFlag(
        "--runtime-version",
        "predictionInput.runtimeVersion",
        "Runtime to predict in (default: the version's, or the latest).",
    ),
    BodyFlag("--labels", "labels", "Labels of the job.", mapping, "KEY=VALUE,..."),
)


@click.command(
    "prediction",
    cls=Command,
    examples="""
        mle jobs submit prediction iris_prediction --model iris --version v1 --data-format text \
            --input-paths gs://iris/hold_out_test.csv --output-path gs://iris/predictions
        mle jobs submit prediction iris_2 --model-dir gs://iris/export --data-format csv \
            --input-paths 'gs://iris/parts/*.csv' --output-path gs://iris/predictions --stream-logs
    """,
)
@click.argument("job")
@click.option("--model", metavar="MODEL", help="The model to predict with.")
@click.option("--version", metavar="VERSION", help="Which version of it (default: the model's default version).")
@click.option("--stream-logs", is_flag=True, help="Follow the job's log until it ends; exit 1 unless it succeeds.")
@flags(PREDICTION_FLAGS)
@pass_invocation
def prediction(
    invocation: Invocation, job: str, model: str | None, version: str | None, stream_logs: bool, **given: Any
) -> None:
    """Submit a batch prediction job.

    JOB is its id: letters, digits and underscores, unique in the project.
    """
    check_resource_id(job, kind="job", field="job_id")
    if (model is None) == (given["model_dir"] is None):
        raise click.UsageError("give exactly one of --model and --model-dir.", invocation.context)
    if version is not None and model is None:
        raise click.UsageError("--version may only be given if --model is.", invocation.context)
    missing = [flag for flag in ("--data-format", "--input-paths", "--output-path") if not given[_name(flag)]]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} must be given.", invocation.context)
    body = build({"jobId": job}, PREDICTION_FLAGS, given)
    spec = body["predictionInput"]
    spec.setdefault("region", DEFAULT_REGION)
    client = invocation.client()
    if model is not None:
        spec["modelName"] = str(ModelName(client.project, resource_id(invocation, model)))
    if version is not None:
        spec["versionName"] = f"{spec.pop('modelName')}/versions/{version}"
    submitted = client.jobs.create(body)
    invocation.say(f"Job [{job}] submitted successfully.")
    if stream_logs:
        follow_to_end(invocation, client, job)
    else:
        print_submitted(invocation, submitted)


def _name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
