"""Field names between the wire's JSON (`packageUris`) and error paths and masks (`package_uris`)."""

from __future__ import annotations

import re


def snake_case(name: str) -> str:
    """`packageUris` → `package_uris`; dots and what is snake case already stay."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), name)


def camel_case(name: str) -> str:
    """`package_uris` → `packageUris`; takes one name, without dots."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
