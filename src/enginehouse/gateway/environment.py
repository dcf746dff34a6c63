"""The environment variables that make Google's clients talk to an engine: which, to what, and why.

Comes in: where the engine and its files are, and the environment as it is. Goes out: a `Change` of the environment.
`mle env`, `mle run` and the replicas of jobs call it; nothing here touches the disk or a process. The table
`VARIABLES` is the documentation too (`variables_table`).

What a variable held before is kept in `ENGINEHOUSE_OLD_<name>`, and the names of all that were changed in
`ENGINEHOUSE_WIRED`, so that `unwire` can put everything back, and wiring twice is the same as wiring once.
Facts about clients were observed on the wire; where one names no client, all of them read the variable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from enginehouse.gateway.hosts import find_rule

WIRED_VARIABLE = "ENGINEHOUSE_WIRED"
OLD_PREFIX = "ENGINEHOUSE_OLD_"
SHIMS_VARIABLE = "ENGINEHOUSE_SHIMS"
DEFAULT_TOKEN = "enginehouse"
"""What clients of this machine show as their token; any text will do."""
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Wiring:
    """What the variables are made of.

    Attributes:
        engine_url: the plain port of the APIs, without a slash at its end.
        gateway_url: the gateway, `http://HOST:PORT`; None for endpoint overrides without proxy and CA (`--plain`).
        project: the project that clients use when none is given.
        bundle: all certificates, see `trust`.
        authority: our certificate alone.
        files: the directory of `credentials.write_client_files`.
        token: the engine's token; needed by clients on other machines only.
        shims: a directory to put first in PATH, None for none.
        direct_hosts: hosts to reach past the proxy, such as the nodes of a cluster, whose gRPC obeys `https_proxy`.
        fast_tensorflow: give CURL_CA_BUNDLE our certificate alone. TensorFlow reads the file anew for each request,
            so this is faster, but `curl` then trusts no other host: good for a training process, not for a shell.
    """

    engine_url: str
    gateway_url: str | None
    project: str
    bundle: Path
    authority: Path
    files: Path
    token: str = ""
    shims: Path | None = None
    direct_hosts: tuple[str, ...] = ()
    fast_tensorflow: bool = False

    @property
    def proxy_url(self) -> str:
        """The gateway as a proxy, with the token as its password if there is one."""
        url = self.gateway_url or ""
        return url.replace("://", f"://enginehouse:{quote(self.token, safe='')}@", 1) if self.token else url

    @property
    def bearer(self) -> str:
        """The token that clients send to the APIs."""
        return self.token or DEFAULT_TOKEN


@dataclass(frozen=True)
class Variable:
    """One row of the table.

    Attributes:
        value: None clears the variable.
        gateway, plain: in which of the two ways of wiring it has a part.
        keep: whether a value that is there already stays.
    """

    name: str
    value: Callable[[Wiring], str] | None
    reason: str
    gateway: bool = True
    plain: bool = True
    keep: bool = False


def _gateway(name: str, value: Callable[[Wiring], str] | None, reason: str, *, keep: bool = False) -> Variable:
    return Variable(name, value, reason, plain=False, keep=keep)


def _plain(name: str, value: Callable[[Wiring], str], reason: str) -> Variable:
    return Variable(name, value, reason, gateway=False)


def _both(name: str, value: Callable[[Wiring], str] | None, reason: str, *, keep: bool = False) -> Variable:
    return Variable(name, value, reason, keep=keep)


def _bundle(wiring: Wiring) -> str:
    return str(wiring.bundle)


def _proxy(wiring: Wiring) -> str:
    return wiring.proxy_url


def _project(wiring: Wiring) -> str:
    return wiring.project


_PROXY = "The gateway answers for Google's API hosts and tunnels all others untouched"

VARIABLES: tuple[Variable, ...] = (
    _gateway("https_proxy", _proxy, f"{_PROXY}; TensorFlow's `gs://` has no other way"),
    _gateway("HTTPS_PROXY", _proxy, "The same for clients that read upper case first"),
    _gateway("http_proxy", _proxy, "The metadata server is asked in plain http"),
    _gateway("HTTP_PROXY", _proxy, "The same for clients that read upper case first"),
    _gateway(
        "CURL_CA_BUNDLE",
        lambda w: str(w.authority if w.fast_tensorflow else w.bundle),
        "curl, and TensorFlow 2.x, which reads no other",
    ),
    _gateway("SSL_CERT_FILE", _bundle, "OpenSSL: Python's ssl and with it gcsfs, Go, Ruby"),
    _gateway(
        "REQUESTS_CA_BUNDLE", _bundle, "requests: google-auth, google-cloud-*, gcloud, where it beats its property"
    ),
    _gateway("HTTPLIB2_CA_CERTS", _bundle, "httplib2: google-api-python-client, gsutil"),
    _gateway("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", _bundle, "gRPC to hosts that are tunnelled keeps working"),
    _gateway("NODE_EXTRA_CA_CERTS", _bundle, "Node.js"),
    _gateway("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", _bundle, "gcloud and its gsutil, where it beats the boto file"),
    _both("CLOUDSDK_CONFIG", lambda w: str(w.files / "gcloud"), "gcloud's own settings and accounts stay untouched"),
    _both(
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
        lambda w: str(w.files / "token"),
        "gcloud refuses to run without an account or this; no login is asked for",
    ),
    _both("CLOUDSDK_CORE_PROJECT", _project, "gcloud's project"),
    _both("CLOUDSDK_CORE_DISABLE_PROMPTS", lambda _: "1", "gcloud asks no questions, as in a script", keep=True),
    _both("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", lambda _: "true", "gcloud makes no calls of its own"),
    _both("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", lambda _: "true", "gcloud makes no calls of its own"),
    _both(
        "CLOUDSDK_ML_ENGINE_POLLING_INTERVAL",
        lambda _: "2",
        "Seconds between looks at a job's log; gcloud's 60 were meant for a far server",
        keep=True,
    ),
    _both("BOTO_CONFIG", lambda w: str(w.files / "boto"), "gsutil: proxy, certificates, project, credentials"),
    _both("GOOGLE_CLOUD_PROJECT", _project, "Google's Python clients"),
    _both("GCLOUD_PROJECT", _project, "Google's older Python clients"),
    _both(
        "GOOGLE_APPLICATION_CREDENTIALS",
        lambda w: str(w.files / "service-account.json"),
        "Google's clients refuse to start without credentials; these are good for this engine alone",
    ),
    _both("NO_GCE_CHECK", lambda _: "true", "TensorFlow and google-auth don't look for a metadata server"),
    _both("GOOGLE_CLOUD_DISABLE_GRPC", lambda _: "true", "google-cloud-logging speaks REST; gRPC is not answered"),
    _gateway(
        "GOOGLE_AUTH_TOKEN_FOR_TESTING",
        lambda w: w.bearer,
        "TensorFlow: without it each file operation waits for a metadata server, in 1.8 for ever",
    ),
    _gateway(
        "GCS_READAHEAD_BUFFER_SIZE_BYTES",
        lambda _: "1048576",
        "TensorFlow: opening and reading a small file took 33 ms, with it 2 ms",
        keep=True,
    ),
    _gateway(
        "GCS_READ_CACHE_MAX_SIZE_MB",
        lambda _: "64",
        "TensorFlow 1.15 reads a training file again each epoch: 27 s, with it 7 s. Its staleness is left at 0: a "
        "stale checkpoint file breaks distributed training",
        keep=True,
    ),
    _gateway("GCS_READ_CACHE_BLOCK_SIZE_MB", lambda _: "4", "As above", keep=True),
    _gateway(
        "FSSPEC_GCS",
        lambda _: json.dumps({"session_kwargs": {"trust_env": True}}),
        "gcsfs and pandas: aiohttp obeys https_proxy only when told to",
    ),
    _both(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT",
        lambda _: "false",
        "gcsfs from 2026 would ask for each bucket's kind by gRPC, and wait a minute for the answer",
    ),
    _both("ENGINEHOUSE_URL", lambda w: w.engine_url, "mle and the SDK use the same engine"),
    _both("ENGINEHOUSE_PROJECT", _project, "mle's project"),
    _plain("CLOUDSDK_API_ENDPOINT_OVERRIDES_ML", lambda w: f"{w.engine_url}/", "gcloud ai-platform"),
    _plain("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", lambda w: f"{w.engine_url}/storage/v1/", "gcloud storage"),
    _plain("CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING", lambda w: f"{w.engine_url}/", "gcloud stream-logs"),
    _plain(
        "CLOUDSDK_AI_PLATFORM_REGION",
        lambda _: "global",
        "gcloud would put the region before the engine's host, which nobody resolves",
    ),
    _plain("STORAGE_EMULATOR_HOST", lambda w: w.engine_url, "google-cloud-storage, gcsfs, pandas"),
    Variable(
        "FSSPEC_GCS",
        lambda _: json.dumps({"token": "anon"}),
        "gcsfs and pandas: no credentials for an emulator",
        gateway=False,
    ),
    *(
        _gateway(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}", None, "Would lead gcloud past the gateway")
        for api in ("ML", "STORAGE", "LOGGING")
    ),
    *(
        _both(f"CLOUDSDK_PROXY_{name}", None, "Would beat https_proxy in gcloud")
        for name in ("TYPE", "ADDRESS", "PORT", "RDNS", "USERNAME", "PASSWORD")
    ),
    _gateway("STORAGE_EMULATOR_HOST", None, "Would lead google-cloud-storage past the gateway"),
    _both("BOTO_PATH", None, "Would add other boto files to ours"),
    _both("CLOUDSDK_ACTIVE_CONFIG_NAME", None, "Names a configuration that is not in our CLOUDSDK_CONFIG"),
    _both("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", None, "Would keep gcloud from sending the token"),
    _both("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", None, "Would beat our token with a real account"),
    _both("CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT", None, "Would beat our token with a real account"),
    _both("CLOUDSDK_CORE_UNIVERSE_DOMAIN", None, "Would change the host names"),
    _both("GOOGLE_CLOUD_UNIVERSE_DOMAIN", None, "Would change the host names"),
    _both("GOOGLE_API_USE_CLIENT_CERTIFICATE", None, "Would change the host names to *.mtls.googleapis.com"),
    _both("GOOGLE_API_USE_MTLS_ENDPOINT", None, "Would change the host names to *.mtls.googleapis.com"),
    _both("GCE_METADATA_HOST", None, "Would lead to another metadata server"),
    _both("GCE_METADATA_ROOT", None, "Would lead to another metadata server"),
    _both("GCE_METADATA_IP", None, "Would lead to another metadata server"),
)


@dataclass(frozen=True)
class Change:
    """What to do to an environment: variables to set, and variables to take away."""

    set: dict[str, str]
    unset: tuple[str, ...]

    def apply(self, environ: Mapping[str, str]) -> dict[str, str]:
        """A copy of `environ` with the change made, for a child process."""
        changed = {name: value for name, value in environ.items() if name not in self.unset}
        return changed | self.set


def wire(wiring: Wiring, environ: Mapping[str, str]) -> Change:
    """What turns `environ`, wired already or not, into one whose clients talk to the engine."""
    before = original_environment(environ)
    wanted: dict[str, str | None] = {}
    for variable in VARIABLES:
        takes_part = variable.gateway if wiring.gateway_url is not None else variable.plain
        if not takes_part or (variable.keep and variable.name in before):
            continue
        if variable.value is not None:
            wanted[variable.name] = variable.value(wiring)
        elif variable.name in before:
            wanted[variable.name] = None
    no_proxy = _no_proxy(wiring, before)
    wanted |= {"no_proxy": no_proxy, "NO_PROXY": no_proxy}

    after = {name: value for name, value in before.items() if name not in wanted}
    after |= {name: value for name, value in wanted.items() if value is not None}
    after |= {OLD_PREFIX + name: before[name] for name in wanted if name in before}
    after[WIRED_VARIABLE] = ":".join(sorted(wanted))
    if wiring.shims is not None:
        after["PATH"] = os.pathsep.join([str(wiring.shims), before.get("PATH", os.defpath)])
        after[SHIMS_VARIABLE] = str(wiring.shims)
    return _difference(environ, after)


def unwire(environ: Mapping[str, str]) -> Change:
    """What takes our variables out of `environ` and puts the earlier values back; nothing when it is not wired."""
    return _difference(environ, original_environment(environ))


def original_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was before it was wired; a copy of it if it was not."""
    changed = environ.get(WIRED_VARIABLE, "").split(":")
    original = {
        name: value
        for name, value in environ.items()
        if name not in changed and not name.startswith(OLD_PREFIX) and name not in (WIRED_VARIABLE, SHIMS_VARIABLE)
    }
    for name in changed:
        if OLD_PREFIX + name in environ and _VARIABLE_NAME.fullmatch(name):
            original[name] = environ[OLD_PREFIX + name]
    shims = environ.get(SHIMS_VARIABLE)
    if shims and "PATH" in original:  # only this entry goes: others may have come since
        entries = original["PATH"].split(os.pathsep)
        original["PATH"] = os.pathsep.join(entry for entry in entries if entry != shims)
    return original


def variables_table() -> str:
    """The table as Markdown."""
    lines = ["| variable | gateway | `--plain` | why |", "|---|---|---|---|"]
    for variable in VARIABLES:
        mark = "cleared" if variable.value is None else "set, if it is not" if variable.keep else "set"
        ways = [mark if part else "" for part in (variable.gateway, variable.plain)]
        lines.append(f"| `{variable.name}` | {ways[0]} | {ways[1]} | {variable.reason} |")
    lines.append(
        "| `no_proxy`, `NO_PROXY` | set | set | This machine and the engine are reached directly; entries that hide "
        "Google's API hosts from the gateway are left out |"
    )
    return "\n".join(lines) + "\n"


def _no_proxy(wiring: Wiring, before: Mapping[str, str]) -> str:
    """The hosts to reach directly: what was there before, but for entries that hide our hosts from the gateway."""
    given = [name.strip() for key in ("no_proxy", "NO_PROXY") for name in before.get(key, "").split(",")]
    if wiring.gateway_url is not None:
        given = [name for name in given if not _hides_our_hosts(name)]
    engine_host = urlsplit(wiring.engine_url).hostname or ""
    return ",".join(_unique([*_LOCAL, engine_host, *wiring.direct_hosts, *given]))


def _hides_our_hosts(entry: str) -> bool:
    name = entry.lower().removeprefix("*").removeprefix(".").partition(":")[0]
    domains = ("google.com", "googleapis.com", "google.internal", "com", "internal")
    return entry == "*" or name in domains or find_rule(name) is not None


def _unique(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _difference(before: Mapping[str, str], after: Mapping[str, str]) -> Change:
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    gone = tuple(sorted(name for name in before if name not in after))
    return Change(dict(sorted(changed.items())), gone)
