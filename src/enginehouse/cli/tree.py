"""The tree of `mle`, and one run of it: errors become one line and an exit code here, never a traceback.

Exit codes: 0 done, 1 an error, 2 a wrong command line, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from enginehouse import __version__
from enginehouse.cli.base import HELP_NAMES, Child, LazyGroup
from enginehouse.cli.invocation import Invocation

CHILDREN = {
    "init": Child("enginehouse.cli.init:init", "Write a new project that trains and predicts as it is."),
    "up": Child("enginehouse.cli.engine:up", "Start an engine."),
    "down": Child("enginehouse.cli.engine:down", "Stop an engine; running jobs go on."),
    "status": Child("enginehouse.cli.engine:status", "Show the engine and what it is doing."),
    "settings": Child("enginehouse.cli.engine:settings", "List the settings in force and what they mean."),
    "storage": Child("enginehouse.cli.storage:storage", "Work with buckets and objects."),
    "jobs": Child("enginehouse.cli.jobs:jobs", "Submit, watch and cancel jobs."),
    "hptuning": Child("enginehouse.cli.hptuning:hptuning", "Prepare hyperparameter tuning."),
    "local": Child("enginehouse.cli.local:local", "Run a trainer here, as a job would."),
    "tensorboard": Child("enginehouse.cli.tensorboard:tensorboard", "Show a job's training in TensorBoard."),
    "models": Child("enginehouse.cli.models:models", "Manage models."),
    "versions": Child("enginehouse.cli.versions:versions", "Manage the versions of a model."),
    "predict": Child("enginehouse.cli.predict:predict", "Ask a deployed model for predictions."),
    "explain": Child("enginehouse.cli.predict:explain", "Ask what made a model predict what it does."),
    "requests": Child("enginehouse.cli.requests:requests", "Query the sampled requests of versions."),
    "operations": Child("enginehouse.cli.operations:operations", "Look at long-running operations."),
    "runtimes": Child("enginehouse.cli.runtimes:runtimes", "List and build runtimes."),
    "env": Child("enginehouse.cli.env:env", "Wire a shell for gcloud, gsutil and Google's clients."),
    "run": Child("enginehouse.cli.env:run", "Run one command wired to the engine."),
    "version": Child("enginehouse.cli.engine:version", "Print the versions of mle and of the engine."),
}


@click.group(
    cls=LazyGroup,
    children=CHILDREN,
    context_settings=HELP_NAMES,
    examples="""
        mle up --detach
        mle init iris --framework tensorflow
        mle jobs list
    """,
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def root() -> None:
    """Train, deploy and predict on a Cloud Machine Learning Engine that you own."""


def run(args: Sequence[str] | None = None) -> int:
    """Run `mle` and give its exit code."""
    invocation = Invocation()
    try:
        result = root.main(args, prog_name="mle", standalone_mode=False, obj=invocation)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        from enginehouse.cli.errors import report

        return report(invocation, error)
    return result if isinstance(result, int) else 0
