"""One trial for the peers: `python -m trainer.task` with its parameter, and the metric that it reports."""

import json
import os
import subprocess
import tempfile
from pathlib import Path


def run_trial(python: str, folder: str, number: int, rate: float) -> float:
    """The metric of a run of the trainer; its output is kept in a file, as one does."""
    scratch = Path(tempfile.mkdtemp(prefix=f"trial-{number}-"))
    metrics = scratch / "metrics"
    with (scratch / "log").open("wb") as log:
        subprocess.run(
            [python, "-m", "trainer.task", "--rate", repr(rate), "--job-dir", str(scratch)],
            cwd=folder,
            env={**os.environ, "CLOUD_ML_HP_METRIC_FILE": str(metrics), "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=log,
            stderr=log,
            check=True,
        )
    return float(json.loads(metrics.read_text().splitlines()[-1])["accuracy"])
