"""How a reader of the chapter works: `source ./scripts/X.sh` in a shell that is wired to an engine."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess

MLE = f"{sys.executable} -m enginehouse.cli"
SDK = shutil.which("gcloud") and shutil.which("gsutil")
# What the scripts use besides gcloud and gsutil.
TOOLS = ("bash", "sh", "date", "cat", "ls", "dirname", "sort", "tail", "head", "env", "sed", "grep", "sleep", "mkdir")


def environ_with_sdk() -> dict[str, str]:
    """This process's environment, if it has a Cloud SDK."""
    if not SDK:
        pytest.skip("no Cloud SDK is installed (gcloud and gsutil on PATH)")
    return dict(os.environ)


def environ_without_sdk(folder: Path) -> dict[str, str]:
    """The same with nothing on PATH but what every machine has."""
    tools = folder / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (tools / tool).symlink_to(found)
    return {**os.environ, "PATH": str(tools)}


@dataclass
class Reader:
    """Somebody who has the project in a folder and an engine.

    Attributes:
        environ: of the shell before it is wired.
    """

    project: Path
    engine: EngineProcess
    environ: dict[str, str]

    def init(self, framework: str) -> None:
        """Write the project."""
        command = [*MLE.split(), "init", str(self.project), "--framework", framework, "--quiet"]
        subprocess.run(command, check=True)

    def source(self, script: str, *, timeout_s: float = 400) -> str:
        """Run a script in a new shell; what it printed. It must succeed."""
        wire = f'eval "$({MLE} env --shell bash --data-dir {self.engine.data_dir})"'
        done = subprocess.run(
            ["bash", "-c", f"{wire}; export bucket_name=iris-dataset; set -e; source ./scripts/{script}"],
            cwd=self.project,
            env={**self.environ, "CLOUDSDK_ML_ENGINE_POLLING_INTERVAL": "1"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
