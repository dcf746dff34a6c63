"""Runtimes: the Python environments there are, building them once, and users' packages on top. Standard library
only."""
