"""Calling uv, and pip where uv can't go: hands them the host's package settings, turns their failures into words."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.runtimes.cache import Progress
from enginehouse.runtimes.errors import RuntimeBuildError, RuntimesError

METADATA_REPAIRS = Path(__file__).with_name("metadata_repairs.toml")
"""What uv is to take for the metadata of old packages that it refuses to read."""

_MAX_WORDS_CHARS = 8000
_SUMMARY = re.compile(r"(Resolved|Prepared|Installed|Downloading|Building|Built|Successfully built|warning:)\b")
_NO_NETWORK = re.compile(
    r"dns error|failed to lookup|connection refused|tcp connect|error sending request|timed out|unreachable",
    re.IGNORECASE,
)


class Uv:
    """A uv binary with the environment to run it in.

    Args:
        binary: its path; None when the host has none, which only matters once it is needed.
        environ: the host's environment.
    """

    def __init__(self, binary: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        self._binary = binary
        self._environ = environ

    def run(
        self,
        *arguments: str | Path,
        doing: str,
        directory: Path,
        progress: Progress | None = None,
        error: type[RuntimesError] = RuntimeBuildError,
    ) -> list[str]:
        """Run one uv command to its end.

        Args:
            doing: what fails if it fails: "Building runtime 2.21".
            directory: where it runs; no project of the user's may lie there.
            progress: gets uv's summary lines as they come.
            error: the class to raise.

        Returns:
            All lines that uv wrote.

        Raises:
            RuntimesError: of class `error`, with uv's own words.
        """
        if self._binary is None:
            raise error(f"{doing} failed: uv was not found. Install it with `pip install uv`.")
        command = [self._binary, *arguments]
        return run_tool(command, self._environment(), doing, directory, _SUMMARY, progress, error)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in self._environ.items() if not name.startswith("PYTHON")}
        kept.pop("VIRTUAL_ENV", None)
        repairs = {} if _is_configured(self._environ) else {"UV_CONFIG_FILE": str(METADATA_REPAIRS)}
        told = {**repairs, **settings_from_pip(self._environ), **kept}
        return {**told, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}


def run_tool(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    doing: str,
    directory: Path,
    summary: re.Pattern[str],
    progress: Progress | None,
    error: type[RuntimesError],
) -> list[str]:
    """Run a tool to its end; its lines that match `summary` go to `progress` as they come. Else as `Uv.run`."""
    lines: list[str] = []
    try:
        with subprocess.Popen(
            list(map(str, command)),
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if progress and summary.match(line):
                    progress(line.rstrip())
    except OSError as failure:
        raise error(f"{doing} failed: {failure}") from failure
    if process.returncode:
        raise error(_words(Path(command[0]).name, doing, process.returncode, lines))
    return lines


def settings_from_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip is told on this host (pip.conf, PIP_*), in uv's variables, for a host where uv itself is told nothing.

    Index, extra indexes, find-links, certificate, proxy, timeout and trusted hosts are understood. uv's own
    variables or its uv.toml win as a whole, since someone who wrote them meant uv.
    """
    if any(name in environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")) or _is_configured(environ):
        return {}
    home, config_home = _homes(environ)
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    if environ.get("PIP_CONFIG_FILE"):
        files.append(Path(environ["PIP_CONFIG_FILE"]))
    said: dict[str, str] = {}
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        parser.clear()  # pip itself would complain; uv need not
    for section in ("global", "install"):
        if parser.has_section(section):
            said.update(parser.items(section))
    said.update({name[4:].lower().replace("_", "-"): value for name, value in environ.items() if name[:4] == "PIP_"})
    answer = {variable: said[name].split() for name, variable in _PIP_NAMES.items() if said.get(name, "").strip()}
    if "UV_INDEX" in answer:  # pip takes the best version of all indexes, uv by itself the first index that has any
        answer["UV_INDEX_STRATEGY"] = ["unsafe-best-match"]
    return {name: ("," if name == "UV_FIND_LINKS" else " ").join(words) for name, words in answer.items()}


def settings_for_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The reverse: what uv is told by variables, in pip's, where pip is told nothing itself."""
    said = {
        f"PIP_{name.upper().replace('-', '_')}": environ[variable].replace(",", " ")
        for name, variable in _PIP_NAMES.items()
        if environ.get(variable) and variable.startswith("UV_")
    }
    return {**said, **({"PIP_NO_INDEX": "1"} if environ.get("UV_OFFLINE") else {})}


def _homes(environ: Mapping[str, str]) -> tuple[Path, Path]:
    home = Path(environ.get("HOME", "/"))
    return home, Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _is_configured(environ: Mapping[str, str]) -> bool:
    """Whether uv has a configuration file of the host's."""
    own = _homes(environ)[1] / "uv/uv.toml"
    return "UV_CONFIG_FILE" in environ or own.exists() or Path("/etc/uv/uv.toml").exists()


_PIP_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}


def _words(tool: str, doing: str, status: int, lines: Sequence[str]) -> str:
    said = "\n".join(line for line in lines if line and not line.startswith("Using Python"))
    if len(said) > _MAX_WORDS_CHARS:
        said = "…" + said[-_MAX_WORDS_CHARS:]
    text = f"{doing} failed ({tool} ended with status {status}):\n{said}"
    if _NO_NETWORK.search(said):
        text += (
            "\nThe package index could not be reached. Check the host's network, or its pip and uv index settings."
        )
    return text
