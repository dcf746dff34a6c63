"""The model server: one process per version, run by the interpreter of the version's runtime.

`app` reads framed requests from the engine's socket, `batcher` puts those that wait into one call, `codecs` turns
JSON into arrays and back, `adapters/` hold what each framework needs. Imports the standard library, numpy and the one
framework of the version, and orjson where the runtime has it; nothing else of enginehouse.
"""

OLDEST_PYTHON = (3, 10)
"""A runtime with an older Python gets a worker (`worker`), and the rest runs on the engine's."""

CUSTOM = "CUSTOM:"
"""Begins what stands for a framework where a version has a `predictionClass`, which follows."""


def is_old(python_version: str) -> bool:
    """Whether a model of a runtime with that Python ("3.6") runs in a worker."""
    return tuple(map(int, python_version.split("."))) < OLDEST_PYTHON
