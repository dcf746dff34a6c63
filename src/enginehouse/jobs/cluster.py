"""Where the replicas of a job find each other, in the terms of each framework.

TF_CONFIG is for TensorFlow, MASTER_ADDR and its companions are for PyTorch's `env://`, and the DMLC_* variables tell
where the tracker of XGBoost's collective is to listen. Of the JAX_* ones `jax.distributed.initialize()` knows that of
the coordinator by itself; the number of processes and their ids are for the program to hand on.

Sources: the original's "distributed training details"; pytorch.org/docs/stable/distributed.html;
docs.jax.dev/en/latest/multi_process.html; xgboost.readthedocs.io/en/stable/tutorials/rabit.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enginehouse.jobs.plan import Plan, ReplicaPlan

HOST = "127.0.0.1"
_IN_CLUSTER = ("master", "worker", "ps")
_COMPUTING = ("master", "worker")
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    # Not TF_NUM_INTEROP_THREADS: these wait for other replicas, and where there are too few all wait for ever.
    "TF_NUM_INTRAOP_THREADS",
)


def ports_needed(replica: ReplicaPlan) -> int:
    """How many ports a replica gets: the master one more, for a tracker or coordinator beside its server."""
    return 2 if replica.role == "master" else 1


@dataclass(frozen=True)
class Cluster:
    """A plan and the ports that its replicas were given, by task name."""

    plan: Plan
    ports: Mapping[str, tuple[int, ...]]

    @property
    def chief_name(self) -> str:
        """What TF_CONFIG calls the master."""
        return self.plan.chief_name

    def address(self, replica: ReplicaPlan, nth: int = 0) -> str:
        """`HOST:PORT` of a replica's `nth` port."""
        return f"{HOST}:{self.ports[replica.task_name][nth]}"

    def addresses(self, *, chief_name: str = "") -> dict[str, list[str]]:
        """Role → addresses in order; evaluators are in no cluster."""
        result: dict[str, list[str]] = {}
        for replica in self.plan.replicas:
            if replica.role in _IN_CLUSTER:
                role = (chief_name or self.chief_name) if replica.role == "master" else replica.role
                result.setdefault(role, []).append(self.address(replica))
        return result

    def collective_variables(self, replica: ReplicaPlan) -> dict[str, str]:
        """What frameworks without TF_CONFIG need, for the replicas that compute, where there are several."""
        computing = [each for each in self.plan.replicas if each.role in _COMPUTING]
        if replica not in computing or len(computing) == 1:
            return {}
        master = computing[0]
        rank, size = str(computing.index(replica)), str(len(computing))
        return {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(self.ports[master.task_name][0]),
            "RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_RANK": "0",
            "JAX_COORDINATOR_ADDRESS": self.address(master, 1),
            "JAX_NUM_PROCESSES": size,
            "JAX_PROCESS_ID": rank,
            "DMLC_TRACKER_URI": HOST,
            "DMLC_TRACKER_PORT": str(self.ports[master.task_name][1]),
            "DMLC_NUM_WORKER": size,
            "DMLC_TASK_ID": rank,
        }


def thread_variables(plan: Plan, host_cpus: int) -> dict[str, str]:
    """Limits that keep several replicas from fighting over cores, where they ask for more than there are.

    Args:
        host_cpus: cores of this machine.
    """
    if len(plan.replicas) == 1 or plan.resources.cpus <= host_cpus:
        return {}
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, host_cpus // len(plan.replicas))))
