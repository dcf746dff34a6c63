"""`mle local train`: a trainer run here, in the environment that a job would give it.

The same functions as for a job make the runtime, install the packages and set the variables; only the process is a
plain child of this one, so that its output comes straight to the terminal and a debugger can be used. No engine is
needed; where one runs, its buckets can be read and written.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginehouse.cli.base import Group
from enginehouse.cli.body import comma_list
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from enginehouse.jobs.cluster import Cluster
    from enginehouse.jobs.plan import ReplicaPlan
    from enginehouse.replica.environment import Prepared
    from enginehouse.replica.spec import ReplicaSpec
    from enginehouse.runtimes.catalogue import Catalogue, Resolution
    from enginehouse.schemas.ml_v1 import TrainingInput

_JOB_ID = "local_train"
_START_PORT = 27182
_COUNT = 2
"""Workers, and parameter servers, of a cluster of which nothing more is said; gcloud's numbers."""


@click.group(cls=Group, examples="mle local train --help")
def local() -> None:
    """Run a trainer here, as a job would."""


@local.command(
    user_args=True,
    examples="""
        mle local train --module-name trainer.task --package-path trainer/ --job-dir out -- --train-files train.csv
        mle local train --module-name trainer.task --runtime-version 1.15 --distributed --worker-count 1 --job-dir out
    """,
)
@click.option("--module-name", required=True, metavar="MODULE", help="Module to run: trainer.task.")
@click.option("--package-path", metavar="DIR", help="Folder of the Python package (default: by the module's name).")
@click.option("--packages", metavar="PATH,...", help="More packages: local archives.")
@click.option("--job-dir", metavar="PATH", help="Given to the trainer as --job-dir.")
@click.option("--runtime-version", metavar="TEXT", help="Runtime to run in (default: the newest with TensorFlow).")
@click.option("--python-version", metavar="X.Y", help="Python of the runtime (default: the one a job would get).")
@click.option("--distributed", is_flag=True, help="Run a cluster: a master, workers and parameter servers.")
@click.option("--worker-count", type=click.IntRange(0), metavar="N", help="Workers (with --distributed; default: 2).")
@click.option(
    "--parameter-server-count",
    type=click.IntRange(0),
    metavar="N",
    help="Parameter servers (with --distributed; default: 2).",
)
@click.option(
    "--evaluator-count", type=click.IntRange(0), metavar="N", help="Evaluators (with --distributed; default: 0)."
)
@click.option(
    "--start-port",
    type=click.IntRange(1, 65000),
    metavar="PORT",
    help="First of the cluster's ports (with --distributed; default: 27182).",
)
@pass_invocation
def train(
    invocation: Invocation,
    module_name: str,
    package_path: str | None,
    packages: str | None,
    job_dir: str | None,
    runtime_version: str | None,
    python_version: str | None,
    distributed: bool,
    worker_count: int | None,
    parameter_server_count: int | None,
    evaluator_count: int | None,
    start_port: int | None,
    user_args: tuple[str, ...],
) -> None:
    """Run a trainer here, in a job's environment and with its variables, and exit as it does.

    It runs in the current folder, but is imported from the installed package as in a job. What follows a lone `--` is
    given to it. With --distributed it runs once for each replica of a cluster, which ends with its master.
    """
    shape = Shape(worker_count, parameter_server_count, evaluator_count, start_port)
    if not distributed and shape != Shape():
        invocation.say("WARNING: counts and ports are for a cluster; give --distributed, too.")
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
        training_input = _training_input(module_name, user_args, job_dir, resolution, shape if distributed else None)
        cluster = _cluster(training_input, resolution, shape.first_port if distributed else 2222)
        # -P: from the installed package, as in a job, not from a folder that happens to be here. New in Python 3.11.
        safe_path = ["-P"] if version_key(resolution.python_version) >= (3, 11) else []
        commands: list[Command] = []
        for replica in cluster.plan.replicas:
            spec = _spec(invocation, cluster, replica, training_input, archives, resolution)
            folder = Path(scratch) / replica.task_name
            folder.mkdir()
            prepared = _prepare(invocation, spec, folder, told=not commands)
            command = (str(prepared.python), *safe_path, "-m", module_name, *spec.arguments)
            commands.append(Command(replica.task_name, command, _variables(prepared)))
        if distributed:
            from enginehouse.cli.cluster import run_cluster

            code = run_cluster(commands, grace_s=invocation.settings().cancel_grace_s, say=invocation.say)
        else:
            code = _run(commands[0])
    raise click.exceptions.Exit(code)


@dataclass(frozen=True)
class Shape:
    """What the flags say of a cluster."""

    worker_count: int | None = None
    parameter_server_count: int | None = None
    evaluator_count: int | None = None
    start_port: int | None = None

    @property
    def first_port(self) -> int:
        return _START_PORT if self.start_port is None else self.start_port


@dataclass(frozen=True)
class Command:
    """One process to run in the current folder."""

    task_name: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str]


def newest_runtime(catalogue: Catalogue) -> str:
    """The TensorFlow runtime with the highest version; it has the other frameworks too."""
    names = [each.name for each in catalogue.runtimes() if "TENSORFLOW" in each.frameworks]
    if not names:
        raise InvalidArgument("There is no TensorFlow runtime here; name another with --runtime-version.")
    return max(names, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])


def _training_input(
    module: str, user_args: tuple[str, ...], job_dir: str | None, resolution: Resolution, shape: Shape | None
) -> TrainingInput:
    """What a job of this shape would have been submitted with; None for one process."""
    from enginehouse.schemas.ml_v1 import TrainingInput
    from enginehouse.schemas.wire import Int64

    training_input = TrainingInput(
        scale_tier="BASIC",
        python_module=module,
        args=list(user_args),
        runtime_version=resolution.runtime.name,
        python_version=resolution.python_version,
        job_dir=job_dir or "",
    )
    if shape is not None:
        training_input.scale_tier = "CUSTOM"
        training_input.master_type = training_input.worker_type = "standard"
        training_input.parameter_server_type = training_input.evaluator_type = "standard"
        training_input.worker_count = Int64(_COUNT if shape.worker_count is None else shape.worker_count)
        servers = shape.parameter_server_count
        training_input.parameter_server_count = Int64(_COUNT if servers is None else servers)
        training_input.evaluator_count = Int64(shape.evaluator_count or 0)
    return training_input


def _cluster(training_input: TrainingInput, resolution: Resolution, first_port: int) -> Cluster:
    """The replicas with ports in gcloud's order: master, parameter servers, workers; then the master's second one."""
    from enginehouse.jobs.cluster import Cluster
    from enginehouse.jobs.plan import make_plan

    plan = make_plan(training_input, resolution)
    order = ("master", "ps", "worker", "evaluator")
    ports: dict[str, tuple[int, ...]] = {}
    for replica in sorted(plan.replicas, key=lambda each: order.index(each.role)):
        ports[replica.task_name] = (first_port + len(ports),)
    master = plan.replicas[0].task_name
    ports[master] = (*ports[master], first_port + len(ports))
    return Cluster(plan, ports)


def _spec(
    invocation: Invocation,
    cluster: Cluster,
    replica: ReplicaPlan,
    training_input: TrainingInput,
    archives: list[Path],
    resolution: Resolution,
) -> ReplicaSpec:
    from enginehouse.jobs.cluster import thread_variables
    from enginehouse.jobs.environment import training_environment
    from enginehouse.replica.spec import PackageFile, ReplicaSpec
    from enginehouse.schemas.wire import to_builtins
    from enginehouse.sdk.errors import EngineUnreachable
    from enginehouse.sdk.locate import find_url
    from enginehouse.sdk.packaging import find_uv

    settings = invocation.settings()
    try:
        engine_url: str | None = find_url(settings, invocation.url)
    except EngineUnreachable:
        engine_url = None  # buckets are out of reach then, local files are not
    change = training_environment(
        project=settings.project,
        job_id=_JOB_ID,
        cluster=cluster,
        task=replica,
        training_input=to_builtins(training_input),
        engine_url=engine_url,
    )
    return ReplicaSpec(
        task_name=replica.task_name,
        module=training_input.python_module,
        args=tuple(training_input.args),
        job_dir=training_input.job_dir or None,
        environment={**thread_variables(cluster.plan, len(os.sched_getaffinity(0))), **change.set},
        unset=change.unset,
        packages=tuple(PackageFile(uri=path.name, path=str(path.absolute())) for path in archives),
        runtime_version=resolution.runtime.name,
        python_version=resolution.python_version,
        runtime_reason=resolution.reason,
        runtimes_dir=str(settings.runtimes_dir),
        uv=str(find_uv()),
        grace_s=settings.cancel_grace_s,
    )


def _prepare(invocation: Invocation, spec: ReplicaSpec, directory: Path, *, told: bool) -> Prepared:
    """Make the environment; what is told of it is the same for all replicas."""
    from enginehouse.replica.environment import EnvironmentFailedError, prepare

    try:
        return prepare(spec, directory, invocation.say if told else lambda _line: None)
    except EnvironmentFailedError as error:
        raise FailedPrecondition(str(error)) from None


def _variables(prepared: Prepared) -> dict[str, str]:
    from enginehouse.replica.environment import OVERLAY_VARIABLE
    from enginehouse.replica.spec import MARKER

    return {name: text for name, text in prepared.variables.items() if name not in (OVERLAY_VARIABLE, MARKER)}


def _run(command: Command) -> int:
    """Run the trainer in the foreground; Ctrl-C reaches it too, and it decides how to end."""
    # Not by KeyboardInterrupt, which may come just between the kernel's answer and its being written down.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.Popen(command.arguments, env=command.variables).wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code
