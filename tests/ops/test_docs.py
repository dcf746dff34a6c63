"""The documents say what is so: generated pages are up to date, the quick start runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.core.settings import load_settings

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_up_to_date(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    subprocess.run([sys.executable, ROOT / "tools" / "generate_docs.py", tmp_path], env=environment, check=True)
    pages = {path.name for path in tmp_path.iterdir()}
    assert pages == {"cli.md", "settings.md", "clients.md", "compatibility.md"}
    for page in pages:
        assert (ROOT / "docs" / page).read_text() == (tmp_path / page).read_text(), "run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_quick_start_runs_as_it_stands(tmp_path: Path) -> None:
    """Slow: builds a runtime where none is, starts an engine, trains, deploys and predicts."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL)
    assert len(blocks) == 9
    script = "set -euo pipefail\n" + "\n".join(blocks)
    if shutil.which("curl") is None:
        script = script.replace(next(block for block in blocks if block.startswith("curl")), "")
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "mle").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m enginehouse.cli "$@"\n')
    (shims / "mle").chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ENGINEHOUSE_")},
        "HOME": str(tmp_path),
        "PATH": f"{shims}:{os.environ['PATH']}",
        "ENGINEHOUSE_PORT": "0",
        "ENGINEHOUSE_RUNTIMES_DIR": str(load_settings({}).runtimes_dir),
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
        )
    finally:
        subprocess.run([shims / "mle", "down"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "['setosa', 'versicolor', 'virginica']\n" in done.stdout
    if shutil.which("curl"):
        assert '{"predictions": ["setosa"]}' in done.stdout.replace('":[', '": [')
