"""What can go wrong with environments.

RuntimesError          (never raised itself)
├── RuntimeBuildError  a runtime or the dependencies of a package could not be installed
└── PackageError       a user's package is unreadable, unsafe or can't be built

They are no `EngineError`s: they happen beside user code, where their text becomes the replica's outcome.
"""

from __future__ import annotations


class RuntimesError(Exception):
    """Base; `str()` is for the job's owner and holds the tool's own words."""


class RuntimeBuildError(RuntimesError):
    """A runtime, or dependencies on top of it, could not be installed."""


class PackageError(RuntimesError):
    """A user's package is unreadable, unsafe or can't be built."""
