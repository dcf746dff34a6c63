import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from enginehouse.runtimes.requirements import is_satisfied, normalise, requirement_name

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
HAVE = {"numpy": "2.4.6", "scikit-learn": "1.9.1", "odd": "1.0.post1"}


@pytest.mark.parametrize(
    ("requirement", "answer"),
    [
        ("numpy", True),
        ("NumPy >= 1.20, < 3", True),
        ("numpy (>=1.20)", True),
        ("numpy<2", False),
        ("numpy==2.4.*", True),
        ("numpy!=2.4.*", False),
        ("numpy~=2.4", True),
        ("numpy~=2.5", False),
        ("numpy===2.4.6", True),
        ("scikit_learn>=1.9.1", True),
        ("absent", False),
        ("absent; extra == 'test'", True),
        ("absent; python_version >= '3' and extra == 'test'", True),
        ("absent; python_version < '3'", True),
        ("absent; sys_platform == 'win32'", True),
        ("numpy; sys_platform == 'linux'", True),
        ("odd", True),
        ("odd>=1", None),
        ("numpy>=2rc1", None),
        ("numpy[extra]>=1", None),
        ("numpy @ https://example.com/numpy.whl", None),
        ("absent; python_version < '3' or sys_platform == 'win32'", None),
        ("absent; implementation_name == 'pypy'", None),
        ("-r requirements.txt", None),
        ("", None),
    ],
)
def test_certain_cases(requirement: str, answer: bool | None) -> None:
    assert is_satisfied(requirement, HAVE, OWN) is answer


VERSIONS = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
SPECIFIERS = st.lists(
    st.tuples(
        st.sampled_from(["==", "!=", "<=", ">=", "<", ">", "~="]), VERSIONS, st.sampled_from(["", ".*"])
    ).filter(lambda parts: (not parts[2] or parts[0] in ("==", "!=")) and (parts[0] != "~=" or "." in parts[1])),
    max_size=3,
).map(lambda parts: ",".join("".join(part) for part in parts))
MARKERS = st.sampled_from(
    ["", "; python_version >= '3.8'", '; python_version == "3.*"', "; python_version < '3.12' and os_name == 'posix'",
     "; extra == 'x'", "; platform_system != 'Windows'", "; python_version > '2.7' or extra == 'x'"]
)  # fmt: skip


@given(VERSIONS, SPECIFIERS, MARKERS)
def test_agrees_with_packaging_whenever_it_is_certain(version: str, specifiers: str, marker: str) -> None:
    text = f"numpy{specifiers}{marker}"
    answer = is_satisfied(text, {"numpy": version}, OWN)
    oracle = Requirement(text)
    applies = oracle.marker is None or oracle.marker.evaluate({"extra": ""})
    if answer is not None:
        assert answer == (not applies or oracle.specifier.contains(Version(version))), text


def test_names() -> None:
    assert normalise("Scikit_Learn.x") == "scikit-learn-x"
    assert requirement_name(" My_Lib[extra]>=1; x") == "my-lib"
    assert requirement_name("-r x") == ""
