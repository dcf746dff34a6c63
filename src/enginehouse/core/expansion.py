"""References to variables in the words of a container, by Kubernetes' rules."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([^()]+)\)")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with every `$(NAME)` replaced by the variable's value; `$$` stands for `$`.

    A reference to what is no variable stays as it is. (Kubernetes, "Define Dependent Environment Variables".)
    """

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    return _REFERENCE.sub(value, text)
