"""Logs: append-only segments on disk and the merged log of a job. Standard library only: it runs beside user code."""
