"""Where the logs of a served version lie, which the serving room writes and the logging API reads."""

from __future__ import annotations

from pathlib import Path

ACCESS, CONSOLE = "access", "console"
"""A line for each request, and what the model's code prints."""


def version_log_path(logs_dir: Path, uid: str, kind: str) -> Path:
    """The segment of one log of the version with that uid.

    Args:
        kind: ACCESS or CONSOLE.
    """
    return logs_dir / f"{uid}.{kind}.jsonl"
