"""Ports of replicas: free, and nobody else's."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.core.errors import Unavailable
from enginehouse.jobs import ports as module
from enginehouse.jobs.ports import Ports


def test_two_engines_never_give_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_end", lambda: module._FIRST + 60)
    one, other = Ports(tmp_path), Ports(tmp_path)
    mine, others = one.claim(25), other.claim(25)
    assert len({*mine, *others}) == 50
    with pytest.raises(Unavailable, match="no 25 free ports"):
        one.claim(25)
    other.release(others)
    assert len(one.claim(25)) == 25


def test_a_port_that_somebody_listens_on_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(module, "_FIRST", taken)
        monkeypatch.setattr(module, "_end", lambda: taken + 1)
        with pytest.raises(Unavailable):
            Ports(tmp_path).claim(1)
    assert Ports(tmp_path).claim(1) == (taken,)


def test_what_a_dead_engine_gave_out_is_kept_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from enginehouse.jobs.ports import Ports;"
        "print(Ports(Path(sys.argv[1])).claim(1)[0])"
    )
    printed = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    port = int(printed.stdout)
    heir, other = Ports(tmp_path), Ports(tmp_path)
    heir.hold([port])
    assert not other._take(port)
    heir.release([port])
    assert other._take(port)


def test_they_lie_below_those_of_outgoing_connections(tmp_path: Path) -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(20_000 <= port < first for port in Ports(tmp_path).claim(20))
