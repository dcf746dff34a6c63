"""Judges `Requires-Dist` lines against what is installed, as far as that is plain; the rest is left to uv.

A resolver needs most of a second to start, and nearly all trainers ask for nothing, or for `numpy>=1.20` that the
runtime has. These few rules of PEP 440 and PEP 508 decide such cases; every answer other than a certain one is
None.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping

_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\(([^();]*)\)|([^();@\[]*))\s*(?:;(.*))?"
)
_SPECIFIER = re.compile(r"(~=|===?|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_CLAUSE = re.compile(r"""\s*([a-z_]+)\s*(==|!=|<=|>=|<|>)\s*(?:'([^']*)'|"([^"]*)")\s*""")


def normalise(name: str) -> str:
    """A distribution's name as PEP 503 writes it: `Scikit_Learn` is `scikit-learn`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    """The normalised name that a requirement begins with, "" where it begins with none."""
    match = re.match(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", requirement.strip())
    return normalise(match[0]) if match else ""


def is_satisfied(requirement: str, installed: Mapping[str, str], python_version: str) -> bool | None:
    """Whether `installed` meets a requirement.

    Args:
        requirement: one PEP 508 line.
        installed: version by normalised name.
        python_version: "3.11", for markers.

    Returns:
        True or False where that is certain, None where only a resolver can tell (extras, URLs, pre-releases, markers
        beyond simple comparisons).
    """
    match = _REQUIREMENT.fullmatch(requirement.strip())
    if not match:
        return None
    name, in_parentheses, bare, marker = match.groups()
    if marker is not None:
        applies = _marker_applies(marker, python_version)
        if applies is not True:
            return True if applies is False else None
    version = installed.get(normalise(name))
    if version is None:
        return False
    return version_matches(version, in_parentheses or bare or "")


def version_matches(version: str, specifiers: str) -> bool | None:
    """Whether a version meets comma-separated specifiers; None where one of them is no plain release number."""
    if not _RELEASE.fullmatch(version):
        return None if specifiers.strip() else True
    answers = [_matches(version, text.strip()) for text in specifiers.split(",") if text.strip()]
    if None in answers:
        return None
    return all(answers)


def _matches(version: str, specifier: str) -> bool | None:
    match = _SPECIFIER.fullmatch(specifier)
    if not match:
        return None
    operator, wanted_text, star = match.groups()
    have, wanted = _release(version), _release(wanted_text)
    if star:
        if operator not in ("==", "!="):
            return None
        same = (have + (0,) * len(wanted))[: len(wanted)] == wanted
        return same if operator == "==" else not same
    if operator == "===":
        return version == wanted_text
    if operator == "~=":
        if len(wanted) < 2:
            return None
        prefix = wanted[:-1]
        return _compare(have, wanted) >= 0 and (have + (0,) * len(prefix))[: len(prefix)] == prefix
    order = _compare(have, wanted)
    return {"==": order == 0, "!=": order != 0, "<=": order <= 0, ">=": order >= 0, "<": order < 0, ">": order > 0}[
        operator
    ]


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _compare(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """-1, 0 or 1; missing parts count as zero."""
    width = max(len(left), len(right))
    left, right = left + (0,) * (width - len(left)), right + (0,) * (width - len(right))
    return (left > right) - (left < right)


def _marker_applies(marker: str, python_version: str) -> bool | None:
    """Whether a marker of simple clauses joined by `and` is true; an `extra` is never asked for."""
    known = {
        "python_version": python_version,
        "sys_platform": sys.platform,
        "os_name": os.name,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "extra": "",
    }
    answers: list[bool | None] = []
    for text in re.split(r"\band\b", marker):
        clause = _CLAUSE.fullmatch(text)
        if not clause or clause[1] not in known:
            answers.append(None)
            continue
        have, operator, wanted = known[clause[1]], clause[2], clause[3] if clause[3] is not None else clause[4]
        if clause[1] == "python_version":
            answers.append(version_matches(have, operator + wanted))
        elif operator in ("==", "!="):
            answers.append((have == wanted) == (operator == "=="))
        else:
            answers.append(None)
    if False in answers and not re.search(r"\bor\b", marker):
        return False
    return None if None in answers else True
