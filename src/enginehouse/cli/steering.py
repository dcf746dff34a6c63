"""Flags of `mle jobs update` that steer a tuning job, as the fields that `projects.jobs.patch` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enginehouse.core.errors import InvalidArgument

_FIELD = "trainingInput.hyperparameters"


def steering_change(
    job: Mapping[str, Any],
    *,
    max_trials: int | None,
    max_parallel_trials: int | None,
    max_failed_trials: int | None,
    widen: Sequence[str],
) -> tuple[dict[str, Any], list[str]]:
    """The body of a patch and its update mask; empty where no flag was given.

    Args:
        job: as it is now.
        widen: `NAME=MIN:MAX` of a number, `NAME=VALUE,…` of a list, which gets these values more.

    Raises:
        InvalidArgument: the job tunes nothing, or a range can't be read.
    """
    counts = {
        "maxTrials": max_trials,
        "maxParallelTrials": max_parallel_trials,
        "maxFailedTrials": max_failed_trials,
    }
    changed: dict[str, Any] = {name: value for name, value in counts.items() if value is not None}
    if not changed and not widen:
        return {}, []
    spec = job.get("trainingInput", {}).get("hyperparameters")
    if spec is None:
        raise InvalidArgument(f"{job['jobId']} tunes no hyperparameters.")
    if widen:
        params = {param["parameterName"]: dict(param) for param in spec["params"]}
        for text in widen:
            _widen(params, text)
        changed["params"] = list(params.values())
    return {"trainingInput": {"hyperparameters": changed}}, [f"{_FIELD}.{name}" for name in changed]


def _widen(params: dict[str, dict[str, Any]], text: str) -> None:
    name, equals, given = text.partition("=")
    param = params.get(name)
    if not equals or param is None:
        raise InvalidArgument(
            f"--widen {text}: write NAME=MIN:MAX or NAME=VALUE,VALUE; the parameters are {', '.join(params)}."
        )
    try:
        if param["type"] in ("DOUBLE", "INTEGER"):
            low, _, high = given.partition(":")
            param["minValue"], param["maxValue"] = float(low), float(high)
        elif param["type"] == "DISCRETE":
            values = {*param["discreteValues"], *map(float, given.split(","))}
            param["discreteValues"] = sorted(values)
        else:
            new = [value for value in given.split(",") if value not in param["categoricalValues"]]
            param["categoricalValues"] = [*param["categoricalValues"], *new]
    except ValueError:
        raise InvalidArgument(f"--widen {text}: {given!r} is no range of numbers, such as 0.001:0.1.") from None
