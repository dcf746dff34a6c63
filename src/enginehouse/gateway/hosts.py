"""Which hosts the engine answers for. Every other host is none of the gateway's business and is tunnelled untouched.

`HOSTS` is the one table: the proxy decides by it, the CA is limited to it, and the documentation is made from it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

from enginehouse.gateway.errors import BadRequest

_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_MAX_HOST_CHARACTERS = 253


@dataclass(frozen=True)
class HostRule:
    """One row of the table.

    Attributes:
        name: a host, or `*.HOST` for the names below it, or `*-HOST` for names that put a region before it.
        reason: who asks for it.
        paths: what the engine answers there; all if None. Other paths are passed on to the real host.
    """

    name: str
    reason: str
    paths: re.Pattern[str] | None = None

    def matches(self, host: str) -> bool:
        """Whether the rule is for `host`, which is in lower case."""
        if self.name.startswith("*"):
            label = host.removesuffix(self.name[1:])
            return label not in (host, "") and ("." not in label or self.name[1] == ".")
        return host == self.name

    def serves(self, path: str) -> bool:
        """Whether the engine answers for a path of the host, given with or without its query."""
        return self.paths is None or self.paths.match(path) is not None


_STORAGE_PATHS = r"/(?:storage|upload|download|resumable|batch)(?:[/?]|$)"
_METADATA_PATHS = re.compile(r"/(?:$|\?|computeMetadata(?:[/?]|$)|0\.1/)")

HOSTS: tuple[HostRule, ...] = (
    HostRule("ml.googleapis.com", "ml v1: gcloud, google-api-python-client"),
    HostRule("*-ml.googleapis.com", "ml v1 at a region: gcloud --region puts REGION- before the host"),
    HostRule("storage.googleapis.com", "storage: gsutil, gcloud, google-cloud-storage, gcsfs; TensorFlow reads here"),
    HostRule("*.storage.googleapis.com", "storage: a bucket's own host name"),
    HostRule("storage-download.googleapis.com", "storage: a host for downloads alone"),
    HostRule("storage-upload.googleapis.com", "storage: a host for uploads alone"),
    HostRule("commondatastorage.googleapis.com", "storage: the name in old boto and gsutil settings"),
    HostRule("*.commondatastorage.googleapis.com", "storage: a bucket's own host name, the old way"),
    HostRule(
        "www.googleapis.com",
        "storage: TensorFlow lists and writes here, as old clients do; old discovery documents and token exchange. "
        "Google's other APIs at this host are passed on",
        re.compile(_STORAGE_PATHS + r"|/(?:discovery|oauth2|ml)(?:[/?]|$)"),
    ),
    HostRule("logging.googleapis.com", "logs: gcloud stream-logs, google-cloud-logging"),
    HostRule("oauth2.googleapis.com", "token exchange of service accounts and users"),
    HostRule(
        "accounts.google.com",
        "token exchange of old clients; pages for people are passed on",
        re.compile(r"/o/oauth2/(?:token|revoke)(?:[/?]|$)"),
    ),
    HostRule("iamcredentials.googleapis.com", "signed URLs and tokens of service accounts"),
    HostRule("serviceusage.googleapis.com", "gcloud asks whether an API is enabled"),
    HostRule("cloudresourcemanager.googleapis.com", "gcloud and clients look their project up"),
    HostRule("metadata.google.internal", "metadata server: tokens and project of a machine", _METADATA_PATHS),
    HostRule("metadata", "metadata server: the short name, of TensorFlow 1.x", _METADATA_PATHS),
    HostRule(
        "169.254.169.254",
        "metadata server: its address; what other clouds keep there is passed on",
        _METADATA_PATHS,
    ),
)


@functools.lru_cache(maxsize=1024)
def find_rule(host: str) -> HostRule | None:
    """The rule for `host`, or None when it is not ours. Case and one dot at the end don't matter."""
    host = host.lower().removesuffix(".")
    return next((rule for rule in HOSTS if rule.matches(host)), None)


def permitted_names() -> tuple[list[str], list[str]]:
    """What a CA for these hosts must be able to sign: domains (each with all names below it), and IP addresses.

    The `*-ml.` names can't be told from their siblings by a constraint, so `googleapis.com` as a whole is in.
    """
    names = {"googleapis.com"}
    addresses = []
    for rule in HOSTS:
        if _is_address(rule.name):
            addresses.append(rule.name)
        elif not rule.name.endswith(".googleapis.com"):
            names.add(rule.name)
    return sorted(names), addresses


def split_authority(authority: str, default_port: int | None) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`; the host in lower case, without a dot at its end.

    Args:
        default_port: where none is given; None if one must be.

    Raises:
        BadRequest: it is nothing of the kind, has a user in it, or the port is none.
    """
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or not _is_address(host):
            raise BadRequest(f"{authority!r} is not a host.")
        port = port[1:] if port else ""
    else:
        host, _, port = authority.partition(":")
        host = host.lower().removesuffix(".")
        if not _HOST.fullmatch(host) or len(host) > _MAX_HOST_CHARACTERS:
            raise BadRequest(f"{authority[:300]!r} is not a host.")
    if not port and default_port is not None:
        return host, default_port
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise BadRequest(f"{authority[:300]!r} has no port where one should be.")
    return host, int(port)


def hosts_table() -> str:
    """The table as Markdown."""
    rows = [f"| `{rule.name}` | {rule.reason} |" for rule in HOSTS]
    return "\n".join(["| host | why |", "|---|---|", *rows]) + "\n"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
