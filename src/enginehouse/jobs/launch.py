"""Begins the replicas of a job: brings their packages beside them and tells each what to run, where and with what.

In: a job with its plan and its run. Out: a `ReplicaSpec` per replica, given to the backend. Called by the reconciler,
again and again if need be: launching twice launches once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from enginehouse.backends.base import Backend, RunsContainers
from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import Settings
from enginehouse.gateway.environment import OLD_PREFIX, SHIMS_VARIABLE, WIRED_VARIABLE, Wiring
from enginehouse.jobs.capacity import Capacity
from enginehouse.jobs.cluster import Cluster, thread_variables
from enginehouse.jobs.environment import Trial, training_environment
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.program import Program, program_of
from enginehouse.jobs.run import Run
from enginehouse.metadata.records import JobRecord
from enginehouse.replica.spec import ContainerSpec, Mount, PackageFile, ReplicaSpec
from enginehouse.storage.base import ObjectStore

_USUAL_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where most images have the certificates that they trust."""


class Launcher:
    """Launches replicas of an engine's jobs.

    Args:
        wiring: project → how its replicas reach the engine; None without a gateway.
        capacity: what replicas share.
    """

    def __init__(
        self,
        storage: ObjectStore,
        backend: Backend,
        settings: Settings,
        *,
        engine_url: str,
        uv: Path,
        wiring: Callable[[str], Wiring | None],
        capacity: Capacity,
    ) -> None:
        self._storage = storage
        self._backend = backend
        self._settings = settings
        self._engine_url = engine_url
        self._uv = uv
        self._wiring = wiring
        self._capacity = capacity

    def launch(self, job: JobRecord, plan: Plan, run: Run, replicas: Sequence[tuple[ReplicaPlan, Path]]) -> None:
        """Begin these replicas, each in its directory.

        Raises:
            EngineError: a package can't be read any more.
            OSError: the host fails; calling again is right.
        """
        program = program_of(job, plan)
        wiring = self._wiring(job.name.project)
        for replica, directory in replicas:
            packages = self._stage_packages(program, directory)
            trial = program.trial(job.name, directory)
            if trial is not None:  # programs may write there without making it
                trial.metric_file.parent.mkdir(parents=True, exist_ok=True)
            self._backend.launch(directory, self._spec(job, plan, run, program, replica, packages, wiring, trial))

    def _spec(
        self,
        job: JobRecord,
        plan: Plan,
        run: Run,
        program: Program,
        replica: ReplicaPlan,
        packages: Sequence[PackageFile],
        wiring: Wiring | None,
        trial: Trial | None,
    ) -> ReplicaSpec:
        change = training_environment(
            project=job.name.project,
            job_id=job.name.job_id,
            cluster=Cluster(plan, run.ports),
            task=replica,
            training_input=program.told,
            trial=trial,
            engine_url=self._engine_url,
            wiring=wiring,
            host_environment=os.environ if not replica.image else {},  # a container has none of the host's variables
        )
        environment = {
            **thread_variables(plan, self._capacity.cpus),
            **self._device_variables(run, replica),
            **change.set,
            **program.environment,
        }
        container = None
        if replica.image:
            environment = {name: text for name, text in environment.items() if not _is_of_host(name)}
            container = self._container(replica, wiring, trial)
        limits = self._capacity.limits(plan, replica)
        return ReplicaSpec(
            task_name=replica.task_name,
            module=program.module,
            args=(*replica.args, *program.args),  # one of them is empty, but for the parameters of a trial
            job_dir=program.job_dir,
            environment=environment,
            unset=change.unset,
            packages=tuple(packages),
            runtime_version=plan.runtime_version,
            python_version=plan.python_version,
            runtime_reason=plan.runtime_reason,
            runtimes_dir=str(self._settings.runtimes_dir),
            uv=str(self._uv),
            grace_s=self._settings.cancel_grace_s,
            memory_bytes=limits.memory_bytes,
            cpus=limits.cpus,
            container=container,
        )

    def _container(self, replica: ReplicaPlan, wiring: Wiring | None, trial: Trial | None) -> ContainerSpec:
        assert isinstance(self._backend, RunsContainers)  # or the job would not have been let in
        mounts: tuple[Mount, ...] = ()
        if wiring is not None:
            mounts = (
                Mount(str(wiring.bundle), str(wiring.bundle)),
                Mount(str(wiring.authority), str(wiring.authority)),
                # For what looks at no variable, such as TensorFlow 1.x.
                Mount(str(wiring.bundle), _USUAL_BUNDLE),
                Mount(str(wiring.files), str(wiring.files), "copy"),
            )
        if trial is not None:
            reports = str(trial.metric_file.parent)
            mounts += (Mount(reports, reports, "write"),)
        return ContainerSpec(self._backend.container_engine(), replica.image, replica.command, mounts)

    def _device_variables(self, run: Run, replica: ReplicaPlan) -> dict[str, str]:
        """Which GPUs a replica may see: its own, where there are any on this host."""
        if not self._capacity.gpus:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(run.devices.get(replica.task_name, ()))}

    def _stage_packages(self, program: Program, directory: Path) -> list[PackageFile]:
        """Bring the packages beside the replica, so that it needs no engine to install them."""
        staged = []
        for index, uri_text in enumerate(program.package_uris):
            uri = ObjectUri.parse(uri_text)
            target = directory / "packages" / str(index) / uri.name.rpartition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            _info, source = self._storage.open_read(uri.bucket, uri.name)
            with source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            staged.append(PackageFile(uri=uri_text, path=str(target)))
        return staged


def _is_of_host(name: str) -> bool:
    """Whether a variable means something only outside of a container."""
    return name == "PATH" or name in (WIRED_VARIABLE, SHIMS_VARIABLE) or name.startswith(OLD_PREFIX)


def host_notes(plan: Plan, host_cpus: int, *, without_gpus: bool) -> list[str]:
    """What the job's owner should know of how the plan fits this host."""
    notes = []
    if limits := thread_variables(plan, host_cpus):
        notes.append(
            f"The job asks for {plan.resources.cpus:g} CPUs; its {len(plan.replicas)} replicas share the {host_cpus} "
            f"of this machine, {limits['OMP_NUM_THREADS']} thread(s) each."
        )
    if without_gpus:
        notes.append(
            f"The job asks for {plan.resources.gpus} GPU(s), which this machine does not have; it runs on CPUs, as "
            "its project allows (setting allow_missing_accelerators)."
        )
    return notes
