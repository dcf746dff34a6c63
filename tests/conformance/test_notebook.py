"""A notebook whose Jupyter was started by `mle run`: its kernel inherits the wiring, and its cells tell nothing.

Slow because Jupyter's kernel is installed when it is first needed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.conftest import PROJECT
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.tools import installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CELLS = (
    "from google.cloud import storage\n"
    "bucket = storage.Client().create_bucket('notebook-data')\n"
    "bucket.blob('table.csv').upload_from_string('a,b\\n1,2\\n')\n"
    "print(storage.Client().project)",
    "!gsutil cat gs://notebook-data/table.csv",
    "!gcloud ai-platform models create from_notebook --regions us-central1",
    "!gcloud ai-platform models list",
)


@pytest.mark.proves("Jupyter, started by mle run", state="works")
def test_a_notebook(shared_engine: EngineProcess, tmp_path: Path) -> None:
    jupyter = installed("nbclient==0.11.0", "ipykernel==7.4.0", "google-cloud-storage==3.17.1") / "jupyter-execute"
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": text,
        }
        for number, text in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps(notebook))
    run = [sys.executable, "-m", "enginehouse.cli", "run", "--project", PROJECT, "--data-dir", shared_engine.data_dir]
    done = subprocess.run(
        [*run, "--", jupyter, "--inplace", path], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = [
        "".join(text for output in cell["outputs"] for text in output.get("text", ""))
        for cell in json.loads(path.read_text())["cells"]
    ]
    assert printed[0] == f"{PROJECT}\n"
    assert "a,b" in printed[1]
    assert "1,2" in printed[1]
    assert "model [projects/demo-project/models/from_notebook]." in printed[2]
    assert "from_notebook" in printed[3]
