"""Durations, timestamps and sizes between the wire's text and numbers with a unit."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime

_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:([Zz])|([+-])(\d\d):?(\d\d))"
)


def parse_duration_s(text: str) -> float:
    """`"7200s"` or `"3.5s"` (google.protobuf.Duration) in seconds.

    Raises:
        ValueError: the text is no duration; the message says what one looks like.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write seconds followed by 's', such as \"3600s\"")
    sign, whole, fraction = match.groups()
    value = int(whole) + (float("0." + fraction) if fraction else 0.0)
    return -value if sign else value


def format_duration(seconds: float) -> str:
    """Seconds as google.protobuf.Duration text: `"7200s"`, `"3.5s"`."""
    text = f"{seconds:.9f}".rstrip("0").rstrip(".")
    return text + "s"


def format_time(time_ns: int, *, digits: int = 0) -> str:
    """Nanoseconds since the epoch as RFC 3339 UTC with `digits` (0..9) decimals, always the same width."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    text = _format_second(seconds)
    if digits:
        text += "." + f"{nanos:09d}"[:digits]
    return text + "Z"


@functools.lru_cache(maxsize=1024)
def _format_second(time_s: int) -> str:
    # What is listed together was often made together.
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time_ns(text: str) -> int:
    """RFC 3339 text, with or without a colon in the offset, in nanoseconds since the epoch.

    Raises:
        ValueError: the text is no timestamp.
    """
    match = _RFC3339.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not an RFC 3339 timestamp, such as 2026-01-31T12:00:00Z")
    *date, fraction, _zulu, sign, hours, minutes = match.groups()
    moment = datetime(*(int(part) for part in date), tzinfo=UTC)  # type: ignore[misc, arg-type]
    offset_s = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    nanos = int((fraction or "0").ljust(9, "0"))
    return (int(moment.timestamp()) - offset_s) * 1_000_000_000 + nanos


def format_size(size_bytes: float) -> str:
    """Bytes for people: `"512 B"`, `"1.5 KiB"`, `"12.0 GiB"`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size_bytes < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")


def format_elapsed(seconds: float) -> str:
    """A span for people: `"0.8 s"`, `"42 s"`, `"3 min 05 s"`, `"2 h 10 min"`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
