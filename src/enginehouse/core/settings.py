"""The settings: one table, read from a file, the environment and flags, in rising order of strength.

    default  <  DATA_DIR/settings.toml (or --settings FILE)  <  ENGINEHOUSE_NAME  <  --flag

`docs/settings.md` is generated from `SETTINGS`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from enginehouse.core.errors import InvalidArgument

ENVIRONMENT_PREFIX = "ENGINEHOUSE_"


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    type: type
    default: Any
    doc: str
    flag_value: str | None = None
    """What the flag means where it stands without a value; None if it needs one."""

    @property
    def environment_name(self) -> str:
        """`ENGINEHOUSE_DATA_DIR` for `data_dir`."""
        return ENVIRONMENT_PREFIX + self.name.upper()


def _cache_dir() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return f"{base}/enginehouse/runtimes"


SETTINGS: tuple[Setting, ...] = (
    Setting("data_dir", Path, "~/.enginehouse", "Where the engine keeps its metadata, objects, jobs and logs."),
    Setting("host", str, "127.0.0.1", "Address to listen on. Anything but loopback needs a token."),
    Setting("port", int, 8600, "Port of the APIs; 0 picks a free one (the same again after a restart, if it can)."),
    Setting("gateway", bool, True, "Answer for Google's API hosts by a forward proxy; see `mle env`."),
    Setting("gateway_port", int, 0, "Port of the gateway; 0 takes the one after the APIs', or a free one."),
    Setting(
        "grpc_port",
        int,
        -1,
        "Port of predictions by gRPC (needs enginehouse[grpc]); 0 picks a free one, -1 leaves it off, the flag alone "
        "means 8500.",
        flag_value="8500",
    ),
    Setting(
        "token", str, "", "Secret that requests from other machines must bring; needed for a host beyond loopback."
    ),
    Setting("project", str, "enginehouse", "Project that `mle` uses when no --project is given."),
    Setting("staging_bucket", str, "", "Bucket for what `mle` uploads when no --staging-bucket is given."),
    Setting(
        "unknown_buckets",
        str,
        "refuse",
        "What reading a bucket that is not here does: refuse, or forward to the real Cloud Storage.",
    ),
    Setting(
        "bucket_mappings",
        str,
        "",
        "Buckets that lie elsewhere, NAME=URI with blanks between: file:///PATH, s3://BUCKET, gs://BUCKET (to read).",
    ),
    Setting("runtimes_dir", Path, _cache_dir(), "Cache of built runtimes, shared by all engines of a user."),
    Setting("max_running_jobs", int, 8, "Training jobs that run at the same time; the others wait in the queue."),
    Setting(
        "cpus",
        float,
        0.0,
        "CPUs that running jobs may ask for together; 0: not counted, replicas share what there is.",
    ),
    Setting(
        "memory", str, "", "Memory that running jobs may ask for together, such as 24GiB; not counted if left out."
    ),
    Setting(
        "hold_to_machine_type",
        str,
        "auto",
        "Whether replicas are held to the CPUs and memory of their machine types: auto (where these are counted: see "
        "cpus and memory), always, or never.",
    ),
    Setting(
        "container_engine",
        str,
        "auto",
        "What runs custom containers: auto (podman or docker, whichever answers), the name or path of one, or none.",
    ),
    Setting("gpus", str, "auto", "GPUs to give to jobs: auto finds NVIDIA's; or how many, or ids as 0,1."),
    Setting(
        "quotas",
        str,
        "",
        "What a project may use at a time, PROJECT=jobs:2,cpus:16,memory:64,gpus:1,ml_units:10 with blanks between; "
        "* stands for all others.",
    ),
    Setting(
        "allow_missing_accelerators",
        str,
        "",
        "Projects, with blanks between (* for all), whose jobs run on CPUs where there are fewer GPUs than they ask "
        "for; jobs of others wait.",
        flag_value="*",
    ),
    Setting(
        "cancel_grace_s", float, 10.0, "Seconds between SIGTERM and SIGKILL when a job is cancelled or gives way."
    ),
    Setting(
        "tuning_objective",
        str,
        "last",
        "Which value of a trial's metric counts: last (at the highest step), as in the original, or best.",
    ),
    Setting(
        "warm_pool",
        int,
        2,
        "Interpreters of recently used runtimes that wait with their framework imported, so that jobs start sooner; "
        "0: none.",
    ),
    Setting("warm_pool_memory", str, "2GiB", "Memory that the waiting interpreters may hold together."),
    Setting("warm_pool_idle_s", float, 1800.0, "Seconds after its last job for which an interpreter waits."),
    Setting("predict_timeout_s", float, 60.0, "Seconds that an online prediction may take."),
    Setting("max_body_bytes", int, 16 * 1024 * 1024, "Largest request body of the ml and prediction APIs, in bytes."),
    Setting("requests_bucket", str, "enginehouse-requests", "Bucket for the tables of request-response logging."),
    Setting(
        "requests_flush_s", float, 60.0, "Seconds after which sampled requests are in their table at the latest."
    ),
    Setting("server_idle_s", float, 900.0, "Seconds without a request after which a model server is stopped."),
    Setting(
        "serving_memory",
        str,
        "",
        "Memory that all model servers may use together, such as 8GiB; those not used for the longest time are "
        "stopped for others. Left out: 60 % of the host's.",
    ),
    Setting("version_create_timeout_s", float, 300.0, "Seconds that loading and testing a new version may take."),
    Setting("log_level", str, "INFO", "Verbosity of the engine's own log: DEBUG, INFO, WARNING or ERROR."),
)


@dataclass(frozen=True)
class Settings:
    """The settings in force, one attribute per row of `SETTINGS`."""

    data_dir: Path
    host: str
    port: int
    gateway: bool
    gateway_port: int
    grpc_port: int
    token: str
    project: str
    staging_bucket: str
    unknown_buckets: str
    bucket_mappings: str
    runtimes_dir: Path
    max_running_jobs: int
    cpus: float
    memory: str
    hold_to_machine_type: str
    container_engine: str
    gpus: str
    quotas: str
    allow_missing_accelerators: str
    cancel_grace_s: float
    tuning_objective: str
    warm_pool: int
    warm_pool_memory: str
    warm_pool_idle_s: float
    predict_timeout_s: float
    max_body_bytes: int
    requests_bucket: str
    requests_flush_s: float
    server_idle_s: float
    serving_memory: str
    version_create_timeout_s: float
    log_level: str

    # Where things lie below the data directory; the layout is told in docs/architecture.md.
    @property
    def metadata_path(self) -> Path:
        return self.data_dir / "metadata.sqlite3"

    @property
    def objects_dir(self) -> Path:
        return self.data_dir / "objects"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def versions_dir(self) -> Path:
        return self.data_dir / "versions"

    @property
    def gateway_dir(self) -> Path:
        """The gateway's certificates."""
        return self.data_dir / "gateway"

    def client_files_dir(self, project: str) -> Path:
        """What clients of a project are pointed to: token, boto file, service account."""
        return self.data_dir / "clients" / project

    @property
    def shims_dir(self) -> Path:
        """`gcloud` and `gsutil` for wired shells and for training processes; no project can have this name."""
        return self.data_dir / "clients" / ".bin"

    @property
    def server_logs_dir(self) -> Path:
        """What model servers print, a file per version."""
        return self.data_dir / "servers"

    @property
    def requests_dir(self) -> Path:
        """Sampled requests that are not in their tables yet."""
        return self.data_dir / "requests"

    @property
    def engine_file(self) -> Path:
        """JSON with url and pid of the engine that runs here; `mle` finds its engine by it."""
        return self.data_dir / "engine.json"

    @property
    def lock_path(self) -> Path:
        """Held by the engine of this data directory for its whole life."""
        return self.data_dir / "engine.lock"

    @property
    def log_path(self) -> Path:
        """The engine's own log when it runs detached."""
        return self.data_dir / "engine.log"


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Settings:
    """Merge all sources.

    Args:
        flags: values given on the command line; None values count as not given.
        environ: usually `os.environ`.
        file: a TOML file that must exist; without it `DATA_DIR/settings.toml` is read if it is there.

    Raises:
        InvalidArgument: an unknown name or a value of the wrong type, with its source.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_environment = {
        s.name: environ[s.environment_name] for s in SETTINGS if environ.get(s.environment_name, "") != ""
    }
    if file is None:
        data_dir = given.get("data_dir") or from_environment.get("data_dir") or _row("data_dir").default
        file = Path(data_dir).expanduser() / "settings.toml"
        from_file = _read_toml(file) if file.exists() else {}
    else:
        from_file = _read_toml(file)
    unknown = sorted(set(from_file) - {s.name for s in SETTINGS})
    if unknown:
        raise InvalidArgument(f"unknown setting in {file}; `mle settings` lists them all.", field=unknown[0])
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.name in given:
            value, source = given[setting.name], "--" + setting.name.replace("_", "-")
        elif setting.name in from_environment:
            value, source = from_environment[setting.name], setting.environment_name
        elif setting.name in from_file:
            value, source = from_file[setting.name], str(file)
        else:
            value, source = setting.default, "default"
        values[setting.name] = _convert(setting, value, source)
    return Settings(**values)


def _row(name: str) -> Setting:
    return next(s for s in SETTINGS if s.name == name)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise InvalidArgument(f"there is no settings file {file}.", field="settings") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{file} is not valid TOML: {error}", field="settings") from None


def _convert(setting: Setting, value: Any, source: str) -> Any:
    try:
        if setting.type is Path:
            return Path(value).expanduser().absolute()
        if setting.type is bool and isinstance(value, str):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        return setting.type(value)
    except (ValueError, TypeError, KeyError):
        raise InvalidArgument(
            f"{value!r} (from {source}) is not a {setting.type.__name__}.", field=setting.name
        ) from None


assert [s.name for s in SETTINGS] == list(get_type_hints(Settings)), "SETTINGS and Settings must agree"
