"""Replicas as processes of this host."""

from enginehouse.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
