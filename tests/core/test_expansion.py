"""References to variables, by the examples of Kubernetes' own rules."""

import pytest

from enginehouse.core.expansion import expand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)-$(B)$(A)", "1".join(["x", "-two"]) + "1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A ${A} $() $(A", "$A ${A} $() $(A"),
        ("cost: 5$$", "cost: 5$"),
        ("$(C)", "$(A)"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "two", "C": "$(A)"}) == expected
