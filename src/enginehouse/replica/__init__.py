"""Beside user code: one runner process per replica. Standard library only; it needs no engine and outlives it."""
