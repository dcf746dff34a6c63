"""Where the engine is: an explicit URL, `ENGINEHOUSE_URL`, or the engine file of the data directory.

Several engines live side by side, one per data directory; the directory is the name a user gives to an engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.files import is_locked, read_json
from enginehouse.core.settings import Settings
from enginehouse.sdk.errors import EngineUnreachable

URL_VARIABLE = "ENGINEHOUSE_URL"


@dataclass(frozen=True)
class EngineFile:
    """What a running engine wrote about itself."""

    url: str
    pid: int
    grpc_address: str | None = None


def explicit_url(url: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The URL that was given by argument or environment, without a slash at its end; None when none was.

    Raises:
        InvalidArgument: it is not an http(s) URL.
    """
    given = url or environ.get(URL_VARIABLE) or None
    if given is None:
        return None
    if not given.startswith(("http://", "https://")):
        raise InvalidArgument(f"{given!r} is not an engine's URL; write it as http://HOST:PORT.", field="url")
    return given.rstrip("/")


def running_engine(settings: Settings) -> EngineFile | None:
    """The engine that runs on this data directory now, or None.

    The engine file alone proves nothing, since a killed engine leaves it behind; the lock dies with its holder.
    """
    told = read_json(settings.engine_file)
    if not isinstance(told, dict) or "url" not in told or not is_locked(settings.lock_path):
        return None
    return EngineFile(url=str(told["url"]).rstrip("/"), pid=int(told.get("pid", 0)))


def find_url(settings: Settings, url: str | None = None) -> str:
    """The URL of the engine to speak to.

    Raises:
        EngineUnreachable: no URL was given and no engine runs on the data directory.
    """
    if given := explicit_url(url):
        return given
    engine = running_engine(settings)
    if engine is None:
        raise no_engine(settings)
    return engine.url


def no_engine(settings: Settings) -> EngineUnreachable:
    """The error for a data directory without a running engine, with its cure."""
    default = Path("~/.enginehouse").expanduser()
    flag = "" if settings.data_dir == default else f" --data-dir {settings.data_dir}"
    return EngineUnreachable(
        f"No engine is running on {shown(settings.data_dir)}. Start one with: mle up --detach{flag}"
    )


def shown(path: Path) -> str:
    """A path as people write it: `~/.enginehouse`."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path != home and path.is_relative_to(home) else str(path)
