"""Enginehouse: a Cloud Machine Learning Engine that you own."""

__version__ = "0.1.0"
