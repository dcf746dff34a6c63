"""`mle hptuning`: a first hptuning_config.yaml from a trainer's own options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import FailedPrecondition

if TYPE_CHECKING:
    from enginehouse.cli.trainer_options import Option, Trainer

_NOT_TUNED = re.compile(
    r"dir|path|files?|bucket|uri|url|verbos|seed|log|export|format|eval|steps?$|epochs?$|version|name|project|region"
    r"|port|host|workers?$|threads?$|save|checkpoint|every|interval|device|gpu",
    re.IGNORECASE,
)
"""Options that say where, how long or how loud, not how a model learns."""
_MANY_SCALES = re.compile(r"rate|lr|decay|alpha|lambda|eps|reg|l1|l2|momentum|gamma|penalty|tol", re.IGNORECASE)
_SHARE = re.compile(r"drop|frac|ratio|share|factor|subsample|momentum|beta", re.IGNORECASE)


@click.group(cls=Group, examples="mle hptuning suggest-config --package-path trainer/ > hptuning_config.yaml")
def hptuning() -> None:
    """Prepare hyperparameter tuning."""


@hptuning.command(
    "suggest-config",
    examples="""
        mle hptuning suggest-config --package-path trainer/
        mle hptuning suggest-config --package-path trainer/ --metric accuracy --output hptuning_config.yaml
    """,
)
@click.option("--package-path", required=True, metavar="DIR", help="Folder of the trainer's Python package.")
@click.option("--metric", metavar="TAG", help="The metric to tune for (default: the one that the trainer reports).")
@click.option("--goal", type=click.Choice(["MAXIMIZE", "MINIMIZE"]), help="Default: by the metric's name.")
@click.option("--max-trials", type=click.IntRange(min=1), default=10, metavar="N", help="Default: 10.")
@click.option("--max-parallel-trials", type=click.IntRange(min=1), default=2, metavar="N", help="Default: 2.")
@click.option("--output", metavar="FILE", help="Write it there, unless the file is there already.")
@pass_invocation
def suggest_config(
    invocation: Invocation,
    package_path: str,
    metric: str | None,
    goal: str | None,
    max_trials: int,
    max_parallel_trials: int,
    output: str | None,
) -> None:
    """Write a hptuning_config.yaml from the options that a trainer's argparse knows.

    The source is read, not run. Ranges are guesses around the defaults: look them through.
    """
    from enginehouse.cli.trainer_options import read_trainer

    package = Path(package_path).expanduser()
    if not package.is_dir():
        raise FailedPrecondition(f"There is no folder {package_path}.")
    trainer = read_trainer(package)
    for path in trainer.unreadable:
        invocation.say(f"{path} is no Python 3, so its options are not seen.")
    found = [(option, range_of(option)) for option in trainer.options]
    tuned = {option.name: fields for option, fields in found if fields is not None}
    left = [option.name for option, fields in found if fields is None]
    if not tuned:
        raise FailedPrecondition(
            f"No option of {package_path} looks like one to tune: numbers with a default, or choices."
            + (f" There are {', '.join('--' + name for name in left)}." if left else "")
        )
    text = config_text(trainer, tuned, metric, goal, max_trials, max_parallel_trials)
    if left:
        invocation.say(f"Left out: {', '.join('--' + name for name in left)}.")
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).expanduser().open("x") as file:
            file.write(text)
    except FileExistsError:
        raise FailedPrecondition(f"{output} is there already; remove it first, or name another file.") from None
    invocation.say(f"Wrote {output}.")


def config_text(
    trainer: Trainer,
    tuned: Mapping[str, Mapping[str, Any]],
    metric: str | None,
    goal: str | None,
    max_trials: int,
    max_parallel_trials: int,
) -> str:
    """The yaml, with comments."""
    tag = metric or next(iter(trainer.metrics), "accuracy")
    more = [other for other in trainer.metrics if other != tag]
    goal = goal or ("MINIMIZE" if re.search(r"loss|error|mse|mae|rmse|cost|time", tag, re.IGNORECASE) else "MAXIMIZE")
    lines = [
        "# The search space of a tuning job: flags of the trainer, and the range of each.",
        "# The ranges are guesses around the trainer's defaults: look them through.",
        "trainingInput:",
        "  hyperparameters:",
        f"    goal: {goal}",
    ]
    if not trainer.metrics and metric is None:
        lines.append("    # The trainer's source names no metric: name the tag of a summary, or of a report.")
    if more:
        lines.append(f"    # The trainer reports {', '.join(more)}, too.")
    lines += [
        f"    hyperparameterMetricTag: {_scalar(tag)}",
        f"    maxTrials: {max_trials}",
        f"    maxParallelTrials: {max_parallel_trials}",
        "    params:",
    ]
    for name, fields in tuned.items():
        lines.append(f"      - parameterName: {_scalar(name)}")
        for field, value in fields.items():
            shown = f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)
            lines.append(f"        {field}: {shown}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in (
            "yes",
            "no",
            "true",
            "false",
            "on",
            "off",
            "null",
        )
        return value if plain else "'" + value.replace("'", "''") + "'"
    return f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def range_of(option: Option) -> dict[str, Any] | None:
    """A range to search for an option, as fields of ParameterSpec; None for one that is not to be tuned."""
    if not option.takes_value or (_NOT_TUNED.search(option.name) and not option.choices):
        return None
    if option.choices:
        return _choice(option) if not _NOT_TUNED.search(option.name) else None
    default = option.default
    if isinstance(default, bool) or option.kind not in ("int", "float", ""):
        return None
    if option.kind == "int" or (not option.kind and isinstance(default, int)):
        return _whole(option)
    if option.kind == "float" or isinstance(default, float):
        return _number(option)
    return None


def _choice(option: Option) -> dict[str, Any] | None:
    values = option.choices
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"type": "DISCRETE", "discreteValues": sorted(values)}
    if all(isinstance(value, str) for value in values):
        return {"type": "CATEGORICAL", "categoricalValues": list(values)}
    return None


def _whole(option: Option) -> dict[str, Any]:
    default = option.default if isinstance(option.default, int | float) and option.default > 0 else 10
    low, high = max(1, int(default) // 4), max(2, int(default) * 4)
    fields = {"type": "INTEGER", "minValue": low, "maxValue": high}
    return fields | {"scaleType": "UNIT_LOG_SCALE" if high / low >= 16 and low >= 4 else "UNIT_LINEAR_SCALE"}


def _number(option: Option) -> dict[str, Any]:
    default = option.default if isinstance(option.default, int | float) else None
    if _SHARE.search(option.name) and (default is None or 0 <= default <= 1):
        low, high = (0.1, 1.0) if re.search("factor|sample|beta", option.name) else (0.0, 0.9)
        return {"type": "DOUBLE", "minValue": low, "maxValue": high, "scaleType": "UNIT_LINEAR_SCALE"}
    if default is None or default <= 0:
        if _MANY_SCALES.search(option.name):
            default = 0.001
        else:
            return {"type": "DOUBLE", "minValue": 0.0, "maxValue": 1.0, "scaleType": "UNIT_LINEAR_SCALE"}
    spread = 100 if _MANY_SCALES.search(option.name) else 10
    low, high = default / spread, default * spread
    if default < 1 and _MANY_SCALES.search(option.name):
        high = min(high, 1.0)
    return {"type": "DOUBLE", "minValue": float(low), "maxValue": float(high), "scaleType": "UNIT_LOG_SCALE"}
