"""The prediction line alone, as the engine composes it: `predict_engine.py PORT_FILE NAME=DIRECTORY …`.

Serves each directory's scikit-learn model as `projects/bench/models/NAME`, and writes its port into PORT_FILE when
all of them are loaded.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from pathlib import Path

import uvicorn

from enginehouse.core.errors import NotFound
from enginehouse.core.names import VersionName
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.router import PredictApp
from enginehouse.serving.types import ServedVersion


class Directory:
    """The versions given on the command line."""

    def __init__(self, directories: dict[str, Path]) -> None:
        self.versions = {
            name: ServedVersion(
                VersionName("bench", name, "v1"), f"bench-{name}", directory, "SCIKIT_LEARN", Path(sys.executable)
            )
            for name, directory in directories.items()
        }

    def resolve(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        if project != "bench" or model_id not in self.versions:
            raise NotFound(f"no model {model_id}")
        return self.versions[model_id]


async def main(port_file: Path, directories: dict[str, Path]) -> None:
    """Serve until a signal."""
    with tempfile.TemporaryDirectory() as logs:
        directory = Directory(directories)
        pool = ServerPool(Path(logs))
        await pool.start()
        try:
            for version in directory.versions.values():
                await pool.deploy(version)
            app = PredictApp(directory, pool, max_body_bytes=16 * 1024 * 1024)
            listener = socket.create_server(("127.0.0.1", 0))
            port_file.write_text(str(listener.getsockname()[1]))  # noqa: ASYNC240
            config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off")
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            await pool.close()


if __name__ == "__main__":
    pairs = [argument.partition("=") for argument in sys.argv[2:]]
    runner = asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory())
    with runner:
        runner.run(main(Path(sys.argv[1]), {name: Path(value) for name, _, value in pairs}))
