"""Replicas as processes of this host."""

from enginehouse.backends.local.backend import LocalBackend
from enginehouse.backends.local.containers import ContainerEngines

__all__ = ["ContainerEngines", "LocalBackend"]
