"""Control groups: which may be used, and what is written there; by the kernel itself where it permits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.replica import cgroup
from enginehouse.replica.cgroup import ControlGroup, find_parent, usable_parent

MOUNTS = """\
24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""


def make_group(path: Path, *, controllers: str = "cpu memory pids", handed_down: str = "") -> Path:
    path.mkdir(parents=True)
    (path / "cgroup.procs").touch()
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text(handed_down)
    return path


@pytest.mark.parametrize(
    ("membership", "root", "own"),
    [
        ("0::/user.slice/app.scope\n", "/", "/sys/fs/cgroup/user.slice/app.scope"),
        ("0::/\n", "/", "/sys/fs/cgroup"),
        ("4:memory:/x\n0::/docker/1/sub\n", "/docker/1", "/sys/fs/cgroup/sub"),
        ("0::/docker/1\n", "/docker/1", "/sys/fs/cgroup"),
        ("0::/elsewhere\n", "/docker/1", None),
        ("4:memory:/x\n", "/", None),
    ],
)
def test_own_group_is_found(membership: str, root: str, own: str | None) -> None:
    found = cgroup._own_group(membership, MOUNTS.format(root=root))
    assert found == (None if own is None else (Path(own), Path("/sys/fs/cgroup")))


def test_the_nearest_group_that_hands_memory_down_is_used(tmp_path: Path) -> None:
    top = make_group(tmp_path / "top", handed_down="cpu memory")
    middle = make_group(top / "middle", handed_down="memory")
    own = make_group(middle / "own", controllers="pids")
    assert usable_parent(own, top) == middle
    (middle / "cgroup.procs").chmod(0)
    if os.geteuid() != 0:
        assert usable_parent(own, top) == top


def test_a_group_is_made_to_hand_down_what_it_could(tmp_path: Path) -> None:
    own = make_group(tmp_path / "own", controllers="memory pids")
    assert usable_parent(own, own) == own
    assert (own / "cgroup.subtree_control").read_text() == "+memory"


def test_no_group_above_the_hierarchy_is_used(tmp_path: Path) -> None:
    make_group(tmp_path / "above", handed_down="memory")
    top = make_group(tmp_path / "above" / "top", controllers="hugetlb")
    assert usable_parent(top, top) is None


def test_limits_are_written_in_the_kernels_words(tmp_path: Path) -> None:
    path = tmp_path / "group"
    path.mkdir()
    for name in ("memory.max", "memory.oom.group", "cpu.max"):
        (path / name).touch()
    assert ControlGroup(path).make(memory_bytes=1 << 30, cpus=1.5) == ["memory", "cpus"]
    written = {each.name: each.read_text() for each in path.iterdir()}
    assert written == {"memory.max": "1073741824", "memory.oom.group": "1", "cpu.max": "150000 100000"}
    (path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (path / "memory.peak").write_text("4096\n")
    assert (ControlGroup(path).out_of_memory_kills(), ControlGroup(path).peak_bytes()) == (1, 4096)


@pytest.mark.skipif(find_parent() is None, reason="no control group with a memory limit may be made on this host")
def test_the_kernel_holds_and_tells(tmp_path: Path) -> None:
    group = cgroup.group_of(tmp_path)
    assert group is not None
    assert "memory" in group.make(memory_bytes=64 << 20, cpus=1)
    try:
        ended = subprocess.run([sys.executable, "-c", "bytearray(200 << 20)"], preexec_fn=group.enter, timeout=60)
        assert ended.returncode == -9
        assert group.out_of_memory_kills() == 1 and 60 << 20 < group.peak_bytes() <= 64 << 20
        sleeper = subprocess.Popen(["sleep", "600"], preexec_fn=group.enter)
    finally:
        group.remove()
    assert sleeper.wait(timeout=10) == -9
