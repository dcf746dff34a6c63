"""`mle local train`: a trainer run here, in the environment that a job would give it.

The same functions as for a job make the runtime, install the packages and set the variables; only the process is a
plain child of this one, so that its output comes straight to the terminal and a debugger can be used. No engine is
needed; where one runs, its buckets can be read and written.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginehouse.cli.base import Group
from enginehouse.cli.body import comma_list
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from enginehouse.replica.environment import Prepared
    from enginehouse.replica.spec import ReplicaSpec
    from enginehouse.runtimes.catalogue import Catalogue, Resolution

_JOB_ID = "local_train"


@click.group(cls=Group, examples="mle local train --help")
def local() -> None:
    """Run a trainer here, as a job would."""


@local.command(
    user_args=True,
    examples="""
        mle local train --module-name trainer.task --package-path trainer/ --job-dir out -- --train-files train.csv
    """,
)
@click.option("--module-name", required=True, metavar="MODULE", help="Module to run: trainer.task.")
@click.option("--package-path", metavar="DIR", help="Folder of the Python package (default: by the module's name).")
@click.option("--packages", metavar="PATH,...", help="More packages: local archives.")
@click.option("--job-dir", metavar="PATH", help="Given to the trainer as --job-dir.")
@click.option("--runtime-version", metavar="TEXT", help="Runtime to run in (default: the newest with TensorFlow).")
@click.option("--python-version", metavar="X.Y", help="Python of the runtime (default: the one a job would get).")
@pass_invocation
def train(
    invocation: Invocation,
    module_name: str,
    package_path: str | None,
    packages: str | None,
    job_dir: str | None,
    runtime_version: str | None,
    python_version: str | None,
    user_args: tuple[str, ...],
) -> None:
    """Run a trainer here, in a job's environment and with its variables, and exit as it does.

    It runs in the current folder, but is imported from the installed package as in a job. What follows a lone `--` is
    given to it.
    """
    from enginehouse.runtimes.catalogue import Catalogue, version_key
    from enginehouse.sdk import packaging

    package = Path(package_path or module_name.partition(".")[0])
    packaging.check_package(package, module_name)
    archives = [Path(each).expanduser() for each in comma_list(packages or "")]
    for archive in archives:
        packaging.check_archive(archive)
    catalogue = Catalogue.load(uv=packaging.find_uv())
    resolution = catalogue.resolve(runtime_version or newest_runtime(catalogue), python_version, field="local_train")
    with tempfile.TemporaryDirectory(prefix="mle-local-") as scratch:
        archives.append(packaging.build_package(package, Path(scratch)))
        spec = _spec(invocation, module_name, user_args, job_dir, archives, resolution)
        prepared = _prepare(invocation, spec, Path(scratch))
        # -P: from the installed package, as in a job, not from a folder that happens to be here. New in Python 3.11.
        safe_path = ["-P"] if version_key(resolution.python_version) >= (3, 11) else []
        command = [str(prepared.python), *safe_path, "-m", module_name, *spec.arguments]
        code = _run(command, prepared)
    raise click.exceptions.Exit(code)


def newest_runtime(catalogue: Catalogue) -> str:
    """The TensorFlow runtime with the highest version; it has the other frameworks too."""
    names = [each.name for each in catalogue.runtimes() if "TENSORFLOW" in each.frameworks]
    if not names:
        raise InvalidArgument("There is no TensorFlow runtime here; name another with --runtime-version.")
    return max(names, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])


def _spec(
    invocation: Invocation,
    module: str,
    user_args: tuple[str, ...],
    job_dir: str | None,
    archives: list[Path],
    resolution: Resolution,
) -> ReplicaSpec:
    from enginehouse.jobs.cluster import Cluster
    from enginehouse.jobs.environment import training_environment
    from enginehouse.jobs.plan import make_plan
    from enginehouse.replica.spec import PackageFile, ReplicaSpec
    from enginehouse.schemas.ml_v1 import TrainingInput
    from enginehouse.schemas.wire import to_builtins
    from enginehouse.sdk.errors import EngineUnreachable
    from enginehouse.sdk.locate import find_url
    from enginehouse.sdk.packaging import find_uv

    settings = invocation.settings()
    try:
        engine_url: str | None = find_url(settings, invocation.url)
    except EngineUnreachable:
        engine_url = None  # buckets are out of reach then, local files are not
    training_input = TrainingInput(
        scale_tier="BASIC",
        python_module=module,
        args=list(user_args),
        runtime_version=resolution.runtime.name,
        python_version=resolution.python_version,
        job_dir=job_dir or "",
    )
    plan = make_plan(training_input, resolution)
    master = plan.replicas[0]
    change = training_environment(
        project=settings.project,
        job_id=_JOB_ID,
        cluster=Cluster(plan, {master.task_name: (2222, 2223)}),
        task=master,
        training_input=to_builtins(training_input),
        engine_url=engine_url,
    )
    return ReplicaSpec(
        task_name=master.task_name,
        module=module,
        args=user_args,
        job_dir=job_dir,
        environment=change.set,
        unset=change.unset,
        packages=tuple(PackageFile(uri=path.name, path=str(path.absolute())) for path in archives),
        runtime_version=resolution.runtime.name,
        python_version=resolution.python_version,
        runtime_reason=resolution.reason,
        runtimes_dir=str(settings.runtimes_dir),
        uv=str(find_uv()),
        grace_s=settings.cancel_grace_s,
    )


def _prepare(invocation: Invocation, spec: ReplicaSpec, directory: Path) -> Prepared:
    from enginehouse.replica.environment import EnvironmentFailedError, prepare

    try:
        return prepare(spec, directory, invocation.say)
    except EnvironmentFailedError as error:
        raise FailedPrecondition(str(error)) from None


def _run(command: list[str], prepared: Prepared) -> int:
    """Run the trainer in the foreground; Ctrl-C reaches it too, and it decides how to end."""
    from enginehouse.replica.environment import OVERLAY_VARIABLE
    from enginehouse.replica.spec import MARKER

    variables = {name: text for name, text in prepared.variables.items() if name not in (OVERLAY_VARIABLE, MARKER)}
    process = subprocess.Popen(command, env=variables)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue
        return code if code >= 0 else 128 - code
