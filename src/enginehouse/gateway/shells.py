"""A change of the environment in the words of a shell, for `eval "$(mle env)"`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from enginehouse.core.errors import InvalidArgument
from enginehouse.gateway.environment import Change

SHELLS = ("bash", "zsh", "fish")


def shell_of(environ: Mapping[str, str]) -> str:
    """The user's login shell if it is one of `SHELLS`, else bash, whose words most others understand."""
    name = PurePath(environ.get("SHELL", "")).name
    return name if name in SHELLS else "bash"


def render(change: Change, shell: str) -> str:
    """Commands that make the change, one a line.

    Args:
        shell: one of `SHELLS`.

    Raises:
        InvalidArgument: another shell.
    """
    if shell == "fish":
        lines = [f"set -e {name};" for name in change.unset]
        lines += [f"set -gx {name} {_fish_quote(value)};" for name, value in change.set.items()]
    elif shell in SHELLS:
        lines = [f"unset {name}" for name in change.unset]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in change.set.items()]
    else:
        raise InvalidArgument(f"{shell!r} is not one of {', '.join(SHELLS)}.", field="shell")
    return "".join(f"{line}\n" for line in lines)


def _fish_quote(text: str) -> str:
    r"""In fish's single quotes, only the quote itself and the backslash can be escaped."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
