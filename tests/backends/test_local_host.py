"""What the local backend finds on its machine."""

from pathlib import Path

import pytest

from enginehouse.backends.base import Gpu
from enginehouse.backends.local.host import nvidia_gpus, this_host


def fake_nvidia_smi(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_gpus_are_those_that_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, 'echo "GPU-1, Tesla T4, 15360"; echo "GPU-2, NVIDIA H100, [N/A]"')
    assert nvidia_gpus() == (Gpu("GPU-1", "Tesla T4", 15360), Gpu("GPU-2", "NVIDIA H100", 0))
    assert this_host().cpus >= 1


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense"])
def test_a_driver_that_fails_means_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, script)
    assert nvidia_gpus() == ()


def test_without_nvidia_smi_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus() == ()
