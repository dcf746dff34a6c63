"""`mle predict` and `mle explain`: instances from a file, answers as gcloud prints them."""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path
from typing import Any

import click

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.names import resource_id
from enginehouse.core.errors import InvalidArgument


@click.command(
    cls=Command,
    examples="""
        mle predict --model iris --version v1 --json-instances flowers.json
        echo '[5.1, 3.5, 1.4, 0.2]' | mle predict --model iris --json-instances -
        mle predict --model iris --json-instances flowers.json --concurrency 16 --duration 10
    """,
)
@click.option("--model", required=True, metavar="MODEL", help="The model to ask.")
@click.option("--version", metavar="VERSION", help="Which version (default: the model's default version).")
@click.option("--json-instances", metavar="FILE", help="One instance per line, as JSON; - is stdin.")
@click.option("--text-instances", metavar="FILE", help="One instance per line, as text; - is stdin.")
@click.option("--json-request", metavar="FILE", help='A whole request, {"instances": [...]}; - is stdin.')
@click.option("--signature-name", metavar="NAME", help="Signature of the model (default: serving_default).")
@click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N", help="Measure: ask on so many connections.")
@click.option("--requests", type=click.IntRange(1), metavar="N", help="With --concurrency: how many requests in all.")
@click.option(
    "--duration", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="With --concurrency: for how long."
)
@pass_invocation
def predict(
    invocation: Invocation,
    model: str,
    version: str | None,
    json_instances: str | None,
    text_instances: str | None,
    json_request: str | None,
    signature_name: str | None,
    concurrency: int | None,
    requests: int | None,
    duration: float | None,
) -> None:
    """Ask a deployed model for predictions; or, with --concurrency, measure how quickly it gives them."""
    instances = read_instances(invocation, json_instances, text_instances, json_request)
    model_id = resource_id(invocation, model)
    if concurrency is not None:
        measure(invocation, model_id, version, instances, signature_name, concurrency, requests, duration)
        return
    if requests is not None or duration is not None:
        raise click.UsageError("--requests and --duration need --concurrency.", invocation.context)
    answer = invocation.client().predict(model_id, version, instances, signature_name=signature_name)
    print_predictions(invocation, answer)


@click.command(
    cls=Command,
    examples="""
        mle explain --model iris --version v1 --json-instances flowers.json
        echo '[5.1, 3.5, 1.4, 0.2]' | mle explain --model iris --json-instances -
    """,
)
@click.option("--model", required=True, metavar="MODEL", help="The model to ask.")
@click.option("--version", metavar="VERSION", help="Which version (default: the model's default version).")
@click.option("--json-instances", metavar="FILE", help="One instance per line, as JSON; - is stdin.")
@click.option("--text-instances", metavar="FILE", help="One instance per line, as text; - is stdin.")
@click.option("--json-request", metavar="FILE", help='A whole request, {"instances": [...]}; - is stdin.')
@pass_invocation
def explain(
    invocation: Invocation,
    model: str,
    version: str | None,
    json_instances: str | None,
    text_instances: str | None,
    json_request: str | None,
) -> None:
    """Ask what each feature added to a prediction; the version needs an --explanation-method."""
    from enginehouse.cli.output import print_resource

    instances = read_instances(invocation, json_instances, text_instances, json_request)
    answer = invocation.client().explain(resource_id(invocation, model), version, instances)
    if invocation.format:
        print_resource(invocation, answer)
    else:
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def measure(
    invocation: Invocation,
    model_id: str,
    version: str | None,
    instances: list[Any],
    signature_name: str | None,
    concurrency: int,
    n_requests: int | None,
    duration_s: float | None,
) -> None:
    """Send the same request again and again and print how quickly it was answered; exit 1 when one was not."""
    from enginehouse.cli import load
    from enginehouse.cli.output import print_resource

    if n_requests is None and duration_s is None:
        n_requests = 100 * concurrency
    client = invocation.client()
    client.predict(model_id, version, instances, signature_name=signature_name)  # wakes the server; errors as ever
    body: dict[str, Any] = {"instances": instances}
    if signature_name is not None:
        body["signature_name"] = signature_name
    url, headers = client.transport.address()
    outcome = load.run(
        url,
        client.question_path("predict", model_id, version),
        json.dumps(body).encode(),
        {**headers, "Content-Type": "application/json"},
        concurrency=concurrency,
        n_requests=n_requests,
        duration_s=duration_s,
    )
    print_resource(invocation, outcome.summary(concurrency))
    if outcome.failures:
        click.get_current_context().exit(1)


def read_instances(
    invocation: Invocation, json_instances: str | None, text_instances: str | None, json_request: str | None
) -> list[Any]:
    """The instances of the one flag that was given."""
    if sum(flag is not None for flag in (json_instances, text_instances, json_request)) != 1:
        raise click.UsageError(
            "give exactly one of --json-instances, --text-instances, --json-request.", invocation.context
        )
    if json_request is not None:
        request = _parse(_read(json_request), f"--json-request {json_request}")
        if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
            raise InvalidArgument(f'--json-request {json_request}: it should be {{"instances": [...]}}.')
        return list(request["instances"])
    if json_instances is not None:
        lines = _read(json_instances).splitlines()
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        found = [_parse(line, f"--json-instances {json_instances}, line {number}") for number, line in numbered]
    else:
        found = _read(str(text_instances)).splitlines()
    if not found:
        raise InvalidArgument("There are no instances in the file.")
    return found


def _read(path: str) -> str:
    return sys.stdin.read() if path == "-" else Path(path).expanduser().read_text(encoding="utf-8")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"{where} is not JSON: {error}") from None


def print_predictions(invocation: Invocation, answer: Any) -> None:
    """Objects as a table with sorted columns, bare values as one list, anything else whole, as gcloud does."""
    from enginehouse.cli.output import print_list, print_resource, table, text_of

    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    kind = invocation.format or "table"
    if kind != "table":
        print_resource(invocation, answer)
    elif not isinstance(predictions, list):
        click.echo(json.dumps(answer, indent=2, sort_keys=True, ensure_ascii=False))
    elif not predictions:
        click.echo("predictions: []")
    elif all(isinstance(each, dict) and each.keys() == predictions[0].keys() for each in predictions):
        print_list(
            invocation, predictions, [(key.upper(), operator.itemgetter(key)) for key in sorted(predictions[0])]
        )
    else:
        click.echo(table(None, [[text_of(predictions)]]))
